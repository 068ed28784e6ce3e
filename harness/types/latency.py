"""Latency: its spans, histograms of them, and their percentiles with bounds.

A *span* is a named stretch of a request's life. `SPANS` is the one table of them. Recorder, slices,
messages, histograms, records, results, exposition and report go by its entries: another span is
another entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

UNBOUNDED_MS = 3_600_000.0
"""The largest latency that is recorded, an hour; as a bound it says that none could be given.

JSON has no infinity, and an objective compared with an hour stays undecided, as it should.
"""


class Moment(StrEnum):
    """An instant that a load generator notes of every request."""

    SCHEDULED = "scheduled"
    """When the request fell due."""
    SENT = "sent"
    COMPLETED = "completed"
    """When its answer was there, or its failure known."""


@dataclass(frozen=True)
class LatencySpan:
    """A named part of a request's lifetime: one entry of `SPANS`."""

    name: str
    """Name in JSON, in column names and in front of a statistic: `service_p95`."""
    title: str
    """Title in a table's heading: `schedule delay`."""
    start: str
    """The instant it runs from. Where start and end are both `Moment`s the recorder measures it of
    every request; any other span is handed to the recorder, by requests that have it."""
    end: str
    exposed_as: str
    """The Prometheus histogram that it is exposed as, in seconds; empty where it is not."""
    meaning: str
    """One sentence, for whoever reads that histogram or a table's heading."""
    judged: bool = False
    """Whether an objective may bound it: each of its statistics is then a metric
    (`harness.metrics`), and it is exposed in fine buckets."""
    counts_dropped: bool = False
    """Whether a request that an open loop never sent counts as slower than any other."""
    words: str = ""
    """Name in a sentence: `time to first token`; empty: the title and `latency`."""
    of_streams: bool = False
    """Whether only an answer that comes token by token has it."""

    @property
    def in_words(self) -> str:
        """The span's name as it reads in a sentence."""
        return self.words or f"{self.title} latency"

    @property
    def is_between_moments(self) -> bool:
        """Whether every request has it, so that the recorder itself measures it."""
        return {self.start, self.end} <= set(Moment)


RESPONSE, SERVICE, SCHEDULE_DELAY = "response", "service", "schedule_delay"
"""Names of the spans that every request has; the first is the latency that counts."""
TTFT, ITL, TPOT = "ttft", "itl", "tpot"
"""Names of the spans of a stream, an answer that comes token by token."""

SPANS: dict[str, LatencySpan] = {
    span.name: span
    for span in (
        LatencySpan(
            RESPONSE,
            "response",
            Moment.SCHEDULED,
            Moment.COMPLETED,
            "harness_response_latency_seconds",
            "From the instant a request was scheduled to its answer, of successes: what is judged.",
            judged=True,
            counts_dropped=True,
        ),
        LatencySpan(
            SERVICE,
            "service",
            Moment.SENT,
            Moment.COMPLETED,
            "harness_service_latency_seconds",
            "From the send of a request to its answer, of successes.",
        ),
        LatencySpan(
            SCHEDULE_DELAY,
            "schedule delay",
            Moment.SCHEDULED,
            Moment.SENT,
            "harness_schedule_delay_seconds",
            "From the instant a request was scheduled to its send, of successes.",
        ),
        LatencySpan(
            TTFT,
            "TTFT",
            Moment.SCHEDULED,
            "first token",
            "harness_time_to_first_token_seconds",
            "From the instant a request was scheduled to its first token, of successes.",
            judged=True,
            counts_dropped=True,
            words="time to first token",
            of_streams=True,
        ),
        LatencySpan(
            ITL,
            "ITL",
            "token",
            "next token",
            "harness_inter_token_latency_seconds",
            "From each token of an answer to the next, of successes; where an event carries "
            "several tokens, the time since the last event is divided over them.",
            judged=True,
            words="inter-token latency",
            of_streams=True,
        ),
        LatencySpan(
            TPOT,
            "TPOT",
            "first token",
            "last token",
            "harness_time_per_output_token_seconds",
            "From the first token of an answer to its last, over the number of tokens after the "
            "first, of successes.",
            judged=True,
            words="time per output token",
            of_streams=True,
        ),
    )
}
"""Every span by its name, in the order in which they are shown; the default comes first."""


@dataclass(frozen=True)
class RequestBound:
    """A clause on a latency as a single request meets it or not, for goodput."""

    span: str
    quantile: float | None
    """Quantile of the request's own values, where the span gives it several; None takes their
    mean."""
    bound_ns: int
    inclusive: bool
    """Whether a value at the bound meets it."""


@dataclass(frozen=True)
class SparseHistogram:
    """How often each latency was seen, in HDR buckets of microseconds (`harness.hdr`)."""

    buckets: tuple[int, ...] = ()
    """Bucket indices that hold something, ascending."""
    counts: tuple[int, ...] = ()
    """How many values each of those buckets holds, at least one."""


_EMPTY = SparseHistogram()


@dataclass(frozen=True)
class Latencies:
    """The latencies of the requests of one outcome, a histogram for each span."""

    spans: Mapping[str, SparseHistogram] = field(default_factory=dict)
    """Histograms by the span's name; a span without values is absent."""

    def of(self, span: str) -> SparseHistogram:
        """The histogram of a span; an empty one where the span has no values."""
        return self.spans.get(span, _EMPTY)

    @property
    def response(self) -> SparseHistogram:
        """The latency that counts: completed - scheduled."""
        return self.of(RESPONSE)

    def names(self) -> Iterator[str]:
        """The spans that have values, in the order of `SPANS`."""
        return (name for name in SPANS if name in self.spans)


@dataclass(frozen=True)
class Percentile:
    """A quantile of latency with its confidence interval."""

    value_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class LatencySummary:
    """One span in numbers, over the requests that succeeded."""

    count: int
    mean_ms: float
    min_ms: float
    max_ms: float
    percentiles: Mapping[str, Percentile]
    """Percentiles by name: p50, p90, p95, p99."""
    confidence: float
    """Confidence of every interval in this summary; 0 to 1."""
    design_effect: float
    """How many requests count as one independent sample (1 = all independent)."""
    mean_low_ms: float | None = None
    """Confidence bounds of the mean by batch means; None from a single block."""
    mean_high_ms: float | None = None

    def value_ms(self, statistic: str) -> float | None:
        """A statistic by its name: `mean` or a percentile; None for any other."""
        if statistic == "mean":
            return self.mean_ms
        percentile = self.percentiles.get(statistic)
        return percentile.value_ms if percentile else None
