"""Closed loop: a slot holds one request in flight and sends the next when it completes.

The latency that counts runs from the scheduled time, which here is the moment the slot frees.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from harness.load.answers import AnswerCheck
from harness.load.payloads import EncodedRequest
from harness.load.transports.contract import RequestFailure, Transport
from harness.types import RequestRecord

BACKOFF_S = 0.02
"""Pause after a failure: a dead server refuses in microseconds, and nobody gains from asking
it fifty thousand times a second."""


class Exchange(NamedTuple):
    """One request and what became of it."""

    record: RequestRecord
    answer_bytes: int
    failure: RequestFailure | None


class ClosedLoop:
    """One slot, walking through the requests from its own place on.

    Args:
        transport: this slot's own.
        requests: shared by all slots.
        check: what an answer must be.
        first: index of the first request; slots start apart so that the server sees all lengths.
    """

    def __init__(
        self,
        transport: Transport,
        requests: Sequence[EncodedRequest],
        check: AnswerCheck,
        *,
        first: int = 0,
    ) -> None:
        self._transport = transport
        self._requests = requests
        self._check = check
        self._next = first % len(requests)
        self.free_ns = time.monotonic_ns()
        """When the slot freed: the next request's scheduled time."""

    def step(self) -> Exchange:
        """Send the next request, wait for its answer, check it; after a failure pause a little."""
        request = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        scheduled_ns, sent_ns, completed_ns = self.free_ns, time.monotonic_ns(), 0
        try:
            answer = self._transport.send(request.body)
            completed_ns = time.monotonic_ns()
            self._check.check(answer, request)
        except RequestFailure as failure:
            completed_ns = completed_ns or time.monotonic_ns()
            record = RequestRecord(scheduled_ns, sent_ns, completed_ns, failure.kind)
            time.sleep(BACKOFF_S)
            self.free_ns = time.monotonic_ns()
            return Exchange(record, 0, failure)
        self.free_ns = completed_ns
        size = sum(len(tensor.data) for tensor in answer)
        return Exchange(RequestRecord(scheduled_ns, sent_ns, completed_ns, "ok"), size, None)
