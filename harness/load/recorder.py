"""The recorder: every latency of a window in HDR histograms, failures apart by kind.

A window is cut into time blocks with a histogram each, because latencies of a queue are
autocorrelated and only blocks tell how much (batch means). Histograms merge exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

from harness.load.closed_loop import Exchange

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
SIGNIFICANT_FIGURES = 3
FEWEST_BLOCKS = 10
MOST_BLOCKS = 120
"""A histogram takes about 0.2 MB; more than 120 batch means tell nothing more."""


@dataclass(frozen=True)
class WindowCounts:
    """What one process saw of the window."""

    histograms: tuple[str, ...]
    """Encoded, microseconds from the scheduled time, one a block."""
    schedule_delay: str
    """Encoded, microseconds."""
    completed: int
    failures: dict[str, int]
    first_failure: str = ""
    first_failure_ns: int = 0


class WindowRecorder:
    """Takes every exchange and keeps what belongs to the window [start, end).

    A request belongs to the block it was scheduled in, even where it completes after the window:
    leaving those out would drop the slowest. `completed` counts completions inside the window,
    whenever they were scheduled: that is the throughput.
    """

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self._start_ns, self._end_ns = start_ns, end_ns
        self._blocks = [new_histogram() for _ in range(block_count((end_ns - start_ns) / 1e9))]
        self._schedule_delay = new_histogram()
        self._completed = 0
        self._failures: Counter[str] = Counter()
        self._first_failure = ""
        self._first_failure_ns = 0

    def add(self, exchange: Exchange) -> None:
        """Record one exchange."""
        record = exchange.record
        failure = exchange.failure
        if failure is None and self._start_ns <= record.completed_ns < self._end_ns:
            self._completed += 1
        if not self._start_ns <= record.scheduled_ns < self._end_ns:
            return
        if failure is not None:
            self._failures[failure.kind] += 1
            if not self._first_failure:
                self._first_failure = str(failure)
                self._first_failure_ns = record.completed_ns
            return
        elapsed_ns = record.scheduled_ns - self._start_ns
        block = elapsed_ns * len(self._blocks) // (self._end_ns - self._start_ns)
        self._blocks[block].record_value((record.completed_ns - record.scheduled_ns + 500) // 1000)
        self._schedule_delay.record_value((record.sent_ns - record.scheduled_ns + 500) // 1000)

    def counts(self) -> WindowCounts:
        """All that was recorded."""
        return WindowCounts(
            histograms=tuple(block.encode().decode() for block in self._blocks),
            schedule_delay=self._schedule_delay.encode().decode(),
            completed=self._completed,
            failures=dict(self._failures),
            first_failure=self._first_failure,
            first_failure_ns=self._first_failure_ns,
        )


def block_count(duration_s: float) -> int:
    """Blocks of a window: one a second, but at least 10 and at most 120."""
    return max(FEWEST_BLOCKS, min(MOST_BLOCKS, int(duration_s)))


def new_histogram() -> HdrHistogram:
    """An empty histogram: 1 us to 1 h, three significant digits (0.1 % at worst)."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_FIGURES)


def merge_counts(parts: Sequence[WindowCounts]) -> WindowCounts:
    """Join what several processes saw of one window; counts add up exactly."""
    failed = [part for part in parts if part.first_failure]
    first = min(failed, key=lambda part: part.first_failure_ns, default=parts[0])
    failures: Counter[str] = Counter()
    for part in parts:
        failures.update(part.failures)
    blocks = zip(*(part.histograms for part in parts), strict=True)
    return WindowCounts(
        histograms=tuple(_merge(block) for block in blocks),
        schedule_delay=_merge([part.schedule_delay for part in parts]),
        completed=sum(part.completed for part in parts),
        failures=dict(failures),
        first_failure=first.first_failure,
        first_failure_ns=first.first_failure_ns,
    )


def _merge(encoded: Sequence[str]) -> str:
    merged = new_histogram()
    for histogram in encoded:
        merged.decode_and_add(histogram)
    text: str = merged.encode().decode()
    return text
