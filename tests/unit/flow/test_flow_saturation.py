"""The open loops after the verdicts: each in the journal, and only what is missing is measured."""

import dataclasses
from types import SimpleNamespace

import pytest

from harness.flow.options import RunSettings
from harness.flow.saturation import measure_saturation
from harness.flow.trial import TrialRunner
from harness.runs.folder import RunFolder, read_run
from harness.study.file import parse_study
from harness.types import SATURATION, Decision, Verdict
from tests.samples import sample_trial_result

STUDY = {
    "name": "topics",
    "objective": "p95 < 50 ms",
    "families": [
        {
            "name": "topics",
            "task": {
                "kind": "sequence-classification",
                "data": {"source": "reference", "name": "topics"},
                "max_length": 32,
            },
            "models": [
                {"name": "big", "role": "teacher", "checkpoint": "reference:topics-teacher"},
                {"name": "small", "role": "student", "checkpoint": "reference:topics-student"},
            ],
        }
    ],
    "traffic": {"saturation_shares": [0.25, 0.5], "saturation_duration_s": 1.5},
}
DIGEST = "ab" * 32


class Scripted(TrialRunner):
    """Measures nothing, and is interrupted where a test says."""

    def __init__(self, folder, interrupted_at=99, spoilt=()):
        self._folder, self._settings = folder, RunSettings()
        self._interrupted_at, self._spoilt = interrupted_at, spoilt
        self.asked = []

    def sha256(self, trial):
        return DIGEST

    def measure(self, trial, slo):
        if len(self.asked) == self._interrupted_at:
            raise KeyboardInterrupt
        self.asked.append(trial)
        valid = len(self.asked) - 1 not in self._spoilt
        return dataclasses.replace(made(trial), valid=valid, invalid_reason="woke late")


def made(trial):
    return dataclasses.replace(
        sample_trial_result(), trial=trial, sha256=DIGEST, valid=True, steadier_warmup_s=None
    )


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", {"schema_version": 1, "study": {}})


def after(folder, runner):
    """Measure what follows a verdict for `small-fp32`."""
    trial = dataclasses.replace(sample_trial_result().trial, family="topics", stage="confirm")
    for name in ("big-fp32", "small-fp32"):
        folder.journal.add(made(dataclasses.replace(trial, variant=name)))
    winner = dataclasses.replace(trial, variant="small-fp32")
    study = parse_study(STUDY, source="test")
    prepared = SimpleNamespace(
        family=study.families[0],
        variants=[SimpleNamespace(name=name) for name in ("big-fp32", "small-fp32")],
    )
    verdict = Verdict("topics", "", Decision.PASS, winner.trial_id, "", ())
    measure_saturation(study, [prepared], [verdict], runner, folder, RunSettings())


def test_what_came_out_invalid_is_measured_once_more_and_the_last_is_shown(folder):
    """The first is spoilt once, the one after it (asked third) both times."""
    runner = Scripted(folder, spoilt={0, 2, 3})
    after(folder, runner)
    assert [one.repeat for one in runner.asked] == [0, 2, 0, 2, 0, 0]
    assert runner.asked[1] == dataclasses.replace(runner.asked[0], repeat=2)
    run = read_run(folder.path)
    assert len(run.saturation) == 6
    again = Scripted(folder)
    after(folder, again)
    assert again.asked == []


def test_each_is_in_the_journal_and_apart_from_the_searchs_trials(folder):
    runner = Scripted(folder)
    after(folder, runner)
    run = read_run(folder.path)
    assert [one.trial for one in run.saturation] == runner.asked
    assert [one.variant for one in runner.asked] == ["small-fp32"] * 2 + ["big-fp32"] * 2
    assert {one.workload.duration_s for one in runner.asked} == {1.5}
    found = sample_trial_result().throughput_requests_per_s
    assert runner.asked[1].workload.rate_per_s == pytest.approx(0.5 * found, rel=0.005)
    assert len(run.trials) == 2
    assert all(one.trial.stage != SATURATION for one in run.trials)
    assert run.every_trial == (*run.trials, *run.saturation)


def test_an_interruption_loses_none_and_a_resumed_run_measures_only_the_rest(folder):
    with pytest.raises(KeyboardInterrupt):
        after(folder, Scripted(folder, interrupted_at=3))
    assert len(read_run(folder.path).saturation) == 3
    rest = Scripted(folder)
    after(folder, rest)
    assert len(rest.asked) == 1
    assert len(read_run(folder.path).saturation) == 4
