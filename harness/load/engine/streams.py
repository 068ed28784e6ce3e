"""Records a slot's streams: what the engine knows of a request, and what its transport saw come."""

from __future__ import annotations

from typing import Protocol

from harness.load.engine.recorder import Recorder
from harness.load.transports.contract import RequestFailure, Transport
from harness.load.transports.streams.tokens import TokenStream


class StreamTransport(Transport, Protocol):
    """A transport whose answers come token by token."""

    stream: TokenStream
    """The stream of the request that was last sent, as far as it came."""


class StreamSink:
    """A sink for the requests of one slot.

    Args:
        recorder: where they end up.
        transport: the slot's own.
    """

    def __init__(self, recorder: Recorder, transport: StreamTransport) -> None:
        self._recorder = recorder
        self._transport = transport

    def add(
        self, scheduled_ns: int, sent_ns: int, completed_ns: int, rows: int, identity: bytes
    ) -> None:
        """A stream that came to its end."""
        stream = self._transport.stream
        spans_ns, tokens = stream.spans_ns(scheduled_ns), stream.summary
        moments = (scheduled_ns, sent_ns, completed_ns)
        self._recorder.add_with_spans(*moments, rows, spans_ns, identity, tokens)

    def fail(
        self,
        scheduled_ns: int,
        sent_ns: int,
        completed_ns: int,
        failure: RequestFailure,
        identity: bytes,
    ) -> None:
        """A stream that failed, or that its client left, with what had come of it."""
        stream = self._transport.stream
        moments, spans_ns = (scheduled_ns, sent_ns, completed_ns), stream.spans_ns(scheduled_ns)
        tokens = stream.summary
        self._recorder.fail(*moments, failure, identity, spans_ns, tokens)

    def drop(self, scheduled_ns: int) -> None:
        """A request that fell due and was never sent."""
        self._recorder.drop(scheduled_ns)
