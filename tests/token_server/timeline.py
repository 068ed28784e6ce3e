"""A script in the order of time: the same for every protocol."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Protocol as Interface

from token_server.records import Played
from token_server.scripts import Fault, Finish, Opening, Piece, StreamScript


class Kind(IntEnum):
    """Kinds of events; at one instant in this order."""

    OPENING = 0
    COMMENT = 1
    PIECE = 2
    FAULT = 3
    FINISH = 4
    USAGE = 5
    DONE = 6


@dataclass(frozen=True, order=True)
class Step:
    """An event, and when it is due after the request was received."""

    due_s: float
    kind: Kind
    number: int = 0
    """Of the piece."""


class Wire(Interface):
    """What writes a protocol's events."""

    def event(self, kind: Kind, piece: Piece | None, finish_reason: str | None) -> bytes:
        """The bytes of an event; none for one that the protocol does not have."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand bytes to the kernel now, as a packet of their own."""
        ...

    async def break_off(self, fault: Fault) -> None:
        """Do what the fault says."""
        ...


def steps(script: StreamScript, pieces: tuple[Piece, ...], *, usage: bool) -> Iterator[Step]:
    """The events of a script, without order.

    Args:
        script: what to play.
        pieces: of it, as the request's limit leaves them.
        usage: whether the counts of tokens are told.
    """
    last_s = pieces[-1].at_s if pieces else 0.0
    if script.opening is not Opening.NONE:
        yield Step(script.opening_s, Kind.OPENING)
    for at_s in script.comments_s:
        yield Step(at_s, Kind.COMMENT)
    for number, piece in enumerate(pieces):
        if script.fault is not None and number >= script.fault_after:
            break
        yield Step(piece.at_s, Kind.PIECE, number)
    if script.fault is not None:
        before = [piece.at_s for piece in pieces[: script.fault_after]]
        stalls = script.fault is Fault.STALLED  # keep-alives go on
        yield Step(max([0.0, *before, *(script.comments_s if stalls else ())]), Kind.FAULT)
        return
    if script.finish is Finish.APART or (script.finish is Finish.WITH_LAST and not pieces):
        yield Step(last_s, Kind.FINISH)
    if usage:
        yield Step(last_s + script.usage_delay_s, Kind.USAGE)
    if script.done:
        yield Step(last_s + script.usage_delay_s, Kind.DONE)


async def play(
    script: StreamScript, max_tokens: int | None, wire: Wire, played: Played, *, usage: bool
) -> None:
    """Send everything when it is due, and note it.

    Args:
        script: what to play.
        max_tokens: the request's limit.
        wire: what writes.
        played: what is noted.
        usage: whether the counts of tokens are told.

    Raises:
        ConnectionError: the client has gone.
    """
    pieces, reason = script.within(max_tokens)
    packets = Packets(script, wire, played)
    for step in sorted(steps(script, pieces, usage=usage)):
        late_s = await until(played.received_ns, step.due_s)
        played.late_s = max(played.late_s, late_s)
        if step.kind is Kind.FAULT:
            await packets.flush()
            assert script.fault is not None
            await wire.break_off(script.fault)
            return
        piece = pieces[step.number] if step.kind is Kind.PIECE else None
        is_last = piece is not None and step.number == len(pieces) - 1
        tells = step.kind is Kind.FINISH or (is_last and script.finish is Finish.WITH_LAST)
        data = wire.event(step.kind, piece, reason if tells else None)
        await packets.send(data, piece, now=not piece or is_last)
    await packets.flush()


async def until(start_ns: int, due_s: float) -> float:
    """Sleep until an instant; returns by how many seconds it was missed."""
    due_ns = start_ns + round(due_s * 1e9)
    while (left_s := (due_ns - time.monotonic_ns()) / 1e9) > 0:
        await asyncio.sleep(left_s)
    return -left_s


def delivered_ns() -> int:
    """An instant at which all that this core has sent over loopback has come, by CLOCK_MONOTONIC.

    A busy kernel leaves packets to ksoftirqd, which hands them on, and stamps them, milliseconds
    after their write has returned. It keeps their order, so a datagram that is sent to oneself
    comes behind them.
    """
    to_itself = _to_itself()
    to_itself.send(b".")
    to_itself.recv(1)
    return time.monotonic_ns()


@cache
def _to_itself() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.connect(made.getsockname())
    return made


class Packets:
    """Joins and cuts events as a script says, and notes when each was sent."""

    def __init__(self, script: StreamScript, wire: Wire, played: Played) -> None:
        self._script, self._wire, self._played = script, wire, played
        self._held: list[bytes] = []
        self._pieces: list[Piece] = []

    async def send(self, data: bytes, piece: Piece | None, *, now: bool) -> None:
        """Send an event, or hold it for the packet that it goes out in."""
        self._held.append(data)
        if piece is not None:
            self._pieces.append(piece)
        if now or len(self._pieces) >= self._script.joined:
            await self.flush()

    async def flush(self) -> None:
        """Send what is held."""
        data, pieces = b"".join(self._held), self._pieces
        self._held, self._pieces = [], []
        size = self._script.packet_bytes or max(1, len(data))
        sent_ns = time.monotonic_ns()
        for start in range(0, len(data), size):
            if start:
                await asyncio.sleep(self._script.packet_gap_s)
            sent_ns = time.monotonic_ns()
            await self._wire.write(data[start : start + size])
        self._played.note(pieces, sent_ns, delivered_ns())
