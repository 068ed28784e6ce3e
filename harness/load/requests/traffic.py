"""What the users of one process send: requests encoded once, in sizes drawn from a mix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from harness.load.engine.closed_loop import ClosedLoop, RequestSink, Turns
from harness.load.engine.open_loop import OpenLoop, Timer, requests_in_turn
from harness.load.engine.recorder import Recorder
from harness.load.engine.streams import StreamSink, StreamTransport
from harness.load.requests.answers import AnswerCheck, read_known_answers
from harness.load.requests.fit import cast_payloads
from harness.load.requests.generation import GenerationRequest, encode_requests
from harness.load.requests.payloads import (
    EncodedRequest,
    draw_workload,
    encode_payloads,
    read_payloads,
)
from harness.load.schedule.arrivals import share
from harness.load.transports.address import Target
from harness.load.transports.contract import TensorTransport, Transport
from harness.types import TensorSpec, Workload

GOLDEN_RATIO = 0.6180339887498949


@dataclass
class EncodedTraffic:
    """Requests, and what opens the transports that carry them."""

    open_transport: Callable[[], Transport]
    requests: Sequence[EncodedRequest]
    check: AnswerCheck
    next_user: int = 0
    """Users before the next one, in all processes."""
    turns: Turns = field(default_factory=Turns)
    sink_of: Callable[[Transport, RequestSink], RequestSink] = lambda _, sink: sink
    """What a slot records its requests in."""
    walk: Iterator[EncodedRequest] | None = None
    """A walk through the requests that all users share: each is sent once before the first comes
    again. None: each user has its own."""

    def closed_loop(self, transport: Transport, sink: RequestSink) -> ClosedLoop:
        """The next user's walk through the requests.

        Users with walks of their own start at multiples of the golden ratio: apart, however many
        there will be.
        """
        first = int(self.next_user * GOLDEN_RATIO * len(self.requests)) % len(self.requests)
        self.next_user += 1
        own = self.sink_of(transport, sink)
        loop = ClosedLoop(transport, self.requests, self.check, own, first=first, turns=self.turns)
        if self.walk is not None:
            loop.join(self.walk)
        return loop

    def open_loop(
        self,
        arrivals: Iterable[NDArray[np.int64]],
        sink: RequestSink,
        timer: Timer,
        *,
        worker: int,
        workers: int,
        most_in_flight: int,
    ) -> OpenLoop:
        """One worker's part of an open loop: every so-many-th arrival of the one sequence.

        Args:
            arrivals: of the whole load (`arrival_times_ns`).
            sink: records every request.
            timer: wakes the dispatcher.
            worker: which of the workers this is, from 0.
            workers: how many there are.
            most_in_flight: of this worker's requests.
        """
        loop = OpenLoop(
            share(arrivals, worker, workers),
            requests_in_turn(self.requests, worker, workers),
            self.check,
            sink,
            open_transport=self.open_transport,
            most_in_flight=most_in_flight,
            timer=timer,
        )
        loop.sink_of = lambda transport: self.sink_of(transport, sink)
        return loop


def make_traffic(
    model: str,
    open_transport: Callable[[], TensorTransport],
    workload: Workload,
    payloads: Path,
    *,
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
    known_answers: Path | None = None,
) -> EncodedTraffic:
    """Draw and encode a workload's requests: the same ones in every process.

    Payloads are cast to the datatypes of `inputs`, where these are known.

    Raises:
        DataError: the payloads cannot be read, or do not have what the workload draws from them.
    """
    drawn = draw_workload(cast_payloads(read_payloads(payloads), inputs), workload)
    known = read_known_answers(known_answers) if known_answers else None
    requests = encode_payloads(drawn, open_transport(), model, known)
    return EncodedTraffic(open_transport, requests, AnswerCheck(outputs))


def make_stream_traffic(
    model: str,
    open_transport: Callable[[], Transport],
    workload: Workload,
    target: Target,
    pool: Sequence[GenerationRequest],
    *,
    worker: int = 0,
    workers: int = 1,
) -> EncodedTraffic:
    """Encode a workload's requests for streams: the same ones in every process.

    They are sent in turn: a prompt that comes again sooner than it must is answered from a server's
    prefix cache.

    Args:
        model: its name on the server.
        open_transport: opens a `StreamTransport`.
        workload: whose `generation` is known.
        target: the server.
        pool: what is asked, in turn.
        worker: which of the load's processes this is, from 0.
        workers: how many there are.
    """
    assert workload.generation is not None  # noqa: S101  (the caller's business)
    encoded = encode_requests(pool, workload.generation, workload.protocol, target, model)
    walk = requests_in_turn(encoded, worker, workers)
    return EncodedTraffic(
        open_transport, encoded, AnswerCheck(), sink_of=_records_streams, walk=walk
    )


def _records_streams(transport: Transport, sink: RequestSink) -> RequestSink:
    return StreamSink(cast("Recorder", sink), cast("StreamTransport", transport))
