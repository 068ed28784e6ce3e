"""What events say: recognised by their bytes or read in full, it is the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from harness.load.transports.contract import RequestFailure
from harness.load.transports.streams.events import (
    EventReader,
    finish_generate,
    finish_openai,
    parse_generate,
    parse_openai,
)
from harness.load.transports.streams.grpc import ResponseReader
from harness.load.transports.streams.tokens import TokenStream


def chunk(text: str | None = None, *, usage: int | None = None, **choice: Any) -> bytes:
    """A chunk of a chat completion as vLLM writes it."""
    delta = {} if text is None else {"content": text}
    one = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **choice}
    told = {} if usage is None else {"usage": {"prompt_tokens": 3, "completion_tokens": usage}}
    body = {"id": "c-1", "created": 1, "model": "m", "choices": [one], **told}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def read(events: list[bytes], *, at_once: bool = True) -> TokenStream:
    stream = TokenStream()
    reader = EventReader(stream, parse_openai)
    for events_of_one_read in [events] if at_once else [[one] for one in events]:
        reader.take(events_of_one_read, 7)
    return stream


texts = st.text(
    st.sampled_from(list('ab "\\\n{}:,\u00e9\u4e2d\U0001f600\u2028')), min_size=1, max_size=6
)


@given(st.lists(texts, min_size=1, max_size=30), st.booleans())
def test_a_recognised_event_is_the_event_read_in_full(words: list[str], at_once: bool) -> None:
    """Quotes, backslashes and braces in a text may end no string and begin no field."""
    stream = read([chunk(one) for one in words], at_once=at_once)
    assert [one.decode() for one in stream.texts] == words
    assert stream.tokens == [1] * len(words)
    assert stream.times_ns == [7] * len(words)


@given(st.lists(texts, min_size=1, max_size=20))
def test_events_of_generate_stream_are_too(words: list[str]) -> None:
    stream = TokenStream()
    fields = {"model_name": "m", "finish_reason": "", "num_output_tokens": 2}
    events = [json.dumps({**fields, "text_output": one}).encode() for one in words]
    EventReader(stream, parse_generate).take(events, 7)
    finish_generate(stream)
    assert [one.decode() for one in stream.texts] == words
    assert stream.tokens == [2] * len(words)
    assert stream.reported_tokens == 2 * len(words)


ids = st.one_of(st.integers(0, 99_999), st.lists(st.integers(0, 9), min_size=2, max_size=3))


@given(st.lists(st.tuples(texts, ids, st.integers(1, 2)), min_size=1, max_size=20), st.booleans())
def test_events_with_the_ids_of_their_tokens_are_too(
    told: list[tuple[str, int | list[int], int]], id_last: bool
) -> None:
    """Triton writes one id as a plain number, which differs from event to event."""
    stream, events = TokenStream(), []
    for text, of_tokens, count in told:
        fields = {"num_output_tokens": count, "text_output": text, "token_ids": of_tokens}
        tail = {} if id_last else {"zzz": 1}
        events.append(json.dumps({"model_name": "m", **fields, **tail}).encode())
    EventReader(stream, parse_generate).take(events, 7)
    assert [one.decode() for one in stream.texts] == [text for text, *_ in told]
    assert stream.tokens == [count for *_, count in told]


@pytest.mark.parametrize("last", ["stop", "None"])
def test_the_vllm_backend_s_word_for_no_reason_is_none(last: str) -> None:
    """It writes Python's None as text in every response but the last."""
    stream, read_in_full = TokenStream(), []

    def parse(*event: Any) -> Any:
        read_in_full.append(event)
        return parse_generate(*event)

    reasons = ["None"] * 5 + [last]
    events = [json.dumps({"finish_reason": one, "text_output": "w"}).encode() for one in reasons]
    EventReader(stream, parse).take(events, 7)
    finish_generate(stream)
    stream.settle(0, None)
    assert stream.finish_reason == (None if last == "None" else last)
    assert ("no_finish_reason" in stream.irregular) == (last == "None")
    assert len(read_in_full) == (1 if last == "None" else 2), "the others are recognised"
    assert stream.tokens == [1] * 6


@pytest.mark.parametrize("last", ["stop", "None"])
def test_nor_is_it_over_grpc(last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, read_in_full = TokenStream(), []
    reader = ResponseReader(stream)
    read_message = reader._read
    monkeypatch.setattr(
        reader, "_read", lambda *one: (read_in_full.append(one), read_message(*one))[1]
    )
    for reason in ["None"] * 5 + [last]:
        response = service_pb2.ModelStreamInferResponse()
        for name, value in (("text_output", b"w"), ("finish_reason", reason.encode())):
            response.infer_response.outputs.add(name=name, datatype="BYTES", shape=[1])
            packed = len(value).to_bytes(4, "little") + value
            response.infer_response.raw_output_contents.append(packed)
        message = response.SerializeToString()
        reader.take([b"\0" + len(message).to_bytes(4, "big") + message], 7)
    stream.settle(0, None)
    assert stream.finish_reason == (None if last == "None" else last)
    assert ("no_finish_reason" in stream.irregular) == (last == "None")
    assert len(read_in_full) == (1 if last == "None" else 2), "the others are recognised"
    assert stream.tokens == [1] * 6


@pytest.mark.parametrize(("cached", "told"), [(0, False), (3, False), (8, True), (15, True)])
def test_a_prompt_that_was_in_the_server_s_cache_is_told(cached: int, told: bool) -> None:
    usage = {
        "completion_tokens": 1,
        "prompt_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    ends = json.dumps({"choices": [], "usage": usage}).encode()
    stream = read([chunk("w"), ends])
    assert ("prompt_cached" in stream.irregular) == told
    usage["prompt_tokens_details"] = None  # type: ignore[assignment]
    assert (
        "prompt_cached" not in read([chunk("w"), json.dumps({"usage": usage}).encode()]).irregular
    )


def test_an_event_of_another_form_between_is_read_and_the_order_is_kept() -> None:
    events = [chunk("a"), chunk("b"), chunk(None, delta={"reasoning": "c"}), chunk(""), chunk("d")]
    stream = read(events)
    assert b"".join(stream.texts) == b"abcd"
    assert stream.tokens == [1, 1, 1, 1]


def test_a_running_usage_says_how_many_tokens_each_event_carries() -> None:
    """vLLM's `continuous_usage_stats`; the opening chunk has a usage of no tokens."""
    events = [chunk("", usage=0), chunk("a", usage=2), chunk("b", usage=5), chunk("", usage=6)]
    stream = read(events)
    assert (stream.tokens, stream.told, stream.reported_tokens) == ([2, 3, 1], True, 6)


def test_a_total_that_comes_with_the_last_token_is_not_that_token_s() -> None:
    """TGI sends it so: read as a running usage it would give the last event all the others' too."""
    events = [chunk("a"), chunk("b"), chunk("c", usage=6, finish_reason="stop")]
    stream = read(events)
    assert (stream.tokens, stream.told, stream.reported_tokens) == ([1, 1, 1], False, 6)
    stream.done = True
    finish_openai(stream)
    stream.settle(0, None)
    assert (stream.tokens, stream.irregular) == ([2, 2, 2], {"tokens_estimated"})


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"logprobs": {"content": [{}, {}]}}, 2),
        ({"logprobs": {"tokens": ["a", "b", "c"]}}, 3),
        ({"token_ids": [1, 2]}, 2),
    ],
)
def test_the_server_may_list_the_tokens_of_a_chunk(told: dict[str, Any], expected: int) -> None:
    stream = read([chunk("ab", **told)])
    assert (sum(stream.tokens), stream.told) == (expected, True)


def test_a_running_usage_that_lags_behind_the_text_moves_no_token() -> None:
    """Taken at its word the first token would be none, and the time to it that of the second."""
    stream = read([chunk("a", usage=0), chunk("b", usage=1), chunk("c", usage=2)])
    assert (stream.tokens, stream.texts) == ([1, 1, 1], [b"a", b"b", b"c"])


def test_text_without_a_token_belongs_to_the_one_before_it() -> None:
    events = [chunk("a", token_ids=[1]), chunk("b", token_ids=[]), chunk("c", token_ids=[2])]
    stream = read(events)
    assert (stream.tokens, stream.texts) == ([1, 1], [b"ab", b"c"])
    assert read([chunk("a", token_ids=[])]).tokens == [1], "no text comes before a token"


def test_half_a_character_is_told_in_events_that_are_recognised_too() -> None:
    whole = chunk("XX")
    halves = [whole.replace(b"XX", half) for half in (b"\xe2\x82", b"\xac")]
    stream = read([chunk("a"), *halves])
    stream.finish_reason, stream.reported_tokens = "stop", 3
    stream.settle(0, None)
    assert (stream.answer, stream.irregular) == ("a\u20ac", {"invalid_utf8"})


def test_an_answer_of_the_end_token_alone_is_one() -> None:
    """Over Triton's interfaces it has a token and no text; OpenAI's has a usage alone."""
    stream = read([chunk("", finish_reason="stop"), chunk("", usage=1)])
    stream.settle(0, None)
    assert (stream.times_ns, stream.tokens, stream.irregular) == ([7], [1], set())
    swallowed = read([chunk("", finish_reason="stop"), chunk("", usage=24)])
    with pytest.raises(RequestFailure, match="without a token"):
        swallowed.settle(0, None)


@pytest.mark.parametrize("reason", ["abort", "cancelled", "error"])
def test_an_answer_that_the_server_gave_up_is_a_failure(reason: str) -> None:
    stream = read([chunk("a"), chunk("b", finish_reason=reason), b"[DONE]"])
    with pytest.raises(RequestFailure, match=f"gave the answer up after 2 tokens: {reason}") as had:
        stream.settle(0, None)
    assert had.value.kind == "stream_error"


def test_the_arguments_of_a_call_are_tokens() -> None:
    calls = [{"index": 0, "function": {"name": "f", "arguments": '{"x"'}}]
    stream = read([chunk(None, delta={"tool_calls": calls}), chunk(None, delta={"role": "a"})])
    assert stream.texts == [b'{"x"']


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (b'{"error": {"message": "died"}}', "stream_error"),
        (b'{"error": "died"}', "stream_error"),
        (b'{"object": "error", "message": "died", "code": 400}', "stream_error"),
        (b"{", "malformed"),
        (b"[1]", "malformed"),
        (b'{"choices": [3]}', "malformed"),
        (b'{"choices": {"delta": {"content": "a"}}}', "malformed"),
        (b'{"choices": [{"delta": "a"}]}', "malformed"),
        (b'{"choices": [{"delta": {"content": 5}}]}', "malformed"),
        (b'{"choices": [{"delta": {"content": [{"text": "a"}]}}]}', "malformed"),
        (b'{"choices": [{"delta": {"tool_calls": ["a"]}}]}', "malformed"),
        (b'{"choices": [], "usage": "many"}', "malformed"),
        (b'{"choices": [], "usage": {"completion_tokens": "3"}}', "malformed"),
        (b'{"choices": [], "usage": {"completion_tokens": 1e999}}', "malformed"),
        (b'{"choices": [], "usage": {"completion_tokens": 3, "prompt_tokens": [1]}}', "malformed"),
        (b"plain words", "malformed"),
    ],
)
def test_an_event_that_is_none_fails_the_request(event: bytes, kind: str) -> None:
    with pytest.raises(RequestFailure) as caught:
        read([chunk("a"), event])
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "event", [b'{"text_output": 5}', b'{"text_output": "a", "num_output_tokens": "x"}']
)
def test_an_event_of_generate_stream_that_is_none_fails_the_request(event: bytes) -> None:
    with pytest.raises(RequestFailure) as caught:
        EventReader(TokenStream(), parse_generate).take([event], 7)
    assert caught.value.kind == "malformed"


def test_events_before_one_that_fails_have_come() -> None:
    stream = TokenStream()
    reader = EventReader(stream, parse_openai)
    with pytest.raises(RequestFailure):
        reader.take([chunk("a"), chunk("b"), chunk("c"), b'{"error": "died"}'], 7)
    assert len(stream.times_ns) == len(stream.tokens) == len(stream.texts) == 3


def test_reasoning_under_both_its_names_is_read_once() -> None:
    """As vLLM writes it, which copies `reasoning` to the name that it had before."""
    words = ["Let me ", "think", " once."]
    thought = [
        chunk(None, delta={"role": "assistant", "reasoning": one, "reasoning_content": one})
        for one in words
    ]
    stream = read([*thought, chunk("Two."), chunk("Three.")], at_once=False)
    assert b"".join(stream.texts).decode() == "Let me think once.Two.Three."
    assert (stream.tokens, stream.answer) == ([1] * 5, "Two.Three.")


@pytest.mark.parametrize("datatype", ["INT32", "INT64"])
def test_ids_are_counted_whatever_their_width(datatype: str) -> None:
    stream = TokenStream()
    response = service_pb2.ModelStreamInferResponse()
    for name, kind, raw in (
        ("text_output", "BYTES", b"\2\0\0\0ab"),
        ("token_ids", datatype, np.array([5, 6, 7], datatype.lower()).tobytes()),
    ):
        response.infer_response.outputs.add(name=name, datatype=kind, shape=[1])
        response.infer_response.raw_output_contents.append(raw)
    message = response.SerializeToString()
    ResponseReader(stream).take([b"\0" + len(message).to_bytes(4, "big") + message], 7)
    assert stream.tokens == [3]


@pytest.mark.parametrize(
    ("counted", "gaps_ns"),
    [
        ([1, 1, 1], [1000, 1000]),
        ([0, 2, 1], [1000, 1000]),
        ([0, 0, 1, 1], [3000]),
        ([0, 1], []),
        ([0, 0], []),
    ],
)
def test_a_first_token_that_a_later_event_completes_makes_no_gap_of_its_own(
    counted: list[int], gaps_ns: list[int]
) -> None:
    """A tokenizer joins what came in two events: n tokens have n - 1 gaps all the same."""
    stream = TokenStream()
    for number in range(len(counted)):
        stream.add(1000 * (number + 1), 1, b"x")
    stream.settle(0, lambda _: list(counted))
    spans = stream.spans_ns(0)
    assert (sum(stream.tokens), spans["ttft"], spans["itl"]) == (sum(counted), [1000], gaps_ns)
    if gaps_ns:
        assert spans["tpot"] == [sum(gaps_ns) // len(gaps_ns)]
