"""Prompts and lengths: drawn, from a data set or from a trace; what is sent of them."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from harness.cli.generation_options import GenerationOptions
from harness.errors import DataError, UsageError
from harness.load.engine.closed_loop import Ending
from harness.load.requests import prompts
from harness.load.requests.generation import (
    GenerationRequest,
    Turn,
    encode_requests,
    read_requests,
    write_requests,
)
from harness.load.requests.lengths import TracedLengths, parse_lengths, read_length_trace
from harness.load.requests.payloads import POOL_REQUESTS
from harness.load.requests.prompts import (
    PromptShape,
    made_up,
    read_prompts,
    some_leave,
    traced,
)
from harness.load.requests.traffic import make_stream_traffic
from harness.load.transports.address import parse_target
from harness.load.transports.contract import WireAnswer, stamped
from harness.load.transports.streams.counting import token_counter
from harness.load.transports.streams.http import STREAMED
from harness.load.transports.streams.tokens import StreamRequest, spread
from harness.types import Generation, StreamApi, WireProtocol, Workload

TEN = parse_lengths("10")


def drawn(text: str, count: int = 4000) -> np.ndarray:
    return parse_lengths(text).draw(count, np.random.default_rng(0))


def test_lengths_are_of_their_distribution() -> None:
    assert set(drawn("7")) == {7}
    uniform, normal, tailed = drawn("uniform:5..9"), drawn("normal:100,20"), drawn("lognormal:50,1")
    assert set(uniform) == {5, 6, 7, 8, 9}
    assert abs(normal.mean() - 100) < 1
    assert abs(normal.std() - 20) < 1
    assert abs(np.median(tailed) - 50) < 4
    assert tailed.min() >= 1
    mixed = drawn("16:1,128:3")
    assert set(mixed) == {16, 128}
    assert abs((mixed == 128).mean() - 0.75) < 0.03
    assert drawn("normal:1,50").min() == 1, "no length below one token"


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "uniform:9..5", "normal:5", "normal:0,1", "7:0", "long", "2000000"]
)
def test_what_is_no_distribution_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_lengths(text)


def test_azure_s_traces_and_mooncake_s_have_lengths(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,0\n"
    )
    assert read_length_trace(azure, most=9) == [TracedLengths(374, 44), TracedLengths(396, 1)]
    mooncake = tmp_path / "mooncake.jsonl"
    mooncake.write_text(
        '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n'
        '{"timestamp": 9, "input_length": 700, "output_length": 6, "hash_ids": [0, 2]}\n'
    )
    assert read_length_trace(mooncake, most=1) == [TracedLengths(600, 5, (0, 1))]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "its columns are a, b"),
        ("ContextTokens,GeneratedTokens\n1,x\n", "line 2: a length that is no whole number"),
        ("ContextTokens,GeneratedTokens\n", "the trace has no requests"),
        ('{"timestamp": 0}\n', "line 1: is not a JSON object with input_length"),
    ],
)
def test_a_trace_without_lengths_is_told(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_length_trace(path, most=9)


def test_made_up_prompts_have_their_lengths_and_no_common_beginning() -> None:
    pool = made_up(PromptShape(parse_lengths("uniform:20..30"), TEN), 1, None)
    assert {len(one.prompt.split()) for one in pool} == set(range(20, 31))
    assert {one.max_tokens for one in pool} == {10}
    assert len({" ".join(one.prompt.split()[:8]) for one in pool}) == len(pool)
    assert pool == made_up(PromptShape(parse_lengths("uniform:20..30"), TEN), 1, None)
    assert pool != made_up(PromptShape(parse_lengths("uniform:20..30"), TEN), 2, None)


def test_a_shared_prefix_is_shared_and_the_rest_is_not() -> None:
    pool = made_up(PromptShape(parse_lengths("50"), TEN, shared_prefix=40), 1, None)
    assert len({" ".join(one.prompt.split()[:40]) for one in pool}) == 1
    assert len({one.prompt for one in pool}) == len(pool)


def test_blocks_of_a_trace_are_the_same_text_wherever_they_stand() -> None:
    lengths = [TracedLengths(600, 5, (7, 8)), TracedLengths(700, 6, (7, 9)), TracedLengths(4, 1)]
    first, second, third = (one.prompt.split() for one in traced(lengths, 1, None))
    assert (len(first), len(second), len(third)) == (600, 700, 4)
    assert first[:512] == second[:512]
    assert first[512:] != second[512:600]


def test_a_tokenizer_makes_lengths_exact() -> None:
    """One that cuts every word in two, so that words are not tokens."""
    pool = made_up(
        PromptShape(parse_lengths("31"), TEN), 1, lambda text: [*range(2 * len(text.split()))]
    )
    assert {len(one.prompt.split()) for one in pool} == {15}
    assert {one.input_tokens for one in pool} == {30}


@pytest.mark.parametrize("ratio", [1, 2.5, 3, 4.97, 6])
@pytest.mark.parametrize("wanted", [1, 7, 128, 500])
def test_a_prompt_has_as_many_words_as_fit_however_many_tokens_a_word_is(
    ratio: float, wanted: int
) -> None:
    calls = 0

    def tokenize(text: str) -> range:
        nonlocal calls
        calls += 1
        return range(math.ceil(ratio * len(text.split())))

    shape = PromptShape(parse_lengths(str(wanted)), TEN)
    (counted,) = {one.input_tokens for one in made_up(shape, 1, tokenize)}
    assert max(1, wanted - ratio) < counted <= max(wanted, math.ceil(ratio)) or counted == wanted
    assert calls <= 6 * POOL_REQUESTS, "a prompt is counted a few times, not once a word"


def test_words_of_unlike_lengths_fill_a_prompt_too() -> None:
    def tokenize(text: str) -> str:
        return text.replace(" ", "")

    pool = made_up(PromptShape(parse_lengths("300"), TEN), 1, tokenize)
    assert all(300 - len("government") < one.input_tokens <= 300 for one in pool)
    assert all(one.input_tokens == len(tokenize(one.prompt)) for one in pool)


def test_a_file_of_more_rows_than_are_sent_in_turn_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MOST_REQUESTS", 3)
    path, told = tmp_path / "prompts.jsonl", []
    path.write_text('{"prompt": "x"}\n' * 3)
    assert len(read_prompts(path, TEN, 1, None, told.append)) == 3
    assert told == []
    path.write_text('{"prompt": "x"}\n' * 4)
    assert len(read_prompts(path, TEN, 1, None, told.append)) == 3
    (said,) = told
    assert said.startswith(f"{path}: its first 3 rows are sent")


def test_a_longer_trace_of_lengths_is_told_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prompts, "MOST_REQUESTS", 2)
    path = tmp_path / "trace.csv"
    path.write_text("ContextTokens,GeneratedTokens\n" + "3,4\n" * 3)
    options = GenerationOptions(StreamApi.CHAT, length_trace=path)
    assert len(options.requests(1)) == 2
    assert "its first 2 rows are sent" in " ".join(capsys.readouterr().err.split())


def test_a_data_set_s_rows_are_sent_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "one", "max_tokens": 3},
        {"text_input": "two"},
        {"messages": [{"role": "user", "content": "three"}], "output_length": 5},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    one, two, three = read_prompts(path, TEN, 1, None)
    assert (one.prompt, one.max_tokens) == ("one", 3)
    assert (two.prompt, two.max_tokens) == ("two", 10)
    assert (three.messages[0]["content"], three.max_tokens) == ("three", 5)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("no json", "line 2: is no JSON object"),
        ("[1]", "line 2: is no JSON object"),
        ('{"prompt": " "}', "line 2: has no prompt that says anything"),
        ('{"prompt": 7}', "line 2: has no prompt that says anything"),
        ('{"prompt": "x", "max_tokens": 0}', "line 2: 0 is no number of tokens"),
        ('{"prompt": "x", "max_tokens": true}', "line 2: True is no number of tokens"),
        ('{"prompt": "x", "max_tokens": 6.5}', "line 2: 6.5 is no number of tokens"),
        ('{"prompt": "x", "turns": 5}', "line 2: its turns are no list"),
        ('{"messages": "x"}', "line 2: its messages are no list"),
        ('{"messages": ["x"]}', "line 2: a message is no JSON object"),
        (r'{"prompt": "half a sign: \ud83d"}', "line 2: a text that UTF-8 cannot carry"),
        ('{"prompt": "x", "turns": [{"prompt": "y", "think_s": NaN}]}', "line 2: a turn says"),
    ],
)
def test_a_row_without_a_prompt_is_told_with_its_line(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "x"}}\n{row}\n')
    with pytest.raises(DataError, match=said):
        read_prompts(path, TEN, 1, None)


def test_what_a_table_writes_for_nothing_is_nothing(tmp_path: Path) -> None:
    """As pandas writes rows of which some lack a field: null, and whole numbers as floats."""
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "one", "messages": None, "turns": None, "max_tokens": 3.0},
        {"prompt": None, "text": "two", "max_tokens": None, "output_tokens": 4},
        {"prompt": None, "messages": [{"role": "user", "content": "three"}], "max_tokens": None},
        {"prompt": "four", "turns": [{"prompt": "b", "max_tokens": None, "think_s": None}]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_prompts(path, TEN, 1, None)
    assert [one.prompt for one in found] == ["one", "two", "", "four"]
    assert [one.max_tokens for one in found] == [3, 4, 10, 10]
    assert found[3].turns == (Turn("b", 10),)


def test_a_share_of_the_clients_leaves_within_its_answer() -> None:
    pool = [GenerationRequest("x", 8) for _ in range(200)]
    leaving = [one.leave_after for one in some_leave(pool, 0.05, 1) if one.leave_after]
    assert len(leaving) == 10
    assert all(1 <= one <= 8 for one in leaving)
    assert some_leave(pool, 0.05, 1) == some_leave(pool, 0.05, 1)
    assert some_leave(pool, 0.0, 1) == pool


def test_a_pool_survives_its_file(tmp_path: Path) -> None:
    pool = [
        GenerationRequest("\u4e2d\n\u2028", 3, input_tokens=2, leave_after=1),
        GenerationRequest("", 4, ({"role": "user", "content": "x"},), input_ids=(7, 8)),
    ]
    write_requests(tmp_path / "a" / "pool.jsonl", pool)
    assert read_requests(tmp_path / "a" / "pool.jsonl") == pool
    with pytest.raises(DataError):
        write_requests(tmp_path / "b.jsonl", [])


def http_body(api: StreamApi, one: GenerationRequest, **changes: object) -> tuple[str, dict]:
    generation = Generation(api, **changes)
    target = parse_target("http://h:1/prefix", headers=(("Authorization", "Bearer k"),))
    (encoded,) = encode_requests([one], generation, WireProtocol.HTTP, target, "m")
    sent, identity = stamped(encoded.body)
    head, _, content = sent.partition(b"\r\n\r\n")
    assert b"\r\nX-Request-Id: " + identity in head
    assert b"\r\nAuthorization: Bearer k" in head
    assert f"Content-Length: {len(content)}".encode() in head
    assert isinstance(encoded.body, StreamRequest)
    assert encoded.body.max_tokens == one.max_tokens
    return head.decode().split()[1], json.loads(content)


def test_what_is_sent_over_each_interface() -> None:
    one = GenerationRequest("say", 5)
    sampling = '{"temperature": 0.5, "seed": 1}'
    path, body = http_body(StreamApi.CHAT, one, sampling=sampling)
    assert path == "/prefix/v1/chat/completions"
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "say"}], "max_tokens": 5,
        "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "seed": 1,
    }  # fmt: skip
    path, body = http_body(StreamApi.COMPLETIONS, one)
    assert (path, body["prompt"]) == ("/prefix/v1/completions", "say")
    known = ("text_input", "stream", "sampling_parameters", "return_num_output_tokens")
    path, body = http_body(StreamApi.TRITON, one, inputs=known, sampling=sampling)
    assert path == "/prefix/v2/models/m/generate_stream"
    assert json.loads(body.pop("sampling_parameters")) == {
        "max_tokens": 5, "temperature": 0.5, "seed": 1,
    }  # fmt: skip
    assert body == {"text_input": "say", "stream": True, "return_num_output_tokens": True}


def test_a_chat_goes_to_triton_in_tokens_and_to_others_as_messages() -> None:
    messages = ({"role": "user", "content": "say"},)
    one = GenerationRequest("", 5, messages, input_ids=(3, 1, 4))
    _, body = http_body(StreamApi.TRITON, one, inputs=("text_input", "input_ids", "stream"))
    assert body == {"input_ids": [3, 1, 4], "stream": True}
    _, body = http_body(StreamApi.CHAT, one)
    assert body["messages"] == list(messages)


def test_a_tokenizer_counts_the_tokens_that_each_piece_completes(tmp_path: Path) -> None:
    """Pieces tokenized apart would each begin anew: `ab` is one token, in whichever piece it ends.

    The first piece ends within a word and within a character of two bytes.
    """
    words = {"[UNK]": 0, "ab": 1, "c": 2, "\u00e9t": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    count = token_counter(tmp_path)
    accent = "\u00e9".encode()
    assert count([b"a", b"b c", b" ", accent[:1], accent[1:] + b"t"]) == [0, 2, 0, 0, 1]
    assert count([b"ab ab ab"]) == [3]


def test_a_tokenizer_that_cuts_and_fills_up_counts_every_token_and_no_other(tmp_path: Path) -> None:
    """As a file has it that was saved after a batch: at most four tokens, and never fewer."""
    words = {"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.enable_truncation(4)
    backend.enable_padding(length=4, pad_id=1, pad_token="[PAD]")
    backend.save(str(tmp_path / "tokenizer.json"))
    count = token_counter(tmp_path)
    assert count([b"a ", b"b ", b"a ", b"b ", b"a ", b"b"]) == [1] * 6
    assert count([b"a ", b"b"]) == [1, 1]


def test_no_tokenizer_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="no tokenizer"):
        token_counter(tmp_path)


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [(20, [3, 3, 3, 3, 3], [4] * 5), (7, [1, 5, 1], [2, 3, 2]), (5, [0, 0], [1, 4])],
)
def test_usage_is_spread_by_length_and_none_is_lost(
    total: int, weights: list[int], expected: list[int]
) -> None:
    assert spread(total, weights) == expected
    assert sum(spread(total, weights)) == total


class Counted:
    """A transport that answers at once, and ends its loop after so many requests."""

    received_ns, identity = 0, b""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.ending = Ending()

    def send(self, request: bytes) -> WireAnswer:
        self.sent.append(json.loads(request.split(b"\r\n\r\n", 1)[1])["prompt"])
        self.received_ns = time.monotonic_ns()
        if len(self.sent) % 3 == 0:
            self.ending.at_ns = 0
        return STREAMED


class Nowhere:
    def add(self, *_: object) -> None:
        """Forgets it."""


@pytest.mark.parametrize("workers", [1, 2])
def test_users_of_a_closed_loop_send_each_prompt_once_before_the_first_comes_again(
    workers: int,
) -> None:
    """Each with a walk of its own sent a seventh of them again, which a prefix cache answers."""
    pool = [GenerationRequest(f"p{n}", 8) for n in range(16)]
    workload = Workload(
        WireProtocol.HTTP, 1, 4, 1.0, 0.0, 0, generation=Generation(StreamApi.COMPLETIONS)
    )
    sent = []
    for worker in range(workers):
        traffic = make_stream_traffic(
            "m", Counted, workload, parse_target("h:1"), pool, worker=worker, workers=workers
        )
        traffic.sink_of = lambda _, sink: sink
        users = [Counted() for _ in range(4 // workers)]
        for user in users:
            traffic.closed_loop(user, Nowhere()).run(user.ending)
            sent += user.sent
        assert users[0].sent == [f"p{n}" for n in range(worker, 16, workers)][:3]
    # A user that ends has taken one request more, which nobody sends.
    assert len(sent) == len(set(sent)) == 12
