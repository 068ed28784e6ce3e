"""What the server of tokens does with a request: when it sends what, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

ECHO = "m"
"""The model that says exactly what a script says."""


class Opening(StrEnum):
    """What a stream begins with, before any token. Of OpenAI's protocol alone."""

    NONE = "none"
    ROLE = "role"
    """A chunk with the role and no text, as OpenAI and vLLM send it (chat)."""
    EMPTY = "empty"
    """A chunk with an empty text."""
    NO_CHOICES = "no_choices"
    """A chunk with an empty list of choices, as Azure sends it."""


class Finish(StrEnum):
    """Where the finish reason is told."""

    APART = "apart"
    """In an event of its own after the last token. Triton's protocols: as WITH_LAST."""
    WITH_LAST = "with_last"
    """In the event of the last token."""
    NEVER = "never"


class Usage(StrEnum):
    """When the counts of tokens are told, mostly in a chunk of their own at the end (OpenAI)."""

    ASKED = "asked"
    """Where `stream_options.include_usage` asks for them."""
    ALWAYS = "always"
    WITH_FINISH = "with_finish"
    """In the chunk that has the finish reason, asked for or not: so does `transformers serve`."""
    NEVER = "never"


class Fault(StrEnum):
    """What goes wrong in the middle of a stream."""

    ENDED = "ended"
    """The stream ends in good order, though nothing more was said: no finish reason, no [DONE]."""
    RESET = "reset"
    """The connection is broken."""
    ERROR = "error"
    """An error in the protocol's own words, under the status 200 that was sent already."""
    STALLED = "stalled"
    """Nothing more ever comes; the connection stays."""


@dataclass(frozen=True)
class Refusal:
    """An answer that is no stream: OpenAI's and Triton's HTTP status, or gRPC's."""

    status: int
    message: str = "the server is busy"
    retry_after_s: int | None = None
    """Of HTTP."""
    grpc_status: int | None = None
    """Ends the whole gRPC stream; None: told in a response, as Triton does, and the stream stays.
    """


@dataclass(frozen=True)
class Piece:
    """What one event brings."""

    at_s: float
    """When it is sent, after the request was received."""
    text: str
    """Lone surrogates are single bytes (`surrogateescape`): a character may be cut in two."""
    tokens: int = 1
    reasoning: bool = False
    """The text is reasoning, not content (OpenAI chat)."""


def evenly(count: int, *, first_s: float, gap_s: float, tokens: int = 1) -> tuple[Piece, ...]:
    """Events `w0 `, `w1 `, ... at even gaps."""
    return tuple(Piece(first_s + gap_s * n, f"w{n} ", tokens) for n in range(count))


@dataclass(frozen=True)
class StreamScript:
    """One request's answer."""

    pieces: Sequence[Piece] = evenly(4, first_s=0.0, gap_s=0.0)
    opening: Opening = Opening.NONE
    opening_s: float = 0.0
    reasoning_field: str = "reasoning_content"
    """Of the delta: vLLM has said `reasoning_content` and now says `reasoning`."""
    finish: Finish = Finish.APART
    finish_reason: str = "stop"
    usage: Usage = Usage.ASKED
    usage_delay_s: float = 0.0
    """From the last token to the chunk of usage."""
    told_tokens: int | None = None
    """Output tokens as the usage counts them; by default the right number."""
    done: bool = True
    """`data: [DONE]` ends the stream (OpenAI)."""
    comments_s: Sequence[float] = ()
    """When a comment (`: keep-alive`) is sent."""
    line_end: str = "\n"
    """Of the events' lines."""
    packet_bytes: int = 0
    """Each event goes out in packets of so many bytes; 0: in one."""
    packet_gap_s: float = 0.001
    """Between the packets of an event."""
    joined: int = 1
    """So many pieces go out in one packet, when the last of them is due."""
    final_apart: bool = True
    """Triton's end marker comes in an empty response of its own, to who asks for such; false: with
    the last event (gRPC)."""
    refusal: Refusal | None = None
    """Refused at once."""
    fault: Fault | None = None
    fault_after: int = 0
    """Pieces that are sent before the fault."""
    ignores_stream: bool = False
    """All comes in one answer, though a stream was asked for (OpenAI)."""
    ignores_max_tokens: bool = False
    echoes: bool = False
    """The words of the prompt are the answer, in the place of the pieces' texts; every model but
    `m` has another last word behind a prompt of an even number of words."""

    def but(self, **changes: Any) -> StreamScript:
        """The same with other fields."""
        return replace(self, **changes)

    def answering(self, prompt: str, model: str) -> StreamScript:
        """The script of one request: as it is, but for an echo's words."""
        if not self.echoes:
            return self
        words = prompt.split()
        if model != ECHO and len(words) % 2 == 0:
            words[-1:] = ["else"]
        return self.but(
            pieces=[
                replace(piece, text=f"{word} ")
                for piece, word in zip(self.pieces, words, strict=False)
            ]
        )

    def within(self, max_tokens: int | None) -> tuple[tuple[Piece, ...], str]:
        """The pieces that a limit leaves, and the finish reason."""
        if max_tokens is None or self.ignores_max_tokens:
            return tuple(self.pieces), self.finish_reason
        kept, count = [], 0
        for piece in self.pieces:
            count += piece.tokens
            if count > max_tokens:
                return tuple(kept), "length"
            kept.append(piece)
        return tuple(kept), self.finish_reason
