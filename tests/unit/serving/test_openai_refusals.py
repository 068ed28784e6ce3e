"""OpenAI's API: requests that are refused, models that fail, clients that go away, and the end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai_rig import (
    DEAF_TEMPLATE,
    MODEL,
    PATIENCE_S,
    PLAIN,
    ask,
    client_of,
    events,
    front_end,
    make_tokenizer,
    offered,
)
from token_server import FakeTokenServer, Fault, Finish, Piece, Refusal, StreamScript, evenly

from harness.errors import ServerError
from harness.serving.openai.chat import ChatTemplate
from harness.serving.openai.errors import ApiError
from harness.serving.openai.server import OpenAIServer

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one"}]}
TEXT = {"model": MODEL, "prompt": "one"}
COMPLETIONS = "/v1/completions"
ENDLESS = StreamScript(evenly(2, first_s=0, gap_s=600))


@pytest.fixture(scope="module")
def tokens() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as running:
        yield running


@pytest.fixture(scope="module")
def server(tokens, tmp_path_factory) -> Iterator[OpenAIServer]:
    with front_end(tmp_path_factory.mktemp("models"), tokens) as running:
        yield running


def wait_for(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ({"n": 2}, "n is not supported here: leave it out (or 1)"),
        ({"logprobs": True}, "logprobs is not supported here: leave it out (or false)"),
        ({"logprobs": 0}, "logprobs is not supported here: leave it out (or false)"),
        ({"echo": True}, "echo is not supported here: leave it out (or false)"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported here"),
        ({"tools": [{"type": "function"}]}, "tools is not supported here"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported here"),
        ({"top_logprobs": 3}, "this server has no field 'top_logprobs'"),
        ({"max_tokns": 3}, "this server has no field 'max_tokns'"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": -1}, "max_tokens is -1: it must be 0 or more"),
        ({"max_tokens": "9"}, "max_tokens is '9': it must be of type int"),
        ({"temperature": -1}, "temperature is -1: it must be 0 (greedy) or more"),
        ({"top_p": 0}, "top_p is 0: it must be above 0 and at most 1"),
        ({"seed": "x"}, "seed is 'x': it must be of type int or null"),
        ({"stop": [1]}, "stop is [1]: it must be a string or a list of strings"),
        ({"stop": ""}, "stop is ['']: it must be strings that are not empty"),
        ({"stream": 1}, "stream must be of type bool"),
        ({"stream_options": {"include_usage": True}}, "stream_options are for stream: true"),
        ({"stream": True, "stream_options": []}, "stream_options must be of type dict"),
        ({"seed": 2**63}, "seed is 9223372036854775808: it must be a number of 64 bits"),
        ({"model": 3}, "model must be of type str"),
        ({"prompt": ["a", "b"]}, "prompt must be one text, or one list of token ids"),
        ({"prompt": []}, "prompt must be one text, or one list of token ids"),
        ({"prompt": None}, "prompt must be one text, or one list of token ids"),
        ({"prompt": [1, "a"]}, "prompt must be one text, or one list of token ids"),
        ({"prompt": [True]}, "prompt must be one text, or one list of token ids"),
        ({"prompt": [2**40]}, "prompt: token ids are from 0 to 2147483647"),
        ({"prompt": [-1]}, "prompt: token ids are from 0 to 2147483647"),
    ],
)
def test_a_wrong_or_unsupported_field_is_refused_by_name(server, tokens, field, told):
    tokens.begin(StreamScript())
    status, _, body = ask(server, COMPLETIONS, TEXT | field)
    error = body["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith(told)
    assert error["param"] == [*field][-1]
    assert tokens.played == []


@pytest.mark.parametrize(
    "field",
    [
        {"n": 1, "best_of": 1, "echo": False, "logprobs": None, "suffix": None},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}},
        {"user": "me", "metadata": {"a": "b"}, "stop": None, "seed": None},
    ],
)
def test_what_asks_for_nothing_is_taken(server, tokens, field):
    tokens.begin(StreamScript())
    assert ask(server, COMPLETIONS, TEXT | field)[0] == 200


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("one", "messages"),
        (["one"], "messages[0]"),
        ([{"role": "wizard", "content": "one"}], "messages[0]"),
        ([{"role": ["user"], "content": "one"}], "messages[0]"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"text": "one"}]}], "messages[0].content"),
        ([{"role": "assistant", "content": "", "tool_calls": [{}]}], "messages[0].tool_calls"),
        ([{"role": "tool", "content": "one", "tool_call_id": "1"}], "messages[0]"),
        ([{"role": "user", "content": "one", "weight": 1}], "messages[0].weight"),
        ([{"role": "user", "content": "one", "name": 1}], "messages[0].name"),
    ],
)
def test_wrong_messages_are_refused_by_their_place(server, tokens, messages, param):
    status, _, body = ask(server, "/v1/chat/completions", CHAT | {"messages": messages})
    assert (status, body["error"]["param"]) == (400, param)


def test_a_streams_unknown_option_is_refused(server):
    asked = TEXT | {"stream": True, "stream_options": {"include_logits": True}}
    status, _, body = ask(server, COMPLETIONS, asked)
    assert (status, body["error"]["param"]) == (400, "stream_options.include_logits")


@pytest.mark.parametrize("model", [[MODEL], {"name": MODEL}, 3, True])
def test_a_chats_model_that_is_no_text_is_refused(server, model):
    status, _, body = ask(server, "/v1/chat/completions", CHAT | {"model": model})
    assert (status, body["error"]["param"]) == (400, "model")


def test_half_a_surrogate_pair_is_the_clients_mistake(server):
    text = b'{"model": "m", "prompt": "one \\ud83d"}'
    chat = b'{"model": "m", "messages": [{"role": "user", "content": "\\udc00"}]}'
    for path, half in ((COMPLETIONS, text), ("/v1/chat/completions", chat)):
        status, _, body = ask(server, path, half)
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        assert "half a surrogate pair" in body["error"]["message"]


def test_an_answer_may_be_sent_back_as_openais_client_has_it(server, tokens):
    tokens.begin(StreamScript())
    client = client_of(server)
    first = client.chat.completions.create(**CHAT).choices[0].message
    messages = [*CHAT["messages"], first.model_dump(), {"role": "user", "content": "two"}]
    assert ask(server, "/v1/chat/completions", CHAT | {"messages": messages})[0] == 200


def test_what_a_template_refuses_is_told_in_its_words(server):
    messages = [{"role": "developer", "content": "one"}]
    status, _, body = ask(server, "/v1/chat/completions", CHAT | {"messages": messages})
    assert status == 400
    assert body["error"]["message"].endswith("does not take these messages: no developers here")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_message_that_a_template_passes_over_is_refused(tmp_path, role):
    template = ChatTemplate(make_tokenizer(tmp_path, DEAF_TEMPLATE))
    messages = [*CHAT["messages"], {"role": role, "content": "one"}, *CHAT["messages"]]
    with pytest.raises(ApiError) as refused:
        template.token_ids(messages)
    assert refused.value.body["error"]["param"] == "messages[1]"
    assert f"leaves out messages[1], of the role {role}" in str(refused.value)
    empty = [*messages[:1], {"role": role, "content": " "}, *messages[2:]]
    assert template.token_ids(empty) == template.token_ids([messages[0], messages[2]])


def test_a_checkpoint_without_a_template_has_no_chats(server):
    status, _, body = ask(server, "/v1/chat/completions", CHAT | {"model": PLAIN})
    assert (status, body["error"]["code"]) == (400, "no_chat_template")
    assert "/v1/completions" in body["error"]["message"]


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("POST", COMPLETIONS, b"{", 400),
        ("POST", COMPLETIONS, b"\xff", 400),
        ("POST", COMPLETIONS, b"[]", 400),
        ("POST", COMPLETIONS, b"[" * 100_000, 400),
        ("POST", COMPLETIONS, b" " * (2**24 + 1), 413),
        ("POST", "/v1/embeddings", b"{}", 404),
        ("GET", COMPLETIONS, b"", 405),
    ],
)
def test_what_is_no_request_gets_an_error_in_openais_form(server, verb, path, body, status):
    found, _, answer = ask(server, path, body, verb=verb)
    assert found == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_429_and_says_when_to_ask_again(server, tokens, stream):
    """Before anything is streamed the status is still to be chosen."""
    tokens.begin(
        StreamScript(refusal=Refusal(429, "the queue is full", grpc_status=14)),
        StreamScript(refusal=Refusal(429, "Exceeds maximum queue size")),
    )
    for _ in range(2):
        status, headers, body = ask(server, COMPLETIONS, TEXT | {"stream": stream})
        assert (status, headers["Retry-After"]) == (429, "1")
        assert body["error"]["code"] == "queue_full"
    with pytest.raises(openai.RateLimitError):
        client_of(server).completions.create(**TEXT)


@pytest.mark.parametrize(
    ("grpc_status", "status", "kind"),
    [
        (3, 400, "invalid_request_error"),
        (13, 500, "server_error"),
        (None, 500, "server_error"),
    ],
)
def test_the_models_own_errors_keep_their_words(server, tokens, grpc_status, status, kind):
    tokens.begin(StreamScript(refusal=Refusal(500, "9 tokens are too many", None, grpc_status)))
    found, _, body = ask(server, COMPLETIONS, TEXT)
    assert (found, body["error"]["type"]) == (status, kind)
    assert body["error"]["message"] == "9 tokens are too many"


def test_a_triton_that_is_away_is_503(tmp_path):
    with OpenAIServer(offered(tmp_path), "127.0.0.1:9") as server:
        status, headers, body = ask(server, COMPLETIONS, TEXT)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert body["error"]["message"].startswith("the model's server cannot be reached")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (StreamScript(fault=Fault.ERROR, fault_after=2), "the engine died"),
        (
            StreamScript(evenly(2, first_s=0, gap_s=0), finish=Finish.NEVER),
            "the model ended the stream without a finish reason",
        ),
        (
            StreamScript(evenly(3, first_s=0, gap_s=0), finish_reason="cancelled"),
            "the model's server is stopping",
        ),
    ],
)
def test_an_error_in_a_stream_is_its_last_event(server, tokens, script, told):
    tokens.begin(script)
    chunks = events(server, COMPLETIONS, TEXT)
    assert [one["choices"][0]["text"] for one in chunks[:-1]] == ["w0 ", "w1 "]
    assert chunks[-1]["error"]["message"] == told
    status, _, body = ask(server, COMPLETIONS, TEXT)
    assert (status, body["error"]["message"]) == (500, told)
    with pytest.raises(openai.APIError, match=told):
        list(client_of(server).completions.create(**TEXT, stream=True))


def test_a_model_that_falls_silent_is_given_up(tokens, tmp_path):
    tokens.begin(StreamScript(fault=Fault.STALLED, fault_after=1))
    with front_end(tmp_path, tokens, silence_s=2.0) as server:
        assert ask(server, COMPLETIONS, TEXT)[0] == 504
        chunks = events(server, COMPLETIONS, TEXT)
    assert chunks[-1]["error"]["message"] == "the model has sent nothing for 2 s"
    wait_for(lambda: all(played.gone_ns for played in tokens.played))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_request_on_triton(server, tokens, stream):
    tokens.begin(ENDLESS)
    host, port = server.address.split(":")
    body = json.dumps(TEXT | {"stream": stream}).encode()
    with socket.create_connection((host, int(port)), PATIENCE_S) as connected:
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connected.sendall(head.encode() + body)
        wait_for(lambda: tokens.played and tokens.played[0].sent)
        assert tokens.played[0].gone_ns is None
    wait_for(lambda: tokens.played[0].gone_ns)


def test_a_request_that_has_ended_is_not_cancelled(server, tokens):
    tokens.begin(StreamScript())
    for _ in range(20):
        ask(server, COMPLETIONS, TEXT)
        events(server, COMPLETIONS, TEXT)
    assert [one.gone_ns for one in tokens.played] == [None] * 40


def test_one_connection_carries_one_stream_after_the_other(server, tokens):
    tokens.begin(StreamScript())
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE_S)
    for _ in range(3):
        connection.request("POST", COMPLETIONS, json.dumps(TEXT | {"stream": True}))
        assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")


def stop_amid_a_stream(server: OpenAIServer, tokens: FakeTokenServer) -> list[bytes]:
    """Lines of a stream that began before the server was left."""
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE_S)
    connection.request("POST", COMPLETIONS, json.dumps(TEXT | {"stream": True}))
    answer = connection.getresponse()
    lines = [answer.readline()]
    stopping = threading.Thread(target=server.__exit__, args=(None, None, None))
    stopping.start()
    try:
        lines += answer.readlines()
    except http.client.HTTPException:
        lines.append(b"cut off")
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address.split(":"))
    return lines


def test_a_stop_lets_streams_in_flight_end(tokens, tmp_path):
    tokens.begin(StreamScript([Piece(0, "a"), Piece(1, "b")]))
    server = OpenAIServer(offered(tmp_path), tokens.grpc, grace_s=PATIENCE_S)
    lines = stop_amid_a_stream(server.__enter__(), tokens)
    assert lines[-2] == b"data: [DONE]\n"


def test_a_stop_waits_no_longer_than_its_grace(tokens, tmp_path):
    tokens.begin(ENDLESS)
    server = OpenAIServer(offered(tmp_path), tokens.grpc, grace_s=0.2)
    lines = stop_amid_a_stream(server.__enter__(), tokens)
    assert b"data: [DONE]\n" not in lines
    wait_for(lambda: tokens.played[0].gone_ns)


def test_a_port_in_use_is_told(server, tokens, tmp_path):
    port = int(server.address.rpartition(":")[2])
    with (
        pytest.raises(ServerError, match=f"OpenAI's API cannot listen on 127.0.0.1:{port}"),
        OpenAIServer(offered(tmp_path), tokens.grpc, port=port),
    ):
        pass
