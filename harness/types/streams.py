"""What a load saw of answers that come token by token, and the requests that met every clause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types.estimates import Interval
from harness.types.latency import RequestBound


@dataclass(frozen=True)
class StreamCounts:
    """What was seen of the streams (answers that come token by token) of a slice or a window."""

    input_tokens: int = 0
    """Tokens of the prompts that were answered, by the slice in which their answer ended."""
    output_tokens: int = 0
    """Tokens of the answers, by the slice in which each arrived."""
    left: int = 0
    """Clients that went away in the middle of their answer because the workload said so."""
    irregular: Mapping[str, int] = field(default_factory=dict)
    """Answers that count as successes and yet were not as they should be, by kind."""
    closing_ns: int = 0
    """From the last token of each answer to the end of its stream, summed over the successes by the
    slice in which they were scheduled: until then the request holds its slot."""

    def __add__(self, other: StreamCounts) -> StreamCounts:
        """The sums of both counts."""
        return StreamCounts(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.left + other.left,
            dict(Counter(self.irregular) + Counter(other.irregular)),
            self.closing_ns + other.closing_ns,
        )


NO_STREAMS = StreamCounts()


@dataclass(frozen=True)
class StreamFigures:
    """What a trial says of the tokens of its answers."""

    counts: StreamCounts
    """Counts of the window."""
    output_tokens_per_s: float
    """Tokens of successful answers that arrived inside the window, over its length."""
    output_tokens_per_s_bounds: Interval | None = None
    """Confidence bounds; None where the window is too short for any."""


@dataclass(frozen=True)
class Goodput:
    """Requests per second that meet all of an objective's clauses on latencies together."""

    requests_per_s: float
    """Good requests per second by when they were scheduled, over the window's length."""
    bounds: Interval | None
    """Confidence bounds; None where the window is too short for any."""
    clauses: tuple[RequestBound, ...]
    """What each of them meets."""
