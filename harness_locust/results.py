"""What a Locust-driven test has shown so far, over all its processes and phases.

Every process reports additions; here they are summed, exactly. What is kept does not grow with the
test's length: one slice per phase, the last ten seconds, and a history whose slices widen.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from harness import hdr
from harness.load.engine.slices import merge_slices
from harness.load.records.series import LoadHistory
from harness.types import GeneratorHealth, SparseHistogram, TimeSlice
from harness_locust.attendance import Attendance

SLICE_S = 0.25
REPORT_EVERY_S = 1.0
STANDSTILL_S = 1.0
"""A report that is overdue by less is a busy machine's doing, and the event loop's lag tells."""
RECENT_S = 10.0
RAMP_UP = "ramp-up"
"""Until Locust has started all users."""
MEASURED = "measured"
SETTLING = "settling"
"""Between two steps of a sweep."""
DRAINING = "draining"
"""After the end: what was in flight is waited for."""
TRANSIENT = frozenset({RAMP_UP, SETTLING, DRAINING})


@dataclass(frozen=True)
class WorkerReport:
    """What one process saw since its last report; its times count from the test's start.

    That is one instant for all of them, whatever their clocks show (`clocks.py`).
    """

    test: str
    """Which test: a report that comes late must not be added to the next one's."""
    elapsed_s: float
    interval_s: float
    """Since the last report, as are the fields that follow."""
    slices: tuple[TimeSlice, ...]
    cpu_s: float
    loop_lag: SparseHistogram
    memory_bytes: int
    """Resident memory now."""
    first_failure: str = ""
    """The test's first failure, in its own words."""
    settled_s: float = 0.0
    """Everything that fell due before this time of the test has ended, and was reported."""
    number: int = 0
    """Number of this report: the process's first is 0."""
    final: bool = False
    """Whether it is the process's last."""


_REPORTS = TypeAdapter(tuple[WorkerReport, ...])


def encode_reports(reports: Iterable[WorkerReport]) -> bytes:
    """Reports as text, for the way to the master."""
    return _REPORTS.dump_json(tuple(reports))


def decode_reports(encoded: bytes) -> tuple[WorkerReport, ...]:
    """Raises pydantic.ValidationError for anything else."""
    return _REPORTS.validate_json(encoded)


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
    """When it made its last report that came."""
    settled_s: float = 0.0
    """All that fell due there by then was reported."""
    lost: bool = False
    """Gone, and not come back before the test's end."""
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
    """All of its slices in one."""

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
    _totals: dict[int, TimeSlice] = field(default_factory=dict)
    """Totals by index of the phase."""
    _recent: dict[int, TimeSlice] = field(default_factory=dict)
    _workers: dict[str, WorkerState] = field(default_factory=dict)
    first_failure: str = ""
    history: LoadHistory = field(default_factory=lambda: LoadHistory(SLICE_S))
    attendance: Attendance = field(default_factory=Attendance)
    start_ns: int = 0
    """CLOCK_MONOTONIC of the process that sums up, at the start of slice 0."""

    def continued(self, now_s: float) -> Results:
        """The same test counted anew from the next slice on; its phases go on as they were."""
        fresh = Results(self.test, attendance=self.attendance, start_ns=self.start_ns)
        if (phase := self.phase_at(now_s)) != RAMP_UP:
            fresh.begin(phase, now_s + SLICE_S)
        for name, start_s in zip(self._names, self._starts_s, strict=True):
            if start_s > now_s:
                fresh.begin(name, max(start_s, now_s + SLICE_S))
        for state in self.workers:
            fresh._workers[state.name] = WorkerState(
                state.name, lost=state.lost, clock_error_s=state.clock_error_s
            )
        return fresh

    def begin(self, name: str, at_s: float) -> None:
        """Begin another phase at an instant; one that was to begin later becomes part of it."""
        start_s = edge_after(at_s)
        replaced = []
        while len(self._starts_s) > 1 and self._starts_s[-1] >= start_s:
            replaced.append(self._totals.pop(len(self._starts_s) - 1, None))
            self._starts_s.pop()
            self._names.pop()
        self._starts_s.append(start_s)
        self._names.append(name)
        place = len(self._starts_s) - 1
        self._totals[place] = _joined(place, replaced)

    def add(self, worker: str, report: WorkerReport) -> bool:
        """Take in what a process reported.

        Returns:
            False for a report of another test, and for one that was taken in before.
        """
        if report.test != self.test:
            return False
        if not self.attendance.take(worker, report.number, final=report.final):
            return False
        for one in report.slices:
            place = self._place_of(one.index * SLICE_S)
            self._totals[place] = _joined(place, [self._totals.get(place), one])
            self._recent[one.index] = _joined(one.index, [self._recent.get(one.index), one])
        self.history.add(report.slices)
        newest = max(self._recent, default=0)
        for index in [one for one in self._recent if one < newest - RECENT_S / SLICE_S]:
            del self._recent[index]
        self.first_failure = self.first_failure or report.first_failure
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
        return _joined(0, self._recent.values())

    def phases(self, now_s: float) -> list[PhaseResult]:
        """All that have begun, in order of time."""
        ends_s = [*(min(one, now_s) for one in self._starts_s[1:]), now_s]
        return [
            PhaseResult(name, start_s, end_s - start_s, self._totals.get(place, TimeSlice(place)))
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
            _joined(0, (one.total for one in parts)),
        )

    def everything(self) -> TimeSlice:
        """All phases, the transient ones included: every request there was."""
        return _joined(0, self._totals.values())

    def next_edge_s(self, now_s: float) -> float:
        """When another phase begins; infinite where none is known to."""
        return min((one for one in self._starts_s if one > now_s), default=math.inf)

    def phase_at(self, elapsed_s: float) -> str:
        """The name of the phase that an instant lies in."""
        return self._names[self._place_of(elapsed_s)]

    def _place_of(self, elapsed_s: float) -> int:
        return bisect_right(self._starts_s, elapsed_s) - 1

    def _note(self, state: WorkerState, report: WorkerReport) -> None:
        state.memory_bytes, state.reported_s = report.memory_bytes, report.elapsed_s
        state.settled_s = report.settled_s
        middle_s = report.elapsed_s - report.interval_s / 2
        state.stood_still_s += self._stood_still_s(report)
        if self.phase_at(middle_s) in TRANSIENT:
            return
        state.steady_s += report.interval_s
        state.steady_cpu_s += report.cpu_s
        state.loop_lag = hdr.merge([state.loop_lag, report.loop_lag])

    def _stood_still_s(self, report: WorkerReport) -> float:
        """Reports are due every second: of one that is overdue the rest was spent not running.

        A process that is stopped, or starved, wakes at the end of that time: only what lies in a
        phase that counts is compared with it.
        """
        start_s = report.elapsed_s - report.interval_s + REPORT_EVERY_S
        if report.elapsed_s - start_s < STANDSTILL_S:
            return 0.0
        edges_s = [*self._starts_s[1:], math.inf]
        counted = [
            min(end_s, report.elapsed_s) - max(begin_s, start_s)
            for name, begin_s, end_s in zip(self._names, self._starts_s, edges_s, strict=True)
            if name not in TRANSIENT
        ]
        return sum(one for one in counted if one > 0)


def edge_after(at_s: float) -> float:
    """The first edge of a slice that is not before an instant."""
    return math.ceil(round(at_s / SLICE_S, 6)) * SLICE_S


def edge_before(at_s: float) -> float:
    """The last edge of a slice that is not after an instant."""
    return math.floor(round(at_s / SLICE_S, 6)) * SLICE_S


def _joined(index: int, parts: Iterable[TimeSlice | None]) -> TimeSlice:
    """Slices in one, wherever they lie in time."""
    whole = merge_slices(_moved(index, parts))
    return whole[0] if whole else TimeSlice(index)


def _moved(index: int, parts: Iterable[TimeSlice | None]) -> Iterator[list[TimeSlice]]:
    for one in parts:
        if one is not None:
            yield [replace(one, index=index)]
