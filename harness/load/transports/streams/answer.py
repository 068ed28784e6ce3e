"""The events of one answer over HTTP/1.1, out of the connection's bytes."""

from __future__ import annotations

from harness.load.transports.streams.body import ArrivingBody
from harness.load.transports.streams.events import EventReader
from harness.load.transports.streams.sse import CARRIAGE_RETURN, LINE_FEED, EventStream

Frames = dict[int, tuple[bytes, bytes]]
"""By the length of a piece that brought one event, what stood before and behind its data."""


class AnswerReader:
    """Reads the pieces that come of an answer's body into its `TokenStream`.

    Most pieces bring one token. One that differs from an earlier piece in its event's data alone is
    recognised: neither its chunk nor its event is then cut out byte by byte.

    Args:
        body: which the head announced.
        reader: of its events.
        frames: of a server's answers so far; added to.
    """

    def __init__(self, body: ArrivingBody, reader: EventReader, frames: Frames) -> None:
        self._body = body
        self._reader = reader
        self._frames = frames
        self._events = EventStream()
        self._between = False
        """Neither a chunk nor an event has begun."""

    def take(self, piece: bytes, at_ns: int) -> None:
        """Take in what came.

        Raises:
            ProtocolViolation, RequestFailure: as body, events and reader do.
        """
        was_between = self._between
        events = self._events.feed(self._body.feed(piece))
        if events:
            self._reader.take(events, at_ns)
        self._between = self._body.between and self._events.between
        if was_between and self._between and len(events) == 1:
            start = piece.find(events[0])
            if start >= 0:
                self._frames[len(piece)] = piece[:start], piece[start + len(events[0]) :]

    def recognise(self, piece: bytes, at_ns: int) -> bool:
        """Take in what came if it is one token's event like those before, and nothing else."""
        frame = self._frames.get(len(piece))
        if frame is None or not self._between:
            return False
        before, behind = frame
        if not (piece.startswith(before) and piece.endswith(behind)):
            return False
        data = piece[len(before) : len(piece) - len(behind)]
        is_line = LINE_FEED not in data and CARRIAGE_RETURN not in data
        return is_line and self._reader.recognise(data, at_ns)
