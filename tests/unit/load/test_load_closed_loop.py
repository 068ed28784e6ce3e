"""The closed loop: when a request is scheduled, and what follows a failure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness.load.answers import AnswerCheck
from harness.load.closed_loop import BACKOFF_S, ClosedLoop
from harness.load.payloads import EncodedRequest
from harness.load.transports.contract import OutputTensor, RequestFailure

REQUESTS = [EncodedRequest(bytes([index]), 1, frozenset({4})) for index in range(3)]
RIGHT = [OutputTensor("logits", "FP32", (1, 1), bytes(4))]
EMPTY = [OutputTensor("logits", "FP32", (1, 1), b"")]


class Script:
    """A transport that answers as written."""

    def __init__(self, *answers: Sequence[OutputTensor] | RequestFailure) -> None:
        self._answers = list(answers)
        self.sent: list[int] = []

    def encode(self, model: str, inputs: Mapping[str, Any]) -> bytes:
        return b""

    def connect(self) -> None: ...

    def close(self) -> None: ...

    def send(self, request: bytes) -> Sequence[OutputTensor]:
        self.sent.append(request[0])
        time.sleep(0.002)
        answer = self._answers.pop(0)
        if isinstance(answer, RequestFailure):
            raise answer
        return answer


def test_the_next_request_is_scheduled_when_the_slot_frees() -> None:
    loop = ClosedLoop(Script(RIGHT, RIGHT, RIGHT), REQUESTS, AnswerCheck())
    records = [loop.step().record for _ in range(3)]
    for before, after in pairwise(records):
        assert after.scheduled_ns == before.completed_ns
    for record in records:
        assert record.scheduled_ns <= record.sent_ns < record.completed_ns
        assert record.completed_ns - record.sent_ns >= 2_000_000


def test_it_walks_round_from_its_own_place() -> None:
    script = Script(*[RIGHT] * 5)
    loop = ClosedLoop(script, REQUESTS, AnswerCheck(), first=5)
    sizes = [loop.step().answer_bytes for _ in range(5)]
    assert script.sent == [2, 0, 1, 2, 0]
    assert sizes == [4] * 5


def test_after_a_failure_the_slot_rests_before_it_is_free() -> None:
    refused = RequestFailure("connection", "refused")
    loop = ClosedLoop(Script(refused, RIGHT), REQUESTS, AnswerCheck())
    failed, after = loop.step(), loop.step()
    assert failed.failure is refused
    assert failed.record.status == "connection"
    assert after.record.scheduled_ns - failed.record.completed_ns >= BACKOFF_S * 1e9
    assert after.failure is None


def test_a_wrong_answer_is_a_failure_that_completed_when_it_came() -> None:
    exchange = ClosedLoop(Script(EMPTY), REQUESTS, AnswerCheck()).step()
    assert exchange.record.status == "empty_output"
    took_ns = exchange.record.completed_ns - exchange.record.sent_ns
    assert 2_000_000 <= took_ns < BACKOFF_S * 1e9
