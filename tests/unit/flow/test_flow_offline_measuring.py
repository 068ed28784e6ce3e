"""`harness batch --measure` without a server: what is asked of it, kept, and gone on with."""

import dataclasses
import json
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from offline_samples import base_trial, made_up_result

from harness.errors import RunFolderError
from harness.flow.offline import measuring
from harness.flow.offline.job import BatchQuestion, plan_batch
from harness.flow.options import RunSettings
from harness.planning.cost.catalogue import read_catalogue
from harness.runs.folder import RunFolder, read_run, study_digest
from harness.study.file import parse_study
from harness.types import BATCHES, Role
from harness.types.estimates import Interval
from harness.types.offline import BatchCurve, BatchPoint, CurveSource, OfflineTerms
from tests.samples import sample_variant

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
}
RATES = {"big-fp32": 50.0, "small-fp32": 100.0}
INSIDE = BatchCurve(
    CurveSource.PROCESS, (BatchPoint(1, Interval(70.0, 69.0, 71.0)),), 0.1, 1, "levels off"
)


def variant(name, role):
    return dataclasses.replace(sample_variant(), name=name, family="topics", role=role)


VARIANTS = (variant("big-fp32", Role.TEACHER), variant("small-fp32", Role.STUDENT))


class Scripted:
    """Settles trials as a runner does; `levels_off` is where throughput no longer grows."""

    def __init__(self, folder, interrupted_at):
        self._folder = folder
        self._interrupted_at = interrupted_at
        self.measured = []

    def settle(self, trial, slo):
        assert slo.text == "p95 < 50 ms"
        known = self._folder.journal.trials.get(trial.trial_id)
        if known is not None:
            return known
        if len(self.measured) == self._interrupted_at:
            raise KeyboardInterrupt
        self.measured.append(trial)
        rate = RATES[trial.variant] * min(4, trial.workload.client_batch_size)
        made = dataclasses.replace(made_up_result(trial, rate), sha256=VARIANTS[0].sha256)
        self._folder.journal.add(made)
        return made


@pytest.fixture
def folder(tmp_path):
    study = parse_study(STUDY, source="test")
    manifest = {
        "schema_version": 1,
        "study": study.model_dump(mode="json"),
        "study_digest": study_digest(study),
    }
    made = RunFolder.create(tmp_path / "run", manifest)
    with made:
        for one in (*VARIANTS, made_up_result(base_trial("small-fp32"), 300.0)):
            made.journal.add(one)
    return tmp_path / "run"


def ask(folder, monkeypatch, *, interrupted_at=10**6, variants=VARIANTS, measure=True):
    """Ask for a job, with everything heavy left out; the runner, and the answer."""
    runners = []
    study = parse_study(STUDY, source="test")
    family = SimpleNamespace(family=study.families[0], failures={}, variants=variants)

    @contextmanager
    def served(*_, **__):
        yield None

    @contextmanager
    def trial_runner(study, served, kept, settings):
        runners.append(Scripted(kept, interrupted_at))
        yield runners[-1]

    monkeypatch.setattr(measuring, "ensure_server_environment", lambda _: None)
    monkeypatch.setattr(measuring, "prepare", lambda *_, **__: (family,))
    monkeypatch.setattr(measuring, "serve", served)
    monkeypatch.setattr(measuring, "trial_runner", trial_runner)
    monkeypatch.setattr(measuring, "_in_process", lambda *_: {"small-fp32": INSIDE})
    today = datetime.now(UTC).date()
    terms = OfflineTerms(1_000_000, 3600.0, start_s=0.0)
    question = BatchQuestion(terms, read_catalogue(today=today), today)
    try:
        plan, _ = plan_batch(folder, question, RunSettings(), measure=measure)
    except KeyboardInterrupt:
        return runners[-1] if runners else None, None
    return runners[-1] if runners else None, plan


def of(plan, name):
    return next(one for one in plan.variants if one.variant == name)


def test_both_are_walked_up_and_the_batch_of_diminishing_returns_is_taken(folder, monkeypatch):
    runner, plan = ask(folder, monkeypatch)
    student, teacher = of(plan, "small-fp32"), of(plan, "big-fp32")
    assert (student.served.source, student.served.knee, student.batch_size) == (
        CurveSource.WALK, 4, 4,
    )  # fmt: skip
    assert student.inferences_per_s.value == pytest.approx(400.0)
    assert teacher.inferences_per_s.value == pytest.approx(200.0)
    assert student.in_process == INSIDE
    assert teacher.in_process is None
    # 1M at 400/s are 2,500 s
    assert student.needs[0].even.value == 1
    run = read_run(folder)
    assert {one.trial.stage for one in run.batches} == {BATCHES}
    assert len(run.batches) == len(runner.measured)
    assert "batch" in (folder / "trials.csv").read_text()
    # The student's walk has the serving of its own best trial: two instances.
    small = next(one for one in runner.measured if one.variant == "small-fp32")
    assert small.serving.instance_count == 2


def test_what_was_measured_stays(folder, monkeypatch):
    _, first = ask(folder, monkeypatch)
    again, plan = ask(folder, monkeypatch)
    assert again.measured == []
    assert plan == first
    _, stored = ask(folder, monkeypatch, measure=False)
    assert stored == first


def test_an_interrupted_walk_is_gone_on_with(folder, monkeypatch):
    runner, plan = ask(folder, monkeypatch, interrupted_at=7)
    assert plan is None
    assert len(runner.measured) == 7
    rest, plan = ask(folder, monkeypatch)
    assert not {one.trial_id for one in runner.measured} & {one.trial_id for one in rest.measured}
    assert of(plan, "small-fp32").served.knee == 4


def test_another_file_than_the_runs_is_refused(folder, monkeypatch):
    other = dataclasses.replace(VARIANTS[1], sha256="cd" * 32)
    with pytest.raises(RunFolderError, match="small-fp32 is another file than"):
        ask(folder, monkeypatch, variants=(VARIANTS[0], other))
    assert not (folder / "batch.json").exists()


def test_batches_are_not_measured_on_another_machine_than_the_run(folder, monkeypatch):
    manifest = folder / "manifest.json"
    told = json.loads(manifest.read_text()) | {"environment": {"cpu": "another"}}
    manifest.write_text(json.dumps(told))
    with pytest.raises(RunFolderError, match="another machine: processor another then") as refused:
        ask(folder, monkeypatch)
    assert "do this on that machine" in refused.value.next_step
    assert not read_run(folder).batches
