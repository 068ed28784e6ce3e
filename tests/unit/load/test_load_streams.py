"""Streams of tokens over every protocol: what came, when, and under which kind what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from http1_server import Peer, ScriptedServer
from stream_client import (
    CHAT,
    COMPLETIONS,
    EVERY,
    GENERATE,
    GRPC,
    OPENAI,
    StreamClient,
    late_ms,
    token_times_ns,
)
from token_server import (
    FakeTokenServer,
    Fault,
    Finish,
    Opening,
    Piece,
    Refusal,
    StreamScript,
    Usage,
    evenly,
)

from harness.load.requests.generation import GenerationRequest
from harness.load.transports.contract import ClientLeft, RequestFailure
from harness.load.transports.streams import http

STEADY = StreamScript(evenly(6, first_s=0.03, gap_s=0.02))
IDS = {"x-request-id", "id"}
STAMPED_NS = 500_000
"""By so much the kernel's receive time may be off on the server's clock."""


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


def client_of(server: FakeTokenServer, name: str, script: StreamScript, **more) -> StreamClient:
    server.begin(script)
    return StreamClient(server, name, **more)


def failure_of(client: StreamClient, request: GenerationRequest | None = None) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        client.ask(request)
    return caught.value


@pytest.mark.parametrize("name", EVERY)
def test_a_stream_is_read_token_by_token(server: FakeTokenServer, name: str) -> None:
    client = client_of(server, name, STEADY)
    for _ in range(2):
        stream = client.ask()
        played = client.played()
        assert b"".join(stream.texts).decode() == played.text == "w0 w1 w2 w3 w4 w5 "
        assert stream.tokens == [1] * 6
        assert (stream.input_tokens, stream.reported_tokens) == (2, 6)
        assert (stream.finish_reason, stream.irregular) == ("stop", set())
        assert client.transport.identity.decode() == played.identity
        assert client.transport.received_ns == stream.times_ns[-1] <= stream.ended_ns
        assert all(late >= 0 for late in late_ms(stream, played)), "no token before it was sent"
    assert server.connections >= 1


@pytest.mark.parametrize("name", EVERY)
def test_one_connection_carries_one_answer_after_another(
    server: FakeTokenServer, name: str
) -> None:
    client = client_of(server, name, StreamScript())
    client.ask()
    connections = server.connections
    client.ask()
    assert server.connections == connections


@pytest.mark.parametrize("name", [GRPC, GENERATE])
def test_events_of_several_tokens_are_counted_as_the_server_says(
    server: FakeTokenServer, name: str
) -> None:
    pieces = (Piece(0.0, "a", 2), Piece(0.02, "b", 3), Piece(0.06, "c", 1))
    stream = client_of(server, name, StreamScript(pieces)).ask()
    assert (stream.tokens, stream.told, stream.irregular) == ([2, 3, 1], True, set())
    first, second, third = stream.times_ns
    spans = stream.spans_ns(first - 5)
    assert spans["ttft"] == [5]
    assert spans["tpot"] == [(third - first) // 5]
    assert len(spans["itl"]) == 4
    assert sum(spans["itl"]) == third - first
    assert max(spans["itl"][:3]) - min(spans["itl"][:3]) <= 1, "a third of the time, each"
    assert spans["itl"][3] == third - second


@pytest.mark.parametrize("name", OPENAI)
def test_where_usage_counts_more_tokens_than_events_they_are_spread_and_that_is_said(
    server: FakeTokenServer, name: str
) -> None:
    script = StreamScript(evenly(5, first_s=0.0, gap_s=0.01, tokens=4))
    stream = client_of(server, name, script).ask()
    assert (stream.tokens, stream.reported_tokens) == ([4] * 5, 20)
    assert stream.irregular == {"tokens_estimated"}


@pytest.mark.parametrize("opening", [Opening.ROLE, Opening.EMPTY, Opening.NO_CHOICES])
@pytest.mark.parametrize("name", OPENAI)
def test_an_opening_chunk_is_no_token(server: FakeTokenServer, name: str, opening: Opening) -> None:
    """Peers took the role-only or empty first chunk for the first token."""
    script = STEADY.but(opening=opening)
    client = client_of(server, name, script)
    stream = client.ask()
    played = client.played()
    assert len(token_times_ns(stream)) == 6
    assert stream.times_ns[0] >= played.sent[0].sent_ns


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_of_tokens(server: FakeTokenServer, field: str) -> None:
    """Peers began to count when the thinking was over."""
    pieces = tuple(Piece(0.01 * n, f"t{n}", reasoning=n < 3) for n in range(5))
    client = client_of(server, CHAT, StreamScript(pieces, reasoning_field=field))
    stream = client.ask()
    assert len(stream.times_ns) == 5
    assert stream.times_ns[0] < client.played().sent[1].sent_ns + 10**9
    assert b"".join(stream.texts) == b"t0t1t2t3t4"


@pytest.mark.parametrize("name", OPENAI)
def test_a_late_chunk_of_usage_does_not_stretch_the_end(server: FakeTokenServer, name: str) -> None:
    """The answer ends with its last token: peers ended it with the usage, here 0.3 s later."""
    client = client_of(server, name, STEADY.but(usage_delay_s=0.3))
    stream = client.ask()
    due_ns = client.played().received_ns + round((STEADY.pieces[-1].at_s + 0.3) * 1e9)
    assert stream.reported_tokens == 6
    assert client.transport.received_ns == stream.times_ns[-1] < due_ns
    held_until_ns = client.transport.received_ns + stream.summary.closing_ns
    assert held_until_ns > due_ns - STAMPED_NS, "the slot is held until then"


@pytest.mark.parametrize("joined", [1, 4])
@pytest.mark.parametrize("name", OPENAI)
def test_the_end_as_transformers_serve_writes_it(
    server: FakeTokenServer, name: str, joined: int
) -> None:
    """The usage comes with the finish reason, in a chunk that has a choice; [DONE] never does."""
    pieces = evenly(4, first_s=0.01, gap_s=0.01)
    script = StreamScript(pieces, opening=Opening.ROLE, joined=joined)
    server.begin(script.but(usage=Usage.WITH_FINISH, done=False))
    stream = StreamClient(server, name).ask()
    assert stream.tokens == [1, 1, 1, 1]
    assert (stream.reported_tokens, stream.finish_reason) == (4, "stop")
    assert stream.summary.irregular == ("no_done",)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", [GENERATE, CHAT, COMPLETIONS])
def test_comments_cut_events_and_line_ends(
    server: FakeTokenServer, name: str, line_end: str
) -> None:
    script = STEADY.but(
        comments_s=(0.0, 0.04), line_end=line_end, packet_bytes=37, packet_gap_s=0.0005
    )
    stream = client_of(server, name, script).ask()
    assert b"".join(stream.texts) == b"w0 w1 w2 w3 w4 w5 "
    assert stream.irregular == set()


@pytest.mark.parametrize("name", EVERY)
def test_several_events_in_one_packet_came_at_one_instant(
    server: FakeTokenServer, name: str
) -> None:
    script = StreamScript(evenly(6, first_s=0.03, gap_s=0.2), joined=3)
    stream = client_of(server, name, script).ask()
    times = stream.times_ns
    assert len(times) == 6
    assert times[0] == times[1] == times[2]
    assert times[3] == times[4] == times[5]
    assert times[3] > times[0]


@pytest.mark.parametrize("name", EVERY)
def test_a_character_that_is_cut_in_two_spoils_nothing(server: FakeTokenServer, name: str) -> None:
    cut = "\u4e2d".encode()
    halves = [half.decode("utf-8", "surrogateescape") for half in (cut[:1], cut[1:])]
    pieces = tuple(Piece(0.01 * n, text) for n, text in enumerate(["a", *halves, "b"]))
    stream = client_of(server, name, StreamScript(pieces)).ask()
    assert sum(stream.tokens) == 4
    assert stream.texts[0] == b"a"
    assert stream.texts[-1] == b"b"


@pytest.mark.parametrize("name", OPENAI)
def test_an_end_without_done_is_told(server: FakeTokenServer, name: str) -> None:
    assert client_of(server, name, STEADY.but(done=False)).ask().irregular == {"no_done"}


@pytest.mark.parametrize("name", OPENAI)
def test_an_end_without_usage_is_told(server: FakeTokenServer, name: str) -> None:
    stream = client_of(server, name, STEADY.but(usage=Usage.NEVER)).ask()
    assert (stream.irregular, stream.reported_tokens) == ({"no_usage"}, None)
    assert stream.summary.output_tokens == 6


@pytest.mark.parametrize("name", EVERY)
def test_an_end_without_a_finish_reason_is_told(server: FakeTokenServer, name: str) -> None:
    stream = client_of(server, name, STEADY.but(finish=Finish.NEVER)).ask()
    assert stream.irregular == {"no_finish_reason"}


@pytest.mark.parametrize("name", EVERY)
def test_a_finish_reason_with_the_last_token_is_one_too(server: FakeTokenServer, name: str) -> None:
    stream = client_of(server, name, STEADY.but(finish=Finish.WITH_LAST)).ask()
    assert (len(stream.times_ns), stream.finish_reason, stream.irregular) == (6, "stop", set())


@pytest.mark.parametrize("name", OPENAI)
def test_a_usage_that_differs_is_told(server: FakeTokenServer, name: str) -> None:
    stream = client_of(server, name, STEADY.but(told_tokens=4)).ask()
    assert stream.irregular == {"usage_differs"}
    assert (sum(stream.tokens), stream.reported_tokens) == (6, 4)


@pytest.mark.parametrize("name", OPENAI)
def test_the_end_token_in_the_usage_is_no_difference(server: FakeTokenServer, name: str) -> None:
    stream = client_of(server, name, STEADY.but(told_tokens=7)).ask()
    assert (stream.irregular, sum(stream.tokens)) == (set(), 6)


@pytest.mark.parametrize("name", EVERY)
def test_a_server_that_ignores_max_tokens_is_found_out(server: FakeTokenServer, name: str) -> None:
    client = client_of(server, name, STEADY.but(ignores_max_tokens=True))
    stream = client.ask(GenerationRequest("p", 3))
    assert (sum(stream.tokens), stream.irregular) == (6, {"max_tokens_ignored"})
    assert client.ask(GenerationRequest("p", 6)).irregular == set()


@pytest.mark.parametrize("name", EVERY)
def test_max_tokens_is_asked_for(server: FakeTokenServer, name: str) -> None:
    stream = client_of(server, name, STEADY).ask(GenerationRequest("p", 3))
    assert (sum(stream.tokens), stream.finish_reason, stream.irregular) == (3, "length", set())


@pytest.mark.parametrize("name", OPENAI)
def test_a_server_that_ignores_stream_has_not_streamed(server: FakeTokenServer, name: str) -> None:
    """Its one answer would make a time to first token that is the whole response."""
    failure = failure_of(client_of(server, name, STEADY.but(ignores_stream=True)))
    assert failure.kind == "not_streamed"
    assert "application/json" in str(failure)


@pytest.mark.parametrize("name", EVERY)
def test_an_error_in_the_middle_is_a_failure_under_whatever_status(
    server: FakeTokenServer, name: str
) -> None:
    client = client_of(server, name, STEADY.but(fault=Fault.ERROR, fault_after=2))
    failure = failure_of(client)
    assert failure.kind == "stream_error"
    assert "the engine died" in str(failure)
    assert client.transport.identity.decode() == client.played().identity != ""
    assert len(client.transport.stream.times_ns) == 2


@pytest.mark.parametrize("name", OPENAI)
@pytest.mark.parametrize("status", [429, 503])
def test_refusals_have_their_own_kinds_and_say_when_to_come_again(
    server: FakeTokenServer, name: str, status: int
) -> None:
    script = StreamScript(refusal=Refusal(status, "too many requests", retry_after_s=7))
    failure = failure_of(client_of(server, name, script))
    assert failure.kind == f"http_{status}"
    assert "too many requests" in str(failure)
    assert "Retry-After: 7" in str(failure)


def test_a_refusal_over_grpc_is_a_stream_error_or_a_status(server: FakeTokenServer) -> None:
    told = failure_of(client_of(server, GRPC, StreamScript(refusal=Refusal(429, "queue is full"))))
    assert (told.kind, "queue is full" in str(told)) == ("stream_error", True)
    ended = StreamScript(refusal=Refusal(503, "no room", grpc_status=8))
    assert failure_of(client_of(server, GRPC, ended)).kind == "grpc_RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("name", OPENAI)
def test_a_stream_that_ends_in_good_order_and_says_nothing_is_unfinished(
    server: FakeTokenServer, name: str
) -> None:
    script = STEADY.but(fault=Fault.ENDED, fault_after=3)
    assert failure_of(client_of(server, name, script)).kind == "unfinished"


@pytest.mark.parametrize("name", EVERY)
def test_a_broken_connection_is_one_and_the_next_request_has_another(
    server: FakeTokenServer, name: str
) -> None:
    server.begin(STEADY.but(fault=Fault.RESET, fault_after=2), StreamScript())
    client = StreamClient(server, name)
    failure = failure_of(client)
    assert failure.kind == "connection"
    assert len(client.transport.stream.times_ns) == 2
    assert sum(client.ask().tokens) == 4


@pytest.mark.parametrize("name", EVERY)
def test_an_answer_that_stalls_is_given_up_after_its_bound(
    server: FakeTokenServer, name: str
) -> None:
    """Keep-alives do not lengthen it: the bound is on the gap between tokens."""
    script = STEADY.but(fault=Fault.STALLED, fault_after=2, comments_s=(0.2, 0.4, 0.6))
    client = client_of(server, name, script, timeout_s=0.5)
    failure = failure_of(client)
    assert failure.kind == "stalled"
    assert "no token for 0.5 s after 2 had come" in str(failure)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("tokens", "kind"), [(1, "stalled"), (0, "timeout")])
def test_events_without_a_token_lengthen_no_wait(
    server: FakeTokenServer, name: str, tokens: int, kind: str
) -> None:
    silent = tuple(Piece(0.2 * n, "", 0) for n in range(1, 100))
    script = StreamScript((Piece(0.0, "a" * tokens, tokens), *silent))
    client = client_of(server, name, script, timeout_s=0.5)
    assert failure_of(client).kind == kind


@pytest.mark.parametrize("name", EVERY)
def test_an_answer_that_its_server_gave_up_is_no_success(
    server: FakeTokenServer, name: str
) -> None:
    failure = failure_of(client_of(server, name, STEADY.but(finish_reason="cancelled")))
    assert (failure.kind, "gave the answer up after 6 tokens" in str(failure)) == (
        "stream_error",
        True,
    )


@pytest.mark.parametrize("name", EVERY)
def test_an_answer_without_a_first_token_is_a_timeout(server: FakeTokenServer, name: str) -> None:
    script = STEADY.but(fault=Fault.STALLED, fault_after=0)
    failure = failure_of(client_of(server, name, script, timeout_s=0.3))
    assert failure.kind == "timeout"


@pytest.mark.parametrize("name", EVERY)
def test_an_answer_without_any_token_is_empty(server: FakeTokenServer, name: str) -> None:
    failure = failure_of(client_of(server, name, StreamScript(pieces=())))
    assert failure.kind == "empty_answer"


@pytest.mark.parametrize("name", EVERY)
def test_a_client_that_goes_away_is_seen_by_the_server_and_is_no_failure(
    server: FakeTokenServer, name: str
) -> None:
    script = StreamScript(evenly(40, first_s=0.0, gap_s=0.05))
    client = client_of(server, name, script)
    failure = failure_of(client, GenerationRequest("p", 64, leave_after=3))
    assert isinstance(failure, ClientLeft)
    assert (failure.kind, failure.pauses) == ("left", False)
    stream = client.transport.stream
    first = [one for one, at_ns in zip(stream.tokens, stream.times_ns, strict=True)
             if at_ns < stream.times_ns[-1]]  # fmt: skip
    assert sum(first) < 3 <= sum(stream.tokens), "it leaves with what brings the third"
    server.begin(StreamScript())
    assert sum(client.ask().tokens) == 4, "and the next request goes on"


def test_nobody_there_is_a_connection_that_failed() -> None:
    with FakeTokenServer() as server:
        clients = [StreamClient(server, name) for name in EVERY]
    for client in clients:
        assert failure_of(client).kind == "connection"


LLAMA_CPP = (
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant",'
    b'"content":null}}]}\n\n'
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Paris"}}]}\n\n'
    b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}\n\n'
    b'data: {"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":37,"total_tokens":39},'
    b'"timings":{"predicted_n":2,"predicted_ms":90.6}}\n\ndata: [DONE]\n\n'
)
"""A chat as llama.cpp's server streams it; its usage counts the end token."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"


def chat_client(server: ScriptedServer) -> StreamClient:
    return StreamClient(SimpleNamespace(http=server.address), CHAT)


def test_a_kept_connection_that_ends_without_a_byte_is_no_answer() -> None:
    """llama.cpp hangs up after some answers without a word: the request goes to a new one."""
    answer = HEAD % len(LLAMA_CPP) + LLAMA_CPP

    def hangs_up(peer: Peer) -> None:
        peer.answer(answer)
        peer.request()

    with ScriptedServer(hangs_up, lambda peer: peer.answer(answer)) as server:
        client = chat_client(server)
        for again in (set(), {"asked_again"}):
            stream = client.ask()
            assert (stream.tokens, stream.input_tokens, stream.reported_tokens) == ([1], 37, 2)
            assert stream.irregular == again
        assert (server.connections, len(server.requests)) == (2, 3)


def test_a_kept_connection_that_ends_after_a_wait_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was waited for is the server's failure, and no second request hides it."""
    monkeypatch.setattr(http, "HUNG_UP_WITHIN_S", 0.0)
    answer = HEAD % len(LLAMA_CPP) + LLAMA_CPP

    def hangs_up(peer: Peer) -> None:
        peer.answer(answer)
        peer.request()

    with ScriptedServer(hangs_up, lambda peer: peer.answer(answer)) as server:
        client = chat_client(server)
        client.ask()
        assert failure_of(client).kind == "connection"
        assert (server.connections, len(server.requests)) == (1, 2)


def test_a_new_connection_that_ends_without_a_byte_is_a_failure() -> None:
    with ScriptedServer(Peer.request) as server:
        assert failure_of(chat_client(server)).kind == "connection"
        assert server.connections == 1
