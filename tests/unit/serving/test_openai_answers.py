"""OpenAI's API: what OpenAI's own client gets, and what the model on Triton was asked."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
import transformers
from openai_rig import (
    CONTEXT,
    DEAF_TEMPLATE,
    MODEL,
    PLAIN,
    TEMPLATE,
    WORDS,
    ask,
    client_of,
    events,
    front_end,
    make_tokenizer,
    offered,
)
from token_server import FakeTokenServer, Piece, StreamScript, evenly

from harness.serving.openai.chat import ChatTemplate
from harness.serving.openai.server import OpenAIServer

CHAT = [{"role": "user", "content": "one two"}]


@pytest.fixture(scope="module")
def tokens() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as running:
        yield running


@pytest.fixture(scope="module")
def server(tokens, tmp_path_factory) -> Iterator[OpenAIServer]:
    with front_end(tmp_path_factory.mktemp("models"), tokens) as running:
        yield running


@pytest.fixture(scope="module")
def shared_client(server) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture
def client(tokens, shared_client) -> openai.OpenAI:
    tokens.begin(StreamScript())
    return shared_client


def asked(tokens: FakeTokenServer) -> dict[str, object]:
    (played,) = tokens.played
    return played.asked


def ids(*words: str) -> list[int]:
    return [WORDS.index(word) for word in words]


def test_the_models_are_listed(client):
    listed = client.models.list().data
    assert [(one.id, one.owned_by) for one in listed] == [(MODEL, "harness"), (PLAIN, "harness")]
    assert client.models.retrieve(PLAIN).id == PLAIN
    with pytest.raises(openai.NotFoundError, match=f"no model 'gpt-4' here, but {MODEL}, {PLAIN}"):
        client.models.retrieve("gpt-4")


def test_a_chat_in_one(client, tokens):
    answer = client.chat.completions.create(model=MODEL, messages=CHAT)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "w0 w1 w2 w3 ")
    assert (choice.finish_reason, choice.index, choice.logprobs) == ("stop", 0, None)
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.usage.completion_tokens == 4
    assert asked(tokens)["model"] == MODEL


def test_a_chat_is_written_by_the_checkpoints_template_and_begins_once(client, tokens):
    """The template writes <s>, which the tokenizer would write before a text once more."""
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    client.chat.completions.create(model=MODEL, messages=messages)
    words = ["<s>", "[system]", "be", "brief", "[user]", "one", "two", "[assistant]"]
    assert asked(tokens)["input_ids"] == ids(*words)
    assert "text_input" not in asked(tokens)


def test_who_says_a_message_is_told_to_the_template(client, tokens):
    named = [{"role": "user", "content": "one", "name": "two"}]
    client.chat.completions.create(model=MODEL, messages=named)
    assert asked(tokens)["input_ids"] == ids("<s>", "[user]", "two", "one", "[assistant]")


def test_a_developers_message_is_the_systems_to_a_template_that_knows_no_developers(tmp_path):
    """Such templates pass over it without a word: the instruction would be lost."""
    template = ChatTemplate(make_tokenizer(tmp_path, DEAF_TEMPLATE))
    developer = {"role": "developer", "content": "be brief"}
    answer = {"role": "assistant", "content": "one three two"}
    words = ["<s>", "[system]", "be", "brief", "[user]", "one", "two", "[assistant]"]
    assert template.token_ids([developer, *CHAT]) == tuple(ids(*words))
    # What a template cuts of a text is its own affair.
    begun = [*words, "two", "[user]", "one", "two", "[assistant]"]
    assert template.token_ids([developer, *CHAT, answer, *CHAT]) == tuple(ids(*begun))


@pytest.mark.parametrize("content", ["one two", "one two three be " * 400])
def test_a_chats_ids_are_those_of_the_library(client, tokens, tmp_path, content):
    """Of a long one too, which is made ids of in a thread of its own."""
    chat = [{"role": "user", "content": content}]
    client.chat.completions.create(model=MODEL, messages=chat)
    bare = transformers.AutoTokenizer.from_pretrained(make_tokenizer(tmp_path, TEMPLATE))
    wanted = bare.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert asked(tokens)["input_ids"] == wanted


def test_a_streamed_chat(client):
    chunks = list(client.chat.completions.create(model=MODEL, messages=CHAT, stream=True))
    deltas = [one.choices[0].delta for one in chunks]
    assert [one.content for one in deltas] == ["w0 ", "w1 ", "w2 ", "w3 ", None]
    assert [one.role for one in deltas] == ["assistant", None, None, None, None]
    assert [one.choices[0].finish_reason for one in chunks] == [None] * 4 + ["stop"]
    assert {one.id for one in chunks} == {chunks[0].id}
    assert {one.object for one in chunks} == {"chat.completion.chunk"}
    assert all(one.usage is None for one in chunks)


def test_usage_of_a_stream(client):
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=CHAT, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert all(one.usage is None for one in chunks[:-1])


def test_usage_in_each_chunk(server, tokens):
    tokens.begin(StreamScript(evenly(3, first_s=0, gap_s=0, tokens=2)))
    options = {"stream_options": {"continuous_usage_stats": True}}
    body = {"model": MODEL, "prompt": "one two three", "max_tokens": 6, **options}
    chunks = events(server, "/v1/completions", body)
    told = [one["usage"] for one in chunks if one != "[DONE]"]
    assert [one["completion_tokens"] for one in told] == [2, 4, 6, 6]
    assert {one["prompt_tokens"] for one in told} == {3}
    assert told[-1]["total_tokens"] == 9


def test_a_completion_in_one(client, tokens):
    answer = client.completions.create(model=PLAIN, prompt="one two")
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("w0 w1 w2 w3 ", "stop")
    assert answer.object == "text_completion"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 4)
    assert answer.usage.total_tokens == 6
    assert asked(tokens)["text_input"] == "one two"


def test_a_streamed_completion(client):
    chunks = list(client.completions.create(model=MODEL, prompt="one", stream=True))
    assert [one.choices[0].text for one in chunks] == ["w0 ", "w1 ", "w2 ", "w3 ", ""]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_ends_with_done(server, tokens):
    tokens.begin(StreamScript())
    assert events(server, "/v1/completions", {"model": MODEL, "prompt": "a"})[-1] == "[DONE]"


def test_a_prompt_of_token_ids(client, tokens):
    client.completions.create(model=MODEL, prompt=[4, 5, 6])
    client.completions.create(model=MODEL, prompt=[[7, 8]])
    assert [one.asked["input_ids"] for one in tokens.played] == [[4, 5, 6], [7, 8]]


def test_sampling_parameters_reach_the_model(client, tokens):
    client.chat.completions.create(
        model=MODEL,
        messages=CHAT,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop=["\n", "<end>"],
        max_completion_tokens=9,
        extra_body={"top_k": 5, "ignore_eos": True, "min_tokens": 2},
    )
    assert asked(tokens)["sampling_parameters"] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["\n", "<end>"],
        "max_tokens": 9,
        "top_k": 5,
        "ignore_eos": True,
        "min_tokens": 2,
    }


def test_the_defaults_are_openais(client, tokens):
    """A temperature of 1; a completion has 16 tokens, a chat the whole context."""
    client.completions.create(model=MODEL, prompt="one")
    client.chat.completions.create(model=MODEL, messages=CHAT)
    sampling = [one.asked["sampling_parameters"] for one in tokens.played]
    assert sampling == [{"temperature": 1.0}, {"temperature": 1.0, "max_tokens": CONTEXT}]


def test_the_present_name_of_the_limit_counts(client, tokens):
    answer = client.chat.completions.create(
        model=MODEL, messages=CHAT, max_tokens=1, max_completion_tokens=2
    )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
        "w0 w1 ",
        "length",
    )


def test_one_model_need_not_be_named(server, tokens, tmp_path):
    tokens.begin(StreamScript())
    status, _, answer = ask(server, "/v1/completions", {"prompt": "a"})
    assert (status, answer["error"]["param"]) == (400, "model")
    with OpenAIServer(offered(tmp_path)[:1], tokens.grpc) as alone:
        assert ask(alone, "/v1/completions", {"prompt": "a"})[0] == 200


def test_a_character_cut_in_two_comes_whole(client, tokens):
    raw = "é🚀".encode()
    pieces = [Piece(0, bytes([one]).decode("utf-8", "surrogateescape")) for one in raw]
    tokens.begin(StreamScript(pieces))
    chunks = list(client.completions.create(model=MODEL, prompt="a", stream=True))
    assert [one.choices[0].text for one in chunks] == ["é", "🚀", ""]
    assert client.completions.create(model=MODEL, prompt="a").usage.completion_tokens == 6


def test_health_is_tritons(server, tmp_path):
    assert ask(server, "/health", b"", verb="GET")[0] == 200
    with OpenAIServer(offered(tmp_path), "127.0.0.1:9") as without:
        status, headers, body = ask(without, "/health", b"", verb="GET")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert body["error"]["type"] == "server_error"
