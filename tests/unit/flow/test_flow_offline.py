"""Batch sizes doubled through a server: a made-up one whose throughput levels off at batch 8."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from offline_samples import base_trial, made_up_result

from harness.flow.offline.job import curves_of
from harness.flow.offline.measuring import _walk, curve_in_process
from harness.flow.offline.walk import BatchWalk, NotMeasuredError, walk_up
from harness.profiling.scaling import growth_of
from harness.runs.folder import RunFolder, read_run
from harness.types import BATCHES, Role
from harness.types.card import RepeatedMeasure, Runtime
from harness.types.offline import CurveSource
from harness.types.profiles import Scaling, ScalingStep
from tests.samples import sample_variant


class MadeUpServer:
    """Gives trials; `levels_off` is the batch from which throughput no longer grows."""

    def __init__(self, levels_off=8, noise=0.01, spoiled=()):
        self.asked = []
        self._levels_off = levels_off
        self._noise = noise
        self._generator = np.random.default_rng(5)
        self._spoiled = set(spoiled)

    def take(self, trial):
        self.asked.append(trial)
        batch = trial.workload.client_batch_size
        rate = 100.0 * min(batch, self._levels_off)
        rate *= float(np.exp(self._noise * self._generator.standard_normal()))
        return made_up_result(trial, rate, invalid="no CPU" if batch in self._spoiled else "")


def test_the_knee_is_found_and_each_batch_has_its_rate():
    server = MadeUpServer()
    curve = walk_up(base_trial(), server.take, 0.1)
    assert (curve.source, curve.knee) == (CurveSource.WALK, 8)
    assert curve.ended == "doubling brings less than 10%, with confidence"
    assert [one.batch_size for one in curve.points] == [1, 2, 4, 8, 16]
    assert curve.at(8).inferences_per_s.value == pytest.approx(800.0, rel=0.02)
    assert curve.at(4).growth.value == pytest.approx(1.0, abs=0.05)
    # 3 rounds a step; 1 and 16 are in one step, the others in two
    assert [one.trials for one in curve.points] == [3, 6, 6, 6, 3]


def test_trials_have_a_stage_and_names_of_their_own():
    server = MadeUpServer()
    walk_up(base_trial(), server.take, 0.1)
    names = [one.trial_id for one in server.asked]
    assert len(set(names)) == len(names)
    assert all(one.stage == BATCHES and "-batch" in one.trial_id for one in server.asked)
    assert not any(one.after_longer_warm_up for one in server.asked)
    for one in server.asked:
        assert one.serving.max_batch_size == one.workload.client_batch_size
        assert one.workload.concurrency == 2 * one.serving.instance_count
        assert not one.serving.response_cache


def test_windows_hold_enough_requests():
    """Of batch 64 at 100 inferences/s one request takes 0.64 s: 20 of its double are 25.6 s."""
    walked = BatchWalk(base_trial(), lambda trial: made_up_result(trial, 100.0))
    walked.rates(1, 2)
    walked.found[64] = walked.found[1]
    assert walked.trial(64, 128, 0).workload.duration_s == pytest.approx(25.6)
    assert walked.trial(1, 2, 0).workload.duration_s == 2.0


def test_a_pair_with_an_invalid_trial_is_taken_again_and_three_end_the_walk():
    server = MadeUpServer(spoiled=[4])
    curve = walk_up(base_trial(), server.take, 0.1)
    assert (curve.knee, curve.ended) == (None, "trials at batch 4 are invalid: no CPU")
    assert [one.batch_size for one in curve.points] == [1, 2]
    assert sum(one.workload.client_batch_size == 4 for one in server.asked) == 3
    tries = iter(["no CPU", "", "", ""])

    def take(trial):
        return made_up_result(trial, 100.0, invalid=next(tries))

    assert BatchWalk(base_trial(), take).rates(1, 2) == (100.0, 100.0)
    assert next(tries, None) is None


@pytest.mark.parametrize("valid", [False, True])
def test_a_walk_that_measured_nothing_is_said(valid):
    """Else the answer would be that of the search, as if nobody had asked to measure."""
    warnings = []
    settings = SimpleNamespace(progress=lambda _: None, warn=warnings.append)

    def settle(trial, _):
        result = made_up_result(trial, 1000.0)
        return dataclasses.replace(
            result, valid=valid, invalid_reason="" if valid else "it stalled"
        )

    _walk(SimpleNamespace(settle=settle), None, base_trial(), 0.1, set(), settings)
    assert [("other trials: it stalled" in one) for one in warnings] == ([] if valid else [True])


def test_pairs_that_were_spoiled_before_do_not_end_a_later_walk():
    server = MadeUpServer(spoiled=[1])
    stored = {}

    def measured(trial):
        found = stored.get(trial.trial_id) or server.take(trial)
        stored[trial.trial_id] = found
        return found

    assert walk_up(base_trial(), measured, 0.1).ended == "trials at batch 1 are invalid: no CPU"
    server = MadeUpServer()
    assert walk_up(base_trial(), measured, 0.1, known=set(stored)).knee == 8
    # Read again, the spoiled pairs are passed over.
    again = walk_up(base_trial(), lambda one: stored.get(one.trial_id), 0.1, known=set(stored))
    assert again.knee == 8


def test_what_was_measured_is_read_again_without_a_server():
    server = MadeUpServer()
    stored = {}

    def measured(trial):
        stored[trial.trial_id] = server.take(trial)
        return stored[trial.trial_id]

    def kept(trial):
        return stored.get(trial.trial_id)

    first = walk_up(base_trial(), measured, 0.1)
    assert walk_up(base_trial(), kept, 0.1) == first
    del stored[next(reversed(stored))]
    short = walk_up(base_trial(), kept, 0.1)
    assert short.knee is None
    assert short.ended == "the walk was cut short: --measure goes on with it"
    assert walk_up(base_trial(), lambda _: None, 0.1) is None


def test_nothing_stored_is_told():
    with pytest.raises(NotMeasuredError):
        BatchWalk(base_trial(), lambda _: None).rates(1, 2)


def test_a_run_folder_keeps_the_walk_apart_from_the_search(tmp_path):
    made = RunFolder.create(tmp_path / "run", {"schema_version": 1, "study": {"name": "s"}})
    variant = dataclasses.replace(sample_variant(), name="student", role=Role.STUDENT)
    searched = made_up_result(base_trial(), 300.0)
    with made:
        made.journal.add(variant)
        made.journal.add(searched)

        def measured(trial):
            found = dataclasses.replace(server.take(trial), sha256=variant.sha256)
            made.journal.add(found)
            return found

        server = MadeUpServer()
        expected = walk_up(base_trial(), measured, 0.1)
    run = read_run(tmp_path / "run")
    assert [one.trial.trial_id for one in run.trials] == [searched.trial.trial_id]
    assert len(run.batches) == len(server.asked)
    assert len(run.every_trial) == len(run.batches) + 1
    assert curves_of(run, {}, 0.1)["student"].walked == expected


def test_a_walk_in_process_is_a_curve():
    growth = growth_of([(100.0, 150.0)] * 6, 0.95)
    steps = (
        ScalingStep(1, RepeatedMeasure(100.0, 99.0, 101.0)),
        ScalingStep(
            2, RepeatedMeasure(150.0, 149.0, 151.0), growth.value, growth.low, growth.high, 6
        ),
    )
    curve = curve_in_process(Scaling(Runtime.ONNX_RUNTIME, 32, 0.1, steps, None, "why"))
    assert curve.source.in_process
    assert curve.at(2).growth.value == pytest.approx(0.5)
    assert curve.at(2).inferences_per_s.high == 151.0
