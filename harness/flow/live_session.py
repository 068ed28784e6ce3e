"""A live run while it goes: its load is counted, its replicas are scaled, its state is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from harness.hdr import highest_value_us, integers, total
from harness.load.generators.driver import SLICE_S
from harness.planning.autoscaling.rules import FleetReading
from harness.planning.autoscaling.scaler import HorizontalScaler
from harness.runs.documents import rewrite_document
from harness.serving.replicas.replica_set import ReplicaSet
from harness.telemetry.fleet import FleetHistory, ReplicaCounters
from harness.telemetry.triton import scrape
from harness.types import Progress, TimeSlice
from harness.types.autoscaling import LiveState, LiveStep


class _Counted(NamedTuple):
    """What is counted of a load so far: exchanged as one, because two threads know it."""

    requests: int
    in_time: int
    failed: int
    slices: int = 0
    """Of the window, that are in these numbers."""


@dataclass
class LiveSession:
    """A load that is watched, and the replicas that are scaled under it."""

    state: LiveState
    path: Path
    replicas: ReplicaSet
    in_flight: Callable[[], int]
    """Requests at the balancer that are not answered."""
    offset_s: float
    """When, in the trace, this session's first request falls due: its load's slice 0 begins."""
    progress: Callable[[Progress], None]
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _error: BaseException | None = None
    _began_s: float = 0.0

    def __post_init__(self) -> None:
        last = self.state.steps[-1] if self.state.steps else LiveStep(0.0, 0, 0, 0, 0, 0)
        self._before = self._counted = _Counted(last.requests, last.in_time, last.failed)
        self._known_starts = self.state.start_times_s

    def steady(self, _slices: Sequence[TimeSlice]) -> bool:
        """Never asked: without a warm-up the window opens with the load, and everything counts."""
        return True

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        """Count what is new; the load ends with the trace alone."""
        counted = self._counted
        self._counted = self._with(counted, window[counted.slices :])
        return False

    def on_window_start(self) -> None:
        """Begin to scale; of a run that is not gone on with, note the number it begins with."""
        self._began_s = time.monotonic()
        if not self.state.steps:
            self._record(0.0)
        self._thread = threading.Thread(target=self._scale, name="scaler", daemon=True)
        self._thread.start()

    def on_window_end(self) -> None:
        """Note that the trace is over."""

    def check(self) -> None:
        """Raise what a replica or the scaler ended with."""
        self.replicas.check()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End scaling, and wait until it has."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def count_rest(self, slices: Sequence[TimeSlice]) -> None:
        """Count the whole load anew, now that every request has ended."""
        self._counted = self._with(self._before, slices)
        self._record(self.offset_s + time.monotonic() - self._began_s)

    def finished(self) -> LiveState:
        """The state, written as one that is not gone on with."""
        self.state = replace(self.state, finished=True)
        rewrite_document(self.path, self.state)
        return self.state

    def _with(self, counted: _Counted, slices: Sequence[TimeSlice]) -> _Counted:
        requests, in_time, failed, _ = counted
        for one in slices:
            answered, lost = total(one.ok.response), sum(one.failures.values()) + one.dropped
            buckets = integers(one.ok.response.buckets)
            within = highest_value_us(buckets) <= 1e3 * self.state.plan.bound_ms
            in_time += int(integers(one.ok.response.counts)[within].sum())
            requests += answered + lost
            failed += lost
        return _Counted(requests, in_time, failed, counted.slices + len(slices))

    def _scale(self) -> None:
        plan = self.state.plan
        terms, model = plan.terms, plan.variant
        scaler = HorizontalScaler(self.state.policy, terms.limits)
        history = FleetHistory(terms.window_s)
        next_decision_s = terms.sync_s
        try:
            while not self._ended.wait(terms.scrape_s):
                now_s = time.monotonic() - self._began_s
                history.add(now_s, self._scraped(model))
                if now_s >= next_decision_s:
                    next_decision_s += terms.sync_s
                    self._decide(scaler, history, now_s)
        except BaseException as error:  # noqa: BLE001  (raised by `check`, in the caller's thread)
            self._error = error

    def _scraped(self, model: str) -> dict[str, ReplicaCounters]:
        pages = {one.address: scrape(one.metrics) for one in self.replicas.running}
        return {name: ReplicaCounters.of_page(page, model) for name, page in pages.items() if page}

    def _decide(self, scaler: HorizontalScaler, history: FleetHistory, now_s: float) -> None:
        seen = history.rates()
        at_s = self.offset_s + now_s
        reading = FleetReading(
            time_s=at_s,
            replicas=self.replicas.ordered,
            ready=len(self.replicas.running),
            completed_per_s=seen.completed_per_s,
            waiting=seen.waiting_of(self.in_flight()),
            executing=seen.executing,
            queue_ms=seen.queue_ms,
        )
        self.replicas.resize(scaler.decide(reading))
        self._record(at_s)
        length = self.state.length_s
        self.progress(
            Progress("scaling", min(round(at_s), round(length)), round(length),
                     f"{len(self.replicas.running)} of {self.replicas.ordered} replicas")
        )  # fmt: skip

    def _record(self, at_s: float) -> None:
        counted = self._counted
        step = LiveStep(
            at_s,
            self.replicas.ordered,
            len(self.replicas.running),
            counted.requests,
            counted.in_time,
            counted.failed,
            self.offset_s + counted.slices * SLICE_S,
        )
        self.state = replace(
            self.state,
            steps=(*self.state.steps, step),
            start_times_s=(*self._known_starts, *self.replicas.start_times_s),
        )
        rewrite_document(self.path, self.state)
