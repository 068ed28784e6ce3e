"""The tests' server of tokens, by clients that nobody here wrote: what it sends, and when."""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from token_server import (
    FakeTokenServer,
    Fault,
    Finish,
    Opening,
    Piece,
    Played,
    Protocol,
    Refusal,
    StreamScript,
    Usage,
    evenly,
)
from tritonclient.utils import InferenceServerException

PATIENCE_S = 60.0
CHAT = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "one two"}]}
WORDS = ["w0 ", "w1 ", "w2 ", "w3 "]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as running:
        yield running


def post(server: FakeTokenServer, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE_S)
    connection.request("POST", path, json.dumps(body), {"x-request-id": "mine"})
    return connection.getresponse()


def events(server: FakeTokenServer, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of each event, parsed where it is JSON."""
    raw = post(server, path, body).read().decode("utf-8", "surrogateescape")
    lines = [one.removeprefix("data: ") for one in raw.splitlines() if one]
    return [json.loads(one) if one.startswith("{") else one for one in lines]


def chat(server: FakeTokenServer, **changes: Any) -> list[Any]:
    return events(server, "/v1/chat/completions", CHAT | changes)


def only(server: FakeTokenServer) -> Played:
    """The one request, once it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (played,) = server.played
        if played.ended_ns or played.gone_ns:
            return played
        assert time.monotonic() < deadline
        time.sleep(0.01)


def deltas(chunks: list[Any]) -> list[dict[str, Any]]:
    return [one["choices"][0]["delta"] for one in chunks if one != "[DONE]" and one["choices"]]


def ask(server: FakeTokenServer, *, final: bool = True, **inputs: Any) -> list[Any]:
    """The responses and errors of one gRPC stream with one request."""
    taken: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: taken.put(error or result.get_response()))
        tensors = []
        for name, value in {"text_input": b"one two", **inputs}.items():
            array = np.array([value], dtype=object if isinstance(value, bytes) else None)
            kind = "BYTES" if isinstance(value, bytes) else "BOOL"
            tensors.append(triton.InferInput(name, [1], kind).set_data_from_numpy(array))
        client.async_stream_infer(
            "m", tensors, request_id="mine", enable_empty_final_response=final
        )
        client.stop_stream()
    return list(taken.queue)


def test_a_stream_is_sent_as_it_is_written_down_and_never_early(server):
    server.begin(StreamScript(evenly(4, first_s=0.05, gap_s=0.02, tokens=2)))
    before_ns = time.monotonic_ns()
    chunks = chat(server)
    after_ns = time.monotonic_ns()
    played = only(server)
    assert [one["content"] for one in deltas(chunks) if one] == WORDS
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1] == "[DONE]"
    due = [played.received_ns + ms * 1_000_000 for ms in (50, 50, 70, 70, 90, 90, 110, 110)]
    late = [sent - due for sent, due in zip(played.token_ns, due, strict=True)]
    assert min(late) >= 0
    assert max(late) <= played.late_s * 1e9 + 1e9 / 1000 * 50  # its own note of it
    assert before_ns < played.received_ns <= played.token_ns[0]
    assert played.token_ns[-1] <= played.ended_ns
    assert played.token_ns[-1] < after_ns
    assert (played.protocol, played.prompt, played.identity) == (Protocol.CHAT, "one two", "mine")


def test_each_event_is_sent_by_itself_at_the_instant_that_is_noted(server):
    """The next one is due so much later that a client has long read the one before."""
    server.begin(StreamScript(evenly(3, first_s=0.0, gap_s=1.0)))
    answer, read_ns = post(server, "/v1/chat/completions", CHAT), []
    while line := answer.readline():
        if b'"content"' in line:
            read_ns.append(time.monotonic_ns())
    sent_ns = only(server).token_ns
    assert len(read_ns) == len(sent_ns) == 3
    assert all(sent < read for sent, read in zip(sent_ns, read_ns, strict=True))
    assert all(read < later for read, later in zip(read_ns, sent_ns[1:], strict=False))


@pytest.mark.parametrize(
    ("opening", "first"),
    [
        (Opening.ROLE, [{"role": "assistant", "content": ""}]),
        (Opening.EMPTY, [{"content": ""}]),
        (Opening.NO_CHOICES, []),
    ],
)
def test_an_opening_carries_no_token(server, opening, first):
    server.begin(StreamScript(opening=opening))
    chunks = chat(server)
    assert [one["delta"] for one in chunks[0]["choices"]] == first
    assert len(only(server).token_ns) == 4


def test_reasoning_comes_under_the_name_that_the_script_says(server):
    pieces = [Piece(0, "hm", reasoning=True), Piece(0, "so")]
    server.begin(StreamScript(pieces, reasoning_field="reasoning"))
    assert deltas(chat(server))[:2] == [{"reasoning": "hm"}, {"content": "so"}]


def test_usage_comes_in_a_last_chunk_of_its_own_to_whom_asks(server):
    server.begin(StreamScript(), StreamScript(), StreamScript(usage=Usage.ALWAYS, told_tokens=9))
    asked = chat(server, stream_options={"include_usage": True})
    assert asked[-2]["choices"] == []
    assert asked[-2]["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert not any("usage" in one for one in chat(server))
    assert chat(server)[-2]["usage"]["completion_tokens"] == 9


def test_what_a_script_leaves_out_is_not_sent(server):
    server.begin(StreamScript(finish=Finish.NEVER, done=False, usage=Usage.NEVER))
    chunks = chat(server, stream_options={"include_usage": True})
    assert [one["choices"][0]["finish_reason"] for one in chunks] == [None] * 4


def test_the_finish_reason_may_come_with_the_last_token(server):
    server.begin(StreamScript(finish=Finish.WITH_LAST))
    chunks = chat(server)
    assert [one["choices"][0]["finish_reason"] for one in chunks[:-1]] == [None] * 3 + ["stop"]


def test_a_limit_is_kept_unless_the_script_ignores_it(server):
    server.begin(StreamScript(), StreamScript(), StreamScript(ignores_max_tokens=True))
    for name in ("max_tokens", "max_completion_tokens"):
        chunks = chat(server, **{name: 2})
        assert [one["content"] for one in deltas(chunks) if one] == WORDS[:2]
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert len(deltas(chat(server, max_tokens=2))) == 5


def test_completions_have_texts_and_no_deltas(server):
    server.begin(StreamScript())
    chunks = events(server, "/v1/completions", {"prompt": "a b c", "stream": True})
    assert [one["choices"][0]["text"] for one in chunks[:-1]] == [*WORDS, ""]
    assert only(server).prompt == "a b c"


def test_an_answer_in_one_has_all_of_it(server):
    server.begin(StreamScript(), StreamScript(ignores_stream=True))
    for streams in (False, True):
        body = json.loads(post(server, "/v1/chat/completions", CHAT | {"stream": streams}).read())
        assert body["choices"][0]["message"]["content"] == "w0 w1 w2 w3 "
        assert body["usage"]["completion_tokens"] == 4


def raw_answer(server: FakeTokenServer) -> list[bytes]:
    """All that the server sends, as the packets in which it came."""
    host, port = server.http.split(":")
    body = json.dumps(CHAT).encode()
    with socket.create_connection((host, int(port)), PATIENCE_S) as connected:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connected.sendall(head.encode() + body)
        packets = []
        while not b"".join(packets).endswith(b"\r\n0\r\n\r\n"):
            packets.append(connected.recv(65536))
    return packets


def test_events_may_be_cut_and_joined(server):
    server.begin(
        StreamScript(packet_bytes=40, packet_gap_s=0.02),
        StreamScript(evenly(4, first_s=0, gap_s=0.05), joined=2),
    )
    cut = raw_answer(server)
    assert not all(packet.endswith(b"\r\n") for packet in cut)
    raw_answer(server)
    first, second = server.played[0].token_ns, server.played[1].token_ns
    assert all(later > sooner for sooner, later in itertools.pairwise(first))
    assert second[0] == second[1] < second[2] == second[3]


def test_comments_and_other_line_ends(server):
    server.begin(StreamScript(comments_s=[0.0], line_end="\r\n"))
    raw = post(server, "/v1/chat/completions", CHAT).read()
    assert raw.startswith(b": keep-alive\r\n\r\ndata: {")
    assert raw.endswith(b"data: [DONE]\r\n\r\n")


def test_a_character_may_be_cut_in_two(server):
    first, second = (bytes([one]).decode("utf-8", "surrogateescape") for one in "é".encode())
    server.begin(StreamScript([Piece(0, first), Piece(0, second)]))
    raw = post(server, "/v1/chat/completions", CHAT).read()
    assert b'"content": "\xc3"' in raw
    assert b'"content": "\xa9"' in raw


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/m/generate_stream"])
def test_a_refusal_over_http(server, path):
    server.begin(StreamScript(refusal=Refusal(429, "full", retry_after_s=3)))
    answer = post(server, path, CHAT)
    assert (answer.status, answer.getheader("Retry-After")) == (429, "3")
    assert b"full" in answer.read()


def test_an_error_may_come_under_the_status_200(server):
    server.begin(StreamScript(fault=Fault.ERROR, fault_after=2))
    chunks = chat(server)
    assert len(chunks) == 3
    assert chunks[2]["error"]["message"] == "the engine died"
    assert events(server, "/v2/models/m/generate_stream", {"text_input": "a"})[-1] == {
        "error": "the engine died"
    }


def test_a_stream_may_end_or_break_off(server):
    server.begin(
        StreamScript(fault=Fault.ENDED, fault_after=2),
        StreamScript(fault=Fault.RESET, fault_after=2),
    )
    assert len(chat(server)) == 2
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        chat(server)


def test_a_stall_lasts_until_the_client_goes_and_keep_alives_go_on(server):
    server.begin(StreamScript(fault=Fault.STALLED, fault_after=1, comments_s=[0.2]))
    answer = post(server, "/v1/chat/completions", CHAT)
    lines = [answer.readline() for _ in range(4)]
    assert b"w0" in lines[0]
    assert lines[2] == b": keep-alive\n"
    answer.close()
    played = only(server)
    assert played.gone_ns
    assert not played.ended_ns
    assert len(played.sent) == 1


def test_tritons_generate_stream_and_generate(server):
    server.begin(StreamScript())
    asked = {
        "text_input": "a b",
        "sampling_parameters": '{"max_tokens": 2}',
        "return_finish_reason": True,
        "return_num_output_tokens": True,
    }
    model = {"model_name": "m", "model_version": "1"}
    assert events(server, "/v2/models/m/generate_stream", asked) == [
        {**model, "text_output": "w0 ", "finish_reason": "", "num_output_tokens": 1},
        {**model, "text_output": "w1 ", "finish_reason": "length", "num_output_tokens": 1},
    ]
    answer = json.loads(post(server, "/v2/models/m/generate", {"text_input": "a b"}).read())
    assert answer == {**model, "text_output": "w0 w1 w2 w3 "}


def output(response: Any, name: str) -> bytes:
    names = [one.name for one in response.outputs]
    raw: bytes = response.raw_output_contents[names.index(name)]
    return raw


def test_a_grpc_stream_is_read_by_tritons_client(server):
    server.begin(StreamScript(evenly(3, first_s=0.05, gap_s=0.02)))
    responses = ask(server, return_finish_reason=True, return_num_output_tokens=True)
    assert [output(one, "text_output")[4:] for one in responses[:3]] == [b"w0 ", b"w1 ", b"w2 "]
    assert [output(one, "finish_reason")[4:] for one in responses[:3]] == [b"", b"", b"stop"]
    assert {output(one, "num_output_tokens") for one in responses[:3]} == {b"\1\0\0\0"}
    finals = [one.parameters["triton_final_response"].bool_param for one in responses]
    assert finals == [False, False, False, True]
    assert not responses[3].outputs
    assert {one.id for one in responses} == {"mine"}
    played = only(server)
    assert (played.protocol, played.prompt, played.identity) == (Protocol.GRPC, "one two", "mine")
    due = [played.received_ns + ms * 1_000_000 for ms in (50, 70, 90)]
    assert all(sent >= due for sent, due in zip(played.token_ns, due, strict=True))


def test_a_grpc_streams_end_may_be_marked_with_the_last_token_or_not_at_all(server):
    server.begin(StreamScript(final_apart=False), StreamScript())
    finals = [one.parameters["triton_final_response"].bool_param for one in ask(server)]
    assert finals == [False, False, False, True]
    assert len(ask(server, final=False)) == 4


def test_a_grpc_limit(server):
    server.begin(StreamScript())
    responses = ask(server, sampling_parameters=b'{"max_tokens": 1}', return_finish_reason=True)
    assert output(responses[0], "finish_reason")[4:] == b"length"
    assert len(responses) == 2


def test_grpc_errors_are_told_in_a_response_or_end_the_stream(server):
    server.begin(
        StreamScript(refusal=Refusal(503, "full")),
        StreamScript(refusal=Refusal(503, "gone", grpc_status=14)),
        StreamScript(fault=Fault.ERROR, fault_after=1),
    )
    (full,), (gone,), (first, died) = ask(server), ask(server), ask(server)
    assert isinstance(full, InferenceServerException)
    assert (full.status(), full.message()) == (None, "full")
    assert (gone.status(), gone.message()) == ("StatusCode.UNAVAILABLE", "gone")
    assert output(first, "text_output")[4:] == b"w0 "
    assert died.message() == "the engine died"


def test_a_grpc_client_that_goes_away_is_noted(server):
    server.begin(StreamScript(evenly(2, first_s=0, gap_s=600)))
    arrived: queue.Queue[Any] = queue.Queue()
    client = triton.InferenceServerClient(server.grpc)
    client.start_stream(lambda result, error: arrived.put(result))
    text = triton.InferInput("text_input", [1], "BYTES")
    client.async_stream_infer("m", [text.set_data_from_numpy(np.array([b"a"], dtype=object))])
    arrived.get(timeout=PATIENCE_S)
    client.stop_stream(cancel_requests=True)
    client.close()
    played = only(server)
    assert played.gone_ns
    assert len(played.sent) == 1


def test_messages_of_grpc_may_be_cut(server):
    server.begin(StreamScript(packet_bytes=10))
    assert [output(one, "text_output")[4:] for one in ask(server)[:4]] == [
        word.encode() for word in WORDS
    ]


def test_the_model_is_described_on_both_sides(server):
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_ready()
        assert client.get_model_config("m").config.model_transaction_policy.decoupled
        assert client.get_model_metadata("m").inputs[0].name == "text_input"
        with pytest.raises(InferenceServerException, match="no such method"):
            client.get_trace_settings()
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE_S)
    connection.request("GET", "/v1/models")
    assert json.loads(connection.getresponse().read())["data"][0]["id"] == "m"
