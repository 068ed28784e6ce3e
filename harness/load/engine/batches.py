"""What a recorder hands on: the requests that ended between two flushes, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import hdr
from harness.load.transports.contract import NO_TOKENS, RequestFailure, StreamTokens
from harness.types import ITL, TTFT, LatencySpan, Moment

NO_SPANS: Mapping[str, Sequence[int]] = {}


class FailedRequest(NamedTuple):
    """One request that was not answered as it should have been."""

    scheduled_ns: int
    sent_ns: int
    completed_ns: int
    failure: RequestFailure
    spans_ns: Mapping[str, Sequence[int]] = NO_SPANS
    """By span, what was measured before it failed."""
    identity: bytes = b""
    """The id that it bore."""
    tokens: StreamTokens = NO_TOKENS
    """The tokens of a stream that had come before it failed."""

    @property
    def moments_ns(self) -> tuple[int, int, int]:
        """When it was scheduled, sent and completed, in nanoseconds."""
        return self.scheduled_ns, self.sent_ns, self.completed_ns


@dataclass(frozen=True)
class SpanValues:
    """The values of a span that not every request has, or that a request has several of."""

    request: NDArray[np.int64]
    """(k,) ascending: to which request each value belongs, by its place among the batch's."""
    values_ns: NDArray[np.int64]
    """(k,) the values in nanoseconds."""


@dataclass(frozen=True)
class RecordedBatch:
    """The requests that ended between two flushes, in the order they ended."""

    scheduled_ns: NDArray[np.int64]
    """(n,) of the successes, as are the next three."""
    sent_ns: NDArray[np.int64]
    completed_ns: NDArray[np.int64]
    rows: NDArray[np.int64]
    failures: tuple[FailedRequest, ...]
    dropped_ns: NDArray[np.int64]
    """(d,) when those that were never sent fell due."""
    spans: Mapping[str, SpanValues] = field(default_factory=dict)
    """By name, the spans that were handed in with the successes."""
    failed_spans: Mapping[str, SpanValues] = field(default_factory=dict)
    """By name, the spans that were handed in with the failures."""
    identities: tuple[bytes, ...] = ()
    """The ids of the successes; none unless the recorder keeps them."""
    tokens: Mapping[int, StreamTokens] = field(default_factory=dict)
    """Tokens of the successes that are streams, by their index."""

    def moments_of(self, span: LatencySpan) -> NDArray[np.int64]:
        """(n,) the span between two moments, of the successes."""
        moments = dict(
            zip(Moment, (self.scheduled_ns, self.sent_ns, self.completed_ns), strict=True)
        )
        lasted: NDArray[np.int64] = moments[Moment(span.end)] - moments[Moment(span.start)]
        return lasted


def token_arrivals_ns(batch: RecordedBatch) -> NDArray[np.int64]:
    """(tokens,) when each token of the successes arrived, by their spans.

    Tokens that came with the first one have no gap of their own: they arrived with it.
    """
    first, gaps = batch.spans.get(TTFT), batch.spans.get(ITL)
    if first is None:
        return hdr.integers(())
    begun_ns = np.zeros(len(batch.rows), dtype=np.int64)
    begun_ns[first.request] = batch.scheduled_ns[first.request] + first.values_ns
    at_once = np.zeros(len(batch.rows), dtype=np.int64)
    places = hdr.integers(batch.tokens)
    at_once[places] = hdr.integers(one.output_tokens for one in batch.tokens.values())
    later = hdr.integers(())
    if gaps is not None:
        at_once -= np.bincount(gaps.request, minlength=len(batch.rows))
        since = np.cumsum(gaps.values_ns)
        having, start = np.unique(gaps.request, return_index=True)
        before = np.zeros(len(batch.rows), dtype=np.int64)
        before[having] = since[start] - gaps.values_ns[start]
        later = begun_ns[gaps.request] + since - before[gaps.request]
    return np.concatenate([np.repeat(begun_ns, np.maximum(at_once, 0)), later])
