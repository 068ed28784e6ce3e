"""One load from its first request to its last: steady state, window, decision, drain.

The processes' reports are summed as they come in (`Collector`); `LoadDriver` opens and closes the
measured window by them.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from harness import hdr
from harness.load.engine.clock import MONOTONIC, Clock
from harness.load.engine.slices import SliceSums, dense
from harness.load.generators.attendance import Attendance, standstill_words, stood_still_s
from harness.load.generators.generator import Generator, take_answers
from harness.load.generators.messages import LoadEnded, LoadProgress, Measure, StopLoad
from harness.types import GeneratorHealth, LoadResult, TimeSlice, Workload
from harness.types.limits import CLOCK_ERROR_SLICES
from harness.words.numbers import asked, latency

LEAD_S = 0.05
"""Seconds between an order and the instant it names: time for it to reach every process here. To
those elsewhere it takes the round trip longer, with the answer's half in reserve."""
SLICE_S = 0.05
REPORT_EVERY_S = 0.1
GENERATORS_AT_THAT = 50
"""With more of them than that, reports are as much further apart: their sum costs the same."""
CHECK_EVERY_S = 1.0
_NS = 1_000_000_000


class TrialWatcher(Protocol):
    """Steers a load while it runs; the slices it is shown are complete, from the load's start."""

    def steady(self, slices: Sequence[TimeSlice]) -> bool:
        """Whether the warm-up may end."""

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        """Whether the measured slices show enough to end the trial."""

    def on_window_start(self) -> None:
        """The measured window opens now."""

    def on_window_end(self) -> None:
        """The measured window closes now, before the drain; not called after an error."""


class LoadDriver:
    """One load, driven once; `LoadGenerators.run` says what the arguments are."""

    def __init__(
        self,
        busy: Sequence[Generator],
        workload: Workload,
        watcher: TrialWatcher,
        check: Callable[[], None],
        listen: Callable[[int, LoadProgress], None],
        *,
        load: str = "",
        clock: Clock = MONOTONIC,
    ) -> None:
        self._busy = busy
        self._clock = clock
        self._workload = workload
        self._watcher = watcher
        self._check = check
        self._tell = listen
        self._slice_ns = int(SLICE_S * _NS)
        self._lead_ns = int(LEAD_S * _NS) + max(one.round_trip_ns for one in busy)
        self._start_ns = self._clock.now_ns() + self._lead_ns
        self._load = load
        names = {one.index: one.name for one in busy}
        self._every_s = REPORT_EVERY_S * max(1.0, len(busy) / GENERATORS_AT_THAT)
        self._collector = Collector(names, self._start_ns, self._slice_ns, load)
        self._measured: dict[int, LoadEnded] = {}
        self._next_check_ns = 0

    def drive(self, *, drain_s: float) -> LoadResult:
        """Warm up, measure, stop; then wait `drain_s` at most for the processes' last reports.

        Raises:
            GeneratorError: a process died, failed or missed its deadline.
        """
        workload = self._workload
        warmup_ns = _whole_slices(workload.warmup_s, self._slice_ns)
        longest_ns = max(self._slice_ns, _whole_slices(workload.duration_s, self._slice_ns))
        last_ns = self._start_ns + warmup_ns + longest_ns
        self._send(Measure(self._start_ns, self._slice_ns, last_ns, self._every_s))
        window_start_ns = self._wait_for_steady_state(self._start_ns + warmup_ns)
        self._listen(until_ns=window_start_ns)
        self._watcher.on_window_start()
        window_end_ns = self._wait_for_decision(window_start_ns, window_start_ns + longest_ns)
        self._send(StopLoad(window_end_ns))
        self._listen(until_ns=window_end_ns)
        self._watcher.on_window_end()
        self._drain(window_end_ns, drain_s)
        return self._result(window_start_ns, window_end_ns)

    def _wait_for_steady_state(self, latest_ns: int) -> int:
        """When the window opens: a slice's edge, at the latest the one given."""
        while self._clock.now_ns() + self._slice_ns < latest_ns:
            self._listen(until_ns=min(latest_ns, self._clock.now_ns() + self._slice_ns))
            if self._watcher.steady(self._collector.complete()):
                return min(latest_ns, self._next_edge(self._clock.now_ns()))
        return latest_ns

    def _wait_for_decision(self, window_start_ns: int, latest_ns: int) -> int:
        """When the window closes: a slice's edge, at the latest the one given."""
        shortest_s = self._workload.min_duration_s
        if shortest_s is None:
            self._listen(until_ns=latest_ns - self._lead_ns)
            return latest_ns
        self._listen(until_ns=min(latest_ns, window_start_ns + int(shortest_s * _NS)))
        first = (window_start_ns - self._start_ns) // self._slice_ns
        while self._clock.now_ns() + self._lead_ns < latest_ns:
            if self._watcher.decided(self._collector.complete()[first:]):
                return min(latest_ns, self._next_edge(self._clock.now_ns() + self._lead_ns))
            self._listen(until_ns=min(latest_ns, self._clock.now_ns() + self._slice_ns))
        return latest_ns

    def _next_edge(self, instant_ns: int) -> int:
        return self._start_ns + -(-(instant_ns - self._start_ns) // self._slice_ns) * self._slice_ns

    def _send(self, order: Measure | StopLoad) -> None:
        for process in self._busy:
            process.send(order)

    def _listen(self, *, until_ns: int) -> None:
        """Take in reports until an instant; a process that dies, and `check`, may end the load."""
        while (now_ns := self._clock.now_ns()) < until_ns:
            if now_ns >= self._next_check_ns:
                self._check()
                self._next_check_ns = now_ns + int(CHECK_EVERY_S * _NS)
            self._take(until_ns=min(until_ns, self._next_check_ns))

    def _take(self, *, until_ns: int) -> None:
        listening = [one for one in self._busy if one.index not in self._measured]
        if not listening:
            self._clock.sleep(max(0, until_ns - self._clock.now_ns()) / _NS)
            return
        for worker, answer in take_answers(listening, until_ns=until_ns):
            if isinstance(answer, LoadProgress):
                if self._collector.add(worker, answer):
                    self._tell(worker, answer)
            elif isinstance(answer, LoadEnded) and answer.load == self._load:
                self._measured[worker] = answer

    def _drain(self, window_end_ns: int, drain_s: float) -> None:
        deadline_ns = window_end_ns + int(drain_s * _NS)
        while missing := [one for one in self._busy if one.index not in self._measured]:
            if self._clock.now_ns() >= deadline_ns:
                raise missing[0].failure(
                    f"hangs: its load ended {asked(drain_s)} s ago, and not all of its requests "
                    "have"
                )
            self._take(until_ns=deadline_ns)

    def _result(self, window_start_ns: int, window_end_ns: int) -> LoadResult:
        problems = [one.records_problem for one in self._measured.values()]
        count = (window_end_ns - self._start_ns) // self._slice_ns
        return LoadResult(
            start_ns=self._start_ns,
            slice_s=self._slice_ns / _NS,
            slices=tuple(self._collector.until(count)),
            window_start_ns=window_start_ns,
            window_end_ns=window_end_ns,
            generators=self._collector.health(window_start_ns, window_end_ns),
            first_failure=self._collector.attendance.first_failure,
            records_problem=next(filter(None, problems), ""),
            troubles=(
                *self._collector.troubles(),
                *self._collector.standstills(window_start_ns, window_end_ns, self._every_s),
                *self._clocks_uncertain(),
            ),
        )

    def _clocks_uncertain(self) -> Iterator[str]:
        tolerated_ns = CLOCK_ERROR_SLICES * self._slice_ns
        for one in self._busy:
            if one.clock_error_ns > tolerated_ns:
                yield (
                    f"the clock of {one.name} is known to {latency(one.clock_error_ns / 1e6)} only "
                    f"({latency(tolerated_ns / 1e6)} are tolerated), so that its share is of "
                    "another stretch of time: give it a faster network to the master"
                )


def _whole_slices(seconds: float, slice_ns: int) -> int:
    return round(seconds * _NS / slice_ns) * slice_ns


class Collector:
    """Sums the slices of several processes, and keeps how each process fares.

    Args:
        names: of the processes that take part, by their indices.
        start_ns: of slice 0.
        slice_ns: length of a slice.
        load: its name.
    """

    def __init__(
        self, names: Mapping[int, str], start_ns: int, slice_ns: int, load: str = ""
    ) -> None:
        self._names = names
        self._start_ns, self._slice_ns = start_ns, slice_ns
        self._slices = SliceSums()
        self.attendance = Attendance(load)
        self._complete_before_ns = dict.fromkeys(names, start_ns)
        self._progress: dict[int, list[LoadProgress]] = defaultdict(list)

    def add(self, worker: int, progress: LoadProgress) -> bool:
        """Take in one report of a process; False where it is not to be counted."""
        if not self.attendance.take(self._names[worker], progress):
            return False
        self._slices.add(progress.slices)
        known_ns = self._complete_before_ns[worker]
        self._complete_before_ns[worker] = max(known_ns, progress.complete_before_ns)
        # The slices are kept once, in `_slices`: a long load would hold every one of them twice.
        kept = dataclasses.replace(progress, slices=(), first_failure="")
        self._progress[worker].append(kept)
        return True

    def troubles(self) -> list[str]:
        """Why what was summed is not all of the load, by the names of the processes."""
        return [one for name in self._names.values() for one in self.attendance.troubles(name)]

    def standstills(
        self, window_start_ns: int, window_end_ns: int, report_every_s: float = REPORT_EVERY_S
    ) -> Iterator[str]:
        """Which processes did nothing for too much of the window."""
        window_s = (window_end_ns - window_start_ns) / _NS
        for worker, reports in sorted(self._progress.items()):
            window = [(window_start_ns, window_end_ns)]
            still_s = sum(stood_still_s(one, report_every_s, window) for one in reports)
            yield from standstill_words(self._names[worker], still_s, window_s)

    def complete(self) -> list[TimeSlice]:
        """The slices of which every request has ended in every process, from slice 0 on.

        Slices that are still in flight would lack their slowest requests.
        """
        count = (min(self._complete_before_ns.values()) - self._start_ns) // self._slice_ns
        return self.until(count)

    def until(self, count: int) -> list[TimeSlice]:
        """The first so many slices, those without requests included."""
        return dense(self._slices.before(count), max(0, count))

    def health(self, window_start_ns: int, window_end_ns: int) -> tuple[GeneratorHealth, ...]:
        """How each process fared between two instants."""
        return tuple(
            _health_of(self._names[worker], reports, window_start_ns, window_end_ns)
            for worker, reports in sorted(self._progress.items())
        )


def _health_of(
    name: str, reports: Sequence[LoadProgress], window_start_ns: int, window_end_ns: int
) -> GeneratorHealth:
    """CPU between the reports nearest the window's edges, and the lag seen between them."""
    reports = sorted(reports, key=lambda one: one.number)
    first = max((at for at, one in enumerate(reports) if one.at_ns <= window_start_ns), default=0)
    last = min(
        (at for at, one in enumerate(reports) if one.at_ns >= window_end_ns),
        default=len(reports) - 1,
    )
    within = reports[first + 1 : last + 1]
    elapsed_s = (reports[last].at_ns - reports[first].at_ns) / 1e9
    return GeneratorHealth(
        cpu_cores=sum(one.cpu_s for one in within) / elapsed_s if elapsed_s > 0 else 0.0,
        loop_lag=hdr.merge(one.loop_lag for one in within),
        memory_bytes=reports[last].memory_bytes,
        name=name,
    )
