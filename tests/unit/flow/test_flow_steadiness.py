"""A trial by itself is settled: measured once more where its load was not steady yet."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from harness import hdr
from harness.flow.options import RunSettings
from harness.flow.results import BegunTrial
from harness.flow.trial import TrialRunner, TrialWatch
from harness.study.objective import parse_objective
from harness.types import RESPONSE, Latencies, TimeSlice
from tests.samples import sample_trial_result

SLO = parse_objective("p95 < 50 ms")


class Scripted(TrialRunner):
    """Measures nothing: the first trial is unsteady as often as a test says, the others are not."""

    def __init__(self, unsteady):
        self.warned, self.kept, self.asked = [], [], []
        self._settings = RunSettings(warn=self.warned.append)
        self._folder = SimpleNamespace(journal=SimpleNamespace(add=self.kept.append))
        self._unsteady = unsteady

    def measure(self, trial, slo):
        self.asked.append(trial)
        needed_s = 2.5 if len(self.asked) <= self._unsteady else None
        return dataclasses.replace(
            sample_trial_result(), trial=trial, valid=needed_s is None, steadier_warmup_s=needed_s
        )


@pytest.mark.parametrize(("unsteady", "measured"), [(0, 1), (1, 2), (2, 2)])
def test_it_is_measured_twice_at_most_and_both_are_kept(unsteady, measured):
    runner, trial = Scripted(unsteady), sample_trial_result().trial
    result = runner.settle(trial, SLO)
    assert [one.trial for one in runner.kept] == runner.asked
    assert len(runner.asked) == measured
    assert result == runner.kept[-1]
    assert result.valid is (unsteady < 2)
    assert len(runner.warned) == measured - 1
    if measured == 2:
        assert "measured again after 2.5 s of warm-up" in runner.warned[0]
        assert result.trial.workload.min_warmup_s == 2.5


def test_no_window_opens_before_the_shortest_warm_up_however_steady_the_load_looks():
    trial = sample_trial_result().trial
    one = hdr.of_nanoseconds(np.full(20, 5_000_000))
    slices = [TimeSlice(index, ok=Latencies({RESPONSE: one})) for index in range(40)]

    def opened_after_s(least_s):
        workload = dataclasses.replace(trial.workload, min_warmup_s=least_s)
        begun = BegunTrial(dataclasses.replace(trial, workload=workload), "", "")
        watch = TrialWatch(begun, SLO, telemetry=None, slice_s=0.05)
        return next(n for n in range(1, 41) if watch.steady(slices[:n])) * 0.05

    assert opened_after_s(0.0) == pytest.approx(0.5)  # ten slices make a judgement
    assert opened_after_s(1.3) == pytest.approx(1.3)
