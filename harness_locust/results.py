"""What a Locust-driven test has shown so far, over all its processes and phases.

Every process reports additions; here they are summed, exactly. What is kept does not grow with the
test's length: one slice per phase, the last ten seconds, and a history whose slices widen.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field

from harness import hdr
from harness.load.engine.slices import SliceSums, added_up
from harness.load.generators.attendance import Attendance, stood_still_s
from harness.load.generators.messages import LoadProgress
from harness.load.records.series import LoadHistory
from harness.types import GeneratorHealth, SparseHistogram, TimeSlice

SLICE_S = 0.25
REPORT_EVERY_S = 1.0
RECENT_S = 10.0
RAMP_UP = "ramp-up"
"""Name of the phase until Locust has started all users."""
MEASURED = "measured"
SETTLING = "settling"
"""Name of the phase between two steps of a sweep."""
DRAINING = "draining"
"""Name of the phase after the end: what was in flight is waited for."""
TRANSIENT = frozenset({RAMP_UP, SETTLING, DRAINING})
LONGEST_S = 1e9
"""Length of the last phase, whose end is not known."""
_NS = 1_000_000_000


@dataclass
class WorkerState:
    """What is known of one load-generating process."""

    name: str
    steady_s: float = 0.0
    """Time outside the transient phases, as are the next two."""
    steady_cpu_s: float = 0.0
    loop_lag: SparseHistogram = field(default_factory=SparseHistogram)
    memory_bytes: int = 0
    reported_s: float = 0.0
    """When the process made its last report that came."""
    settled_s: float = 0.0
    """Until when all that fell due in the process has been reported."""
    lost: bool = False
    """Whether the process is gone, and did not come back before the test's end."""
    stood_still_s: float = 0.0
    """Time outside the transient phases in which it did nothing at all."""
    clock_error_s: float = 0.0
    """How far off its slices may lie, at most: what is not known of its clock."""

    @property
    def health(self) -> GeneratorHealth:
        """How it fared, outside the transient phases."""
        cores = self.steady_cpu_s / self.steady_s if self.steady_s else 0.0
        return GeneratorHealth(cores, self.loop_lag, self.memory_bytes)


@dataclass(frozen=True)
class PhaseResult:
    """One phase of the test."""

    name: str
    start_s: float
    duration_s: float
    total: TimeSlice
    """All slices of the phase in one."""

    @property
    def requests_per_s(self) -> float:
        """Successes that completed in it."""
        return self.total.completed / self.duration_s if self.duration_s else 0.0

    @property
    def inferences_per_s(self) -> float:
        """Samples of the successes that completed in it."""
        return self.total.inferences / self.duration_s if self.duration_s else 0.0


@dataclass
class Results:
    """Sums reports and cuts them into phases.

    A phase begins at a slice's edge, so that a slice lies in one phase only.
    """

    test: str
    _starts_s: list[float] = field(default_factory=lambda: [0.0])
    _names: list[str] = field(default_factory=lambda: [RAMP_UP])
    _totals: SliceSums = field(default_factory=SliceSums)
    """Sums of each phase, by the phase's index."""
    _recent: SliceSums = field(default_factory=SliceSums)
    _workers: dict[str, WorkerState] = field(default_factory=dict)
    history: LoadHistory = field(default_factory=lambda: LoadHistory(SLICE_S))
    start_ns: int = 0
    """CLOCK_MONOTONIC of the process that sums up, at the start of slice 0."""
    former: InitVar[Results | None] = None
    """Results of the same test, whose reports are known: nothing is counted in both."""

    def __post_init__(self, former: Results | None) -> None:
        self.attendance: Attendance = former.attendance if former else Attendance(self.test)

    def continued(self, now_s: float) -> Results:
        """The same test counted anew from the next slice on; its phases go on as they were."""
        fresh = Results(self.test, start_ns=self.start_ns, former=self)
        if (phase := self.phase_at(now_s)) != RAMP_UP:
            fresh.begin(phase, now_s + SLICE_S)
        for name, start_s in zip(self._names, self._starts_s, strict=True):
            if start_s > now_s:
                fresh.begin(name, max(start_s, now_s + SLICE_S))
        for state in self.workers:
            fresh._workers[state.name] = WorkerState(
                state.name,
                reported_s=state.reported_s,
                lost=state.lost,
                clock_error_s=state.clock_error_s,
            )
        return fresh

    def begin(self, name: str, at_s: float) -> None:
        """Begin another phase at an instant; one that was to begin later becomes part of it."""
        start_s = edge_after(at_s)
        replaced = []
        while len(self._starts_s) > 1 and self._starts_s[-1] >= start_s:
            replaced.append(self._totals.pop(len(self._starts_s) - 1))
            self._starts_s.pop()
            self._names.pop()
        place = len(self._starts_s)
        self._starts_s.append(start_s)
        self._names.append(name)
        self._totals.add(replaced, lambda _: place)

    def add(self, worker: str, report: LoadProgress) -> bool:
        """Take in what a process reported.

        Returns:
            False for a report of another test, and for one that was taken in before.
        """
        if not self.attendance.take(worker, report):
            return False
        self._totals.add(report.slices, lambda index: self._place_of(index * SLICE_S))
        self._recent.add(report.slices)
        self._recent.forget_before(self._recent.last - int(RECENT_S / SLICE_S))
        self.history.add(report.slices)
        self._note(self.worker(worker), report)
        return True

    def worker(self, name: str) -> WorkerState:
        """The state of a process, new or known."""
        return self._workers.setdefault(name, WorkerState(name))

    @property
    def workers(self) -> tuple[WorkerState, ...]:
        """All processes that reported, in the order of their first reports."""
        return tuple(self._workers.values())

    @property
    def settled_s(self) -> float:
        """Until when the numbers are complete: no process has a request in flight from before."""
        return min((one.settled_s for one in self._workers.values() if not one.lost), default=0.0)

    @property
    def recent(self) -> TimeSlice:
        """The last ten seconds that were reported."""
        return added_up(self._recent)

    def phases(self, now_s: float) -> list[PhaseResult]:
        """All that have begun, in order of time."""
        ends_s = [*(min(one, now_s) for one in self._starts_s[1:]), now_s]
        return [
            PhaseResult(name, start_s, end_s - start_s, self._totals.at(place))
            for place, (name, start_s, end_s) in enumerate(
                zip(self._names, self._starts_s, ends_s, strict=True)
            )
            if start_s <= now_s
        ]

    def whole(self, now_s: float) -> PhaseResult:
        """The phases that count, in one: all but the transient ones."""
        parts = [one for one in self.phases(now_s) if one.name not in TRANSIENT]
        return PhaseResult(
            "whole test",
            parts[0].start_s if parts else 0.0,
            sum(one.duration_s for one in parts),
            added_up(one.total for one in parts),
        )

    def everything(self) -> TimeSlice:
        """All phases, the transient ones included: every request there was."""
        return added_up(self._totals)

    def next_edge_s(self, now_s: float) -> float:
        """When another phase begins; infinite where none is known to."""
        return min((one for one in self._starts_s if one > now_s), default=math.inf)

    def phase_at(self, elapsed_s: float) -> str:
        """The name of the phase that an instant lies in."""
        return self._names[self._place_of(elapsed_s)]

    def _place_of(self, elapsed_s: float) -> int:
        return bisect_right(self._starts_s, elapsed_s) - 1

    def _second(self, instant_ns: int) -> float:
        return (instant_ns - self.start_ns) / _NS

    def _note(self, state: WorkerState, report: LoadProgress) -> None:
        state.memory_bytes, state.reported_s = report.memory_bytes, self._second(report.at_ns)
        state.settled_s = self._second(report.complete_before_ns)
        state.stood_still_s += stood_still_s(report, REPORT_EVERY_S, self._counted_ns())
        if self.phase_at(self._second((report.since_ns + report.at_ns) // 2)) in TRANSIENT:
            return
        state.steady_s += (report.at_ns - report.since_ns) / _NS
        state.steady_cpu_s += report.cpu_s
        state.loop_lag = hdr.merge([state.loop_lag, report.loop_lag])

    def _counted_ns(self) -> Iterator[tuple[int, int]]:
        """The phases that count, by their edges on the clock."""
        edges_s = [*self._starts_s[1:], LONGEST_S]
        for name, begin_s, end_s in zip(self._names, self._starts_s, edges_s, strict=True):
            if name not in TRANSIENT:
                yield self.start_ns + round(begin_s * _NS), self.start_ns + round(end_s * _NS)


def edge_after(at_s: float) -> float:
    """The first edge of a slice that is not before an instant."""
    return math.ceil(round(at_s / SLICE_S, 6)) * SLICE_S


def edge_before(at_s: float) -> float:
    """The last edge of a slice that is not after an instant."""
    return math.floor(round(at_s / SLICE_S, 6)) * SLICE_S
