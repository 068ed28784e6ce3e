"""What the server of tokens notes of each request: the truth that a client is held against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from token_server.scripts import Piece


class Protocol(StrEnum):
    """How a request came."""

    GRPC = "grpc"
    GENERATE = "generate"
    """Triton's `/generate_stream` and `/generate`."""
    CHAT = "chat"
    COMPLETIONS = "completions"


@dataclass(frozen=True)
class SentEvent:
    """An event that carried tokens."""

    sent_ns: int
    """Of CLOCK_MONOTONIC, just before the write that completed it."""
    text: str
    tokens: int
    written_ns: int = 0
    """When the bytes had reached the client's socket at the latest (`timeline.delivered_ns`)."""


@dataclass
class Played:
    """One request as the server saw it; every instant is of CLOCK_MONOTONIC."""

    ordinal: int
    protocol: Protocol
    prompt: str
    asked: dict[str, Any]
    """The body of an HTTP request; the inputs by name over gRPC."""
    identity: str
    """The gRPC request's id, or the header `x-request-id`."""
    received_ns: int
    """When the request's last byte had been read."""
    sent: list[SentEvent] = field(default_factory=list)
    ended_ns: int | None = None
    """When the last byte of the answer was handed to the kernel."""
    gone_ns: int | None = None
    """When the client had gone away before that."""
    late_s: float = 0.0
    """The most by which an event was sent after it was due: the machine's doing."""

    def note(self, pieces: Iterable[Piece], sent_ns: int, written_ns: int = 0) -> None:
        """These have been sent, all at one instant."""
        self.sent.extend(
            SentEvent(sent_ns, piece.text, piece.tokens, written_ns or sent_ns) for piece in pieces
        )

    @property
    def token_ns(self) -> list[int]:
        """When each token was sent; those of one event at one instant."""
        return [event.sent_ns for event in self.sent for _ in range(event.tokens)]

    @property
    def text(self) -> str:
        """All that was sent."""
        return "".join(event.text for event in self.sent)
