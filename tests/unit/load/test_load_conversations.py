"""Conversations: each turn is asked behind the server's own answer, its think time after it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_client import CHAT, COMPLETIONS, EVERY, GENERATE, GRPC, generation_of
from token_server import FakeTokenServer, Opening, Piece, StreamScript

from harness import hdr
from harness.errors import DataError
from harness.load.engine.clock import Clock
from harness.load.engine.closed_loop import BACKOFF_S, FOREVER_NS, ClosedLoop, Ending
from harness.load.engine.open_loop import OpenLoop, requests_in_turn
from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import merged_latencies
from harness.load.engine.streams import StreamSink
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.generation import (
    GenerationRequest,
    Turn,
    encode_requests,
    read_requests,
    write_requests,
)
from harness.load.requests.lengths import parse_lengths
from harness.load.requests.payloads import EncodedRequest
from harness.load.requests.prompts import PromptShape, Talk, made_up, read_prompts
from harness.load.transports.address import parse_target
from harness.load.transports.contract import RequestFailure, WireAnswer
from harness.load.transports.opening import stream_opener
from harness.load.transports.streams.http import STREAMED
from harness.load.transports.streams.tokens import NOTHING_CAME, TokenStream
from harness.types import Generation, StreamApi, TimeSlice, WireProtocol
from tests.virtual_time import VirtualClock, VirtualTimer

MS = 1_000_000
SERVICE_MS = 500
TALK = GenerationRequest("first", 8, turns=(Turn("second", 8, 2.0), Turn("third", 8, 2.0)))


class Model:
    """Answers each request after half a second, with the number of it; some it refuses."""

    def __init__(self, clock: Clock, refuses: Callable[[int], bool] = lambda _: False) -> None:
        self.clock = clock
        self.refuses = refuses
        self.sent_ms: list[float] = []
        self.asked: list[list[str]] = []
        self.lock = threading.Lock()

    def open(self) -> Transport:
        return Transport(self)


class Transport:
    """A `StreamTransport` to it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.received_ns = 0
        self.identity = b""
        self.stream = NOTHING_CAME

    def connect(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing stays open."""

    def send(self, request: bytes) -> WireAnswer:
        model = self._model
        with model.lock:
            number = len(model.sent_ms)
            model.sent_ms.append(model.clock.now_ns() / MS)
            messages = json.loads(request.partition(b"\r\n\r\n")[2])["messages"]
            model.asked.append([one["content"] for one in messages])
        if model.refuses(number):
            raise RequestFailure("http_500", "no")
        stream = self.stream = TokenStream(3)
        stream.add(model.clock.now_ns() + SERVICE_MS * MS, 1, b"answer %d" % number)
        model.clock.let_come(stream.times_ns[-1])
        self.received_ns = stream.times_ns[-1]
        return STREAMED


def encoded(*pool: GenerationRequest) -> list[EncodedRequest]:
    target = parse_target("127.0.0.1:1")
    return encode_requests(pool, Generation(StreamApi.CHAT), WireProtocol.HTTP, target, "m")


def closed(model: Model, clock: VirtualClock, *, until_ms: int) -> list[TimeSlice]:
    recorder, transport = Recorder(0, 50 * MS), model.open()
    sink = StreamSink(recorder, transport)
    loop = ClosedLoop(transport, encoded(TALK), AnswerCheck(), sink, clock=clock)
    loop.run(Ending(until_ms * MS))
    return recorder.take()


def test_a_slot_thinks_before_each_turn_and_that_is_nobody_s_latency() -> None:
    clock = VirtualClock()
    model = Model(clock)
    slices = closed(model, clock, until_ms=6000)
    assert model.sent_ms == [0, 2500, 5000, 5500]
    for span in ("response", "ttft"):
        found = merged_latencies(one.ok for one in slices).of(span)
        assert hdr.total(found) == 4
        assert hdr.value_at(found, 1.0) == pytest.approx(SERVICE_MS, rel=1e-3)
    assert model.asked == [
        ["first"],
        ["first", "answer 0", "second"],
        ["first", "answer 0", "second", "answer 1", "third"],
        ["first"],
    ]


def test_a_load_ends_in_the_middle_of_a_conversation() -> None:
    clock = VirtualClock()
    model = Model(clock)
    closed(model, clock, until_ms=3000)
    assert model.sent_ms == [0, 2500]


def test_a_turn_that_fails_is_its_conversation_s_last() -> None:
    clock = VirtualClock()
    model = Model(clock, lambda number: number == 1)
    closed(model, clock, until_ms=5000)
    assert model.sent_ms == [0, 2500, 2500 + 1000 * BACKOFF_S]
    assert model.asked[2] == ["first"]


def test_in_an_open_loop_conversations_arrive_and_their_turns_follow_the_answers() -> None:
    timer = VirtualTimer()
    model, recorder = Model(timer.clock), Recorder(0, 50 * MS)
    loop = OpenLoop(
        [np.array([0, 100, 6000], dtype=np.int64) * MS],
        requests_in_turn(encoded(TALK)),
        AnswerCheck(),
        recorder,
        open_transport=model.open,
        most_in_flight=8,
        timer=timer,
    )
    loop.sink_of = lambda transport: StreamSink(recorder, transport)
    timer.loop = loop
    running = threading.Thread(target=lambda: loop.run(0, Ending(6200 * MS)))
    running.start()
    while running.is_alive():
        running.join(0.01)
        waiting = timer.clock.waiting
        if loop.next_ns == FOREVER_NS and waiting:
            first = min(waiting, key=lambda one: one[0])
            waiting.remove(first)
            timer.clock.at_ns = max(timer.clock.at_ns, first[0])
            first[1].set()
    assert sorted(model.sent_ms) == [0, 100, 2500, 2600, 5000, 5100, 6000]
    slices = recorder.take()
    assert sum(one.dropped for one in slices) == 0
    found = merged_latencies(one.ok for one in slices).of("response")
    assert hdr.total(found) == 7
    assert hdr.value_at(found, 1.0) == pytest.approx(SERVICE_MS, rel=1e-3)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


@pytest.mark.parametrize("name", EVERY)
def test_the_next_turn_has_the_server_s_own_answer_and_not_its_reasoning(
    server: FakeTokenServer, name: str
) -> None:
    thought = [Piece(0, "hm ", reasoning=True), Piece(0, "so ", reasoning=True)]
    said = [Piece(0, "an "), Piece(0, "answer "), Piece(0, "of "), Piece(0, "mine")]
    script = StreamScript([*(thought if name == CHAT else []), *said], opening=Opening.ROLE)
    server.begin(script)
    protocol = WireProtocol.GRPC if name == GRPC else WireProtocol.HTTP
    target = parse_target(server.grpc if name == GRPC else server.http)
    generation = generation_of(name)
    (request,) = encode_requests([TALK], generation, protocol, target, "m")
    transport: Any = stream_opener(generation, protocol, target, timeout_s=60.0)()
    transport.send(request.body)
    for _ in TALK.turns:
        assert request.follow is not None
        request, think_s = request.follow(transport)
        assert think_s == 2.0
        transport.send(request.body)
    transport.close()
    assert request.follow is None
    asked = server.played[-1].asked
    whole = "firstan answer of minesecondan answer of minethird"
    if name == CHAT:
        assert [(one["role"], one["content"]) for one in asked["messages"]] == [
            ("user", "first"),
            ("assistant", "an answer of mine"),
            ("user", "second"),
            ("assistant", "an answer of mine"),
            ("user", "third"),
        ]
    else:
        assert asked["prompt" if name == COMPLETIONS else "text_input"] == whole
    assert name in {CHAT, COMPLETIONS, GENERATE, GRPC}


def test_made_up_conversations_are_the_same_for_one_seed_and_begin_as_single_prompts_do() -> None:
    single = PromptShape(parse_lengths("5"), parse_lengths("7"))
    talk = Talk(parse_lengths("3"), parse_lengths("2"), parse_lengths("7"), parse_lengths("250"))
    talks = made_up(PromptShape(single.prompt, single.answer, talk=talk), 3, None)
    assert talks == made_up(PromptShape(single.prompt, single.answer, talk=talk), 3, None)
    assert [one.prompt for one in talks] == [one.prompt for one in made_up(single, 3, None)]
    assert {len(one.turns) for one in talks} == {2}
    turns = [turn for one in talks for turn in one.turns]
    assert {len(turn.prompt.split()) for turn in turns} == {2}
    assert {(turn.max_tokens, turn.think_s) for turn in turns} == {(7, 0.25)}


def test_a_pool_of_conversations_is_read_back(tmp_path: Path) -> None:
    write_requests(tmp_path / "pool.jsonl", [TALK])
    assert read_requests(tmp_path / "pool.jsonl") == [TALK]


def test_a_data_set_may_say_the_turns(tmp_path: Path) -> None:
    row = {"prompt": "a", "max_tokens": 3, "turns": ["b", {"prompt": "c", "think_s": 1}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (found,) = read_prompts(tmp_path / "rows.jsonl", parse_lengths("9"), 0, None)
    assert found.turns == (Turn("b", 3), Turn("c", 3, 1.0))


@pytest.mark.parametrize("turn", [{}, 3, {"prompt": " "}, {"prompt": "b", "think_s": -1}])
def test_a_turn_that_is_none_is_told_with_its_line(tmp_path: Path, turn: object) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "turns": [turn]}))
    with pytest.raises(DataError, match=r"line 1: a turn"):
        read_prompts(tmp_path / "rows.jsonl", parse_lengths("9"), 0, None)
