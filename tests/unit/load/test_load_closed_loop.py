"""The closed loop: when a request is scheduled, what follows a failure, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.load.engine.closed_loop import BACKOFF_S, ClosedLoop, Ending
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.payloads import EncodedRequest
from harness.load.transports.contract import OutputTensor, RequestFailure, WireAnswer, layout_of
from tests.load_sink import Seen
from tests.virtual_time import VirtualClock

RIGHT = WireAnswer(layout_of((OutputTensor("logits", "FP32", (2, 1), 0, 8),)), bytes(8))
EMPTY = WireAnswer(layout_of((OutputTensor("logits", "FP32", (2, 1), 0, 0),)), b"")


def requests() -> list[EncodedRequest]:
    return [EncodedRequest(bytes([index]), 2, frozenset({4})) for index in range(3)]


ANSWERING_NS, READING_NS = 2_000_000, 1_000_000
"""Until an answer comes, and from then until it is read."""
BACKOFF_NS = round(BACKOFF_S * 1e9)


class Script:
    """A transport that answers as written."""

    def __init__(self, *answers: WireAnswer | RequestFailure) -> None:
        self._answers = list(answers)
        self.sent: list[int] = []
        self.in_flight_ns: list[int] = []
        self.received_ns = 0
        self.identity = b""
        self.loop: ClosedLoop | None = None
        self.ending = Ending()
        self.clock = VirtualClock(at_ns=5)

    def encode(self, model: str, inputs: Mapping[str, Any]) -> bytes:
        return b""

    def connect(self) -> None: ...

    def close(self) -> None: ...

    def send(self, request: bytes) -> WireAnswer:
        self.sent.append(request[0])
        self.identity = b"id-%d" % len(self.sent)
        if self.loop is not None:
            self.in_flight_ns.append(self.loop.scheduled_ns)
        self.clock.at_ns += ANSWERING_NS
        self.received_ns = self.clock.at_ns
        self.clock.at_ns += READING_NS
        answer = self._answers.pop(0)
        if not self._answers:
            self.ending.at_ns = 0
        if isinstance(answer, RequestFailure):
            raise answer
        return answer


def run(script: Script, *, first: int = 0) -> Seen:
    sink = Seen()
    loop = ClosedLoop(script, requests(), AnswerCheck(), sink, first=first, clock=script.clock)
    script.loop = loop
    loop.run(script.ending)
    assert loop.scheduled_ns == 0
    return sink


def test_a_request_ends_when_its_answer_came_and_the_next_is_scheduled_when_it_was_read() -> None:
    script = Script(RIGHT, RIGHT, RIGHT)
    records = run(script).ok
    turn_ns = ANSWERING_NS + READING_NS
    free_ns = [5, 5 + turn_ns, 5 + 2 * turn_ns]
    assert records == [(free, free, free + ANSWERING_NS, 2) for free in free_ns]
    assert script.in_flight_ns == free_ns


def test_it_walks_round_from_its_own_place() -> None:
    script = Script(*[RIGHT] * 5)
    run(script, first=5)
    assert script.sent == [2, 0, 1, 2, 0]


def test_after_a_failure_the_slot_rests_before_it_is_free() -> None:
    refused = RequestFailure("connection", "refused")
    sink = run(Script(refused, RIGHT))
    ((_, _, completed_ns, failure),) = sink.failed
    assert failure is refused
    assert sink.ok[0][0] - completed_ns == BACKOFF_NS


def test_a_wrong_answer_is_a_failure_that_completed_when_it_came() -> None:
    sink = run(Script(EMPTY))
    ((_, sent_ns, completed_ns, failure),) = sink.failed
    assert failure.kind == "empty_output"
    assert completed_ns - sent_ns == ANSWERING_NS
    assert not sink.ok


def test_a_form_that_was_accepted_is_not_checked_again_but_another_is() -> None:
    sink = run(Script(*[RIGHT] * 3, *[RIGHT] * 3, EMPTY))
    assert len(sink.ok) == 6
    assert [failure.kind for *_, failure in sink.failed] == ["empty_output"]


def test_nothing_is_scheduled_from_the_ending_on_and_it_may_be_moved() -> None:
    ending = Ending(10**12)
    sink = Seen()

    class Mover(Script):
        def send(self, request: bytes) -> WireAnswer:
            answer = super().send(request)
            if len(self.sent) == 3:
                ending.at_ns = self.clock.at_ns
            return answer

    script = Mover(*[RIGHT] * 9)
    ClosedLoop(script, requests(), AnswerCheck(), sink, clock=script.clock).run(ending)
    assert len(sink.ok) == 3
    assert all(scheduled_ns < ending.at_ns for scheduled_ns, *_ in sink.ok)


def test_every_request_is_recorded_with_the_id_that_it_bore() -> None:
    script = Script(RIGHT, RequestFailure("timeout", ""), RIGHT)
    sink = run(script)
    assert sink.identities == [b"id-1", b"id-2", b"id-3"]
