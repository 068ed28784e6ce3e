"""What watches a trial's load: when its window opens, when it is decided, when it is hopeless."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.steady_state import LookSchedule, seconds_needed, steady_from
from harness.flow.results import (
    BegunTrial,
    assess_trial,
    client_side,
)
from harness.planning.assessment import Assessment
from harness.planning.routing.deployed import ROUTER_STAGE
from harness.study.clauses import request_bounds
from harness.telemetry.readings import ServerReadings
from harness.types import (
    CONFIRM,
    Decision,
    ServiceLevelObjective,
    TimeSlice,
)

HOPELESS = 2.0
"""Times its limit that a trial must be predicted to need, to be given up before it."""
FIRST_HOPELESS_LOOK = 2
"""The first look's forecast rests on half a second."""
_PATIENT = frozenset({CONFIRM, ROUTER_STAGE, "load"})
"""Stages whose trials are not given up: the last is `harness load`'s."""


class TrialWatch:
    """A `TrialWatcher` that ends a trial as soon as its objective is decided, either way.

    Every look at the data is a chance to be misled, so each is judged at the confidence that the
    schedule gives it; between looks nothing is judged.

    Args:
        begun: which trial it is.
        slo: the objective.
        telemetry: reads the server's side at the window's edges.
        slice_s: length of a slice.
    """

    def __init__(
        self,
        begun: BegunTrial,
        slo: ServiceLevelObjective,
        telemetry: ServerReadings,
        slice_s: float,
    ) -> None:
        workload = begun.trial.workload
        self._begun = begun
        self._slo = slo
        self._telemetry = telemetry
        self._slice_s = slice_s
        self._longest_s = workload.duration_s
        self._schedule = LookSchedule(
            workload.min_duration_s or workload.duration_s, workload.duration_s
        )
        self._looks_taken = 0
        self.shown: Sequence[TimeSlice] = ()
        """The slices that ended the trial, where a look did."""

    @property
    def confidence(self) -> float:
        """Confidence of every interval: what the schedule of looks leaves for each."""
        return self._schedule.confidence_per_look

    def steady(self, slices: Sequence[TimeSlice]) -> bool:
        """Whether the warm-up has passed."""
        if len(slices) * self._slice_s < self._begun.trial.workload.min_warmup_s:
            return False
        return steady_from(slices) is not None

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        """Whether the objective is decided, asked only when a look is due."""
        looks = self._schedule.looks
        if self._looks_taken >= len(looks):
            return False
        if len(window) * self._slice_s < looks[self._looks_taken]:
            return False
        self._looks_taken += 1
        workload = self._begun.trial.workload
        clients = client_side(
            window,
            self._slice_s,
            workload,
            self.confidence,
            only_judged=True,
            bounds=request_bounds(self._slo),
        )
        assessment = assess_trial(self._begun, self._slo, clients)
        if assessment.decision in {Decision.PASS, Decision.FAIL} or self._is_hopeless(assessment):
            self.shown = tuple(window)
        return bool(self.shown)

    def _is_hopeless(self, assessment: Assessment) -> bool:
        """Whether a trial of the search would not be decided at its limit either, by far.

        It ends undecided, sooner: that errs neither way. Who asked for one trial, or for the
        winner's confirmation, gets all of its time.
        """
        if self._looks_taken < FIRST_HOPELESS_LOOK or self._begun.trial.stage in _PATIENT:
            return False
        needed_s = (
            seconds_needed(assessment.result.duration_s, finding.evidence_factor)
            for finding in assessment.findings
            if finding.decision is Decision.UNDECIDED
        )
        return any(one is not None and one > HOPELESS * self._longest_s for one in needed_s)

    def on_window_start(self) -> None:
        """Read the server's counters at the start of the window."""
        self._telemetry.open()

    def on_window_end(self) -> None:
        """Read the server's counters at the end of the window."""
        self._telemetry.close()
