"""A trial by itself is settled: measured once more where its load was not steady yet."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from fake_server import LOGITS, right_answer
from load_rig import make_payloads

from harness import hdr
from harness.errors import ServerError
from harness.flow.options import RunSettings
from harness.flow.results import BegunTrial
from harness.flow.serving import Site
from harness.flow.trial import TrialRunner
from harness.flow.trial_watch import TrialWatch
from harness.runs.folder import RunFolder
from harness.serving.endpoint import Endpoint
from harness.study.objective import parse_objective
from harness.types import (
    RESPONSE,
    SCHEDULE_DELAY,
    SERVICE,
    Latencies,
    LoadResult,
    ServingConfig,
    TimeSlice,
    Trial,
    WireProtocol,
    Workload,
)
from tests.samples import sample_trial_result, sample_variant

SLO = parse_objective("p95 < 50 ms")


class Scripted(TrialRunner):
    """Measures nothing: the first trial is unsteady as often as a test says, the others are not."""

    def __init__(self, unsteady):
        self.warned, self.kept, self.asked = [], [], []
        self._settings = RunSettings(warn=self.warned.append)
        self._folder = SimpleNamespace(journal=SimpleNamespace(add=self.kept.append, trials={}))
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


SLICE_S = 0.05


def no_statistics(model):
    raise ServerError(f"{model}: no statistics here")


class WarmingServer:
    """As load generators see it, in made-up time: each request takes 80 ms for so long, then 4."""

    pids = ()

    def __init__(self, slow_s):
        self.slow_s = slow_s
        """From the first load on."""
        self.loads = []

    def run(self, job, watch, *, check, listen):
        workload, slices, window_from = job.workload, [], 0
        lasts = round(workload.duration_s / SLICE_S)
        while not window_from or len(slices) < window_from + lasts:
            slices.append(self.slice_of(len(slices), workload.concurrency))
            late = len(slices) >= round(workload.warmup_s / SLICE_S)
            if not window_from and (late or watch.steady(slices)):
                window_from = len(slices)
                watch.on_window_start()
        watch.on_window_end()
        ends_ns = [round(one * SLICE_S * 1e9) for one in (window_from, len(slices))]
        self.loads.append(LoadResult(0, SLICE_S, tuple(slices), *ends_ns, ()))
        return self.loads[-1]

    def slice_of(self, index, slots):
        slow = not self.loads and index * SLICE_S < self.slow_s
        took_ns = 80_000_000 if slow else 4_000_000
        count = max(1, math.floor(slots * SLICE_S * 1e9 / took_ns))
        took = hdr.of_nanoseconds(np.full(count, took_ns))
        at_once = hdr.of_nanoseconds(np.full(count, 1_000))
        spans = {SCHEDULE_DELAY: at_once, SERVICE: took, RESPONSE: took}
        return TimeSlice(index, ok=Latencies(spans), completed=count, inferences=count)


def test_a_load_whose_server_was_still_warming_is_measured_again_after_what_it_needed(tmp_path):
    """It is slow for its first second and a half, and has a warm-up of 0.3 s."""
    warned, generators = [], WarmingServer(slow_s=1.5)
    workload = Workload(WireProtocol.HTTP, 2, 4, duration_s=3.0, warmup_s=0.3, seed=5)
    trial = Trial("m", "numbers", ServingConfig(), workload)
    endpoint = Endpoint("127.0.0.1:9", "127.0.0.1:9", "")
    server = SimpleNamespace(check=lambda: None, pid=None, endpoint=endpoint)
    client = SimpleNamespace(
        infer=lambda model, inputs: right_answer(inputs), statistics=no_statistics
    )
    with RunFolder.create(tmp_path / "run", {}) as folder:
        runner = TrialRunner(
            Site(server, client, None),
            generators,
            folder,
            variants={"m": dataclasses.replace(sample_variant("m"), outputs=(LOGITS,))},
            payloads={"m": make_payloads(tmp_path)},
            settings=RunSettings(warn=warned.append),
        )
        result = runner.settle(trial, parse_objective("p50 < 5 s"))
        first, second = folder.journal.trials.values()
    assert second == result
    assert first.trial == trial
    assert "not steady yet when the window opened" in first.invalid_reason
    assert first.warmup_s == pytest.approx(0.3)
    # It was slow for 1.2 s of its window: twice that is added.
    assert first.steadier_warmup_s == pytest.approx(2.7, abs=2 * SLICE_S)
    assert second.trial.trial_id.startswith(f"{trial.trial_id}-r")
    assert second.warmup_s >= first.steadier_warmup_s - 1e-9
    assert "not steady" not in second.invalid_reason
    assert [one for one in warned if "is measured again after" in one]
