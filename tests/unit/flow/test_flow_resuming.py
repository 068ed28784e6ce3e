"""A run is gone on with on the machine that it was measured on, and refused before it changes."""

from types import SimpleNamespace

import pytest

from harness.errors import RunFolderError
from harness.flow.manifest import check_machine
from harness.flow.options import RunSettings
from harness.flow.router import _held
from harness.flow.run import _write_down, run_study
from harness.runs.folder import JOURNAL, RunFolder, study_digest
from harness.runs.journal import Journal
from harness.study.file import parse_study
from tests.samples import sample_study, sample_trial_result, sample_variant

HERE = {"instance": "", "cpu": "a Xeon", "usable_cores": 2, "gpus": [], "cores": 4}


@pytest.fixture
def study():
    return parse_study(sample_study(), source="study")


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", {"schema_version": 1, "artefacts": {}})


@pytest.fixture
def moved(monkeypatch, folder, study):
    """A run of one machine with a trial, looked at from another."""

    def look(from_machine, measured=True, **first):
        manifest = {"schema_version": 1, "study_digest": study_digest(study), "artefacts": {}}
        folder.write_manifest({**manifest, "environment": {**HERE, **first}})
        if measured:
            folder.journal.add(sample_trial_result())
        monkeypatch.setattr("harness.flow.manifest.describe_machine", lambda: from_machine)
        return folder

    return look


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"cpu": "an EPYC"}, "processor a Xeon then, an EPYC now"),
        ({"usable_cores": 8, "cores": 8}, "usable cores 2 then, 8 now"),
        ({"gpus": ["H200", "H200"]}, "GPUs none then, H200, H200 now"),
    ],
)
def test_a_run_is_not_gone_on_with_on_another_machine(moved, other, told):
    run = moved({**HERE, **other})
    with pytest.raises(RunFolderError) as refused:
        check_machine(run)
    assert f"measured on another machine: {told}" in str(refused.value)
    assert "start a new run without --resume" in refused.value.next_step


def test_instance_types_are_compared_where_both_are_known(moved):
    check_machine(moved({**HERE, "instance": "c7i.large"}))
    check_machine(moved(HERE, instance="c7i.large"))
    run = moved({**HERE, "instance": "c7i.large"}, instance="m7i.large")
    with pytest.raises(RunFolderError, match=r"instance type m7i\.large then, c7i\.large now"):
        check_machine(run)


def test_what_timed_nothing_yet_may_go_on_anywhere(moved):
    check_machine(moved({**HERE, "cpu": "an EPYC"}, measured=False))


def test_a_manifest_of_before_it_told_of_its_machine_is_gone_on_with(folder, monkeypatch):
    folder.journal.add(sample_trial_result())
    check_machine(folder)
    folder.write_manifest({"schema_version": 1, "environment": {"cpu": "a Xeon"}})
    monkeypatch.setattr("harness.flow.manifest.describe_machine", lambda: HERE)
    check_machine(folder)


def test_a_run_of_another_machine_is_refused_before_anything_is_prepared(moved, study):
    run = moved({**HERE, "cpu": "an EPYC"})
    with pytest.raises(RunFolderError, match="another machine"):
        run_study(study, run, RunSettings())


def test_a_router_is_not_measured_on_another_machine_than_its_models(moved, study):
    run = moved({**HERE, "cpu": "an EPYC"})
    with pytest.raises(RunFolderError, match="another machine") as refused:
        _held(run.path, study)
    assert refused.value.next_step.startswith("do this on that machine, or run the study")


def test_of_a_run_that_is_refused_the_journal_stays_as_it_was(folder, study, monkeypatch):
    """Its trials belong to the artefacts that it names."""

    def other_data(*_):
        raise RunFolderError("other data", next_step="start a new run")

    monkeypatch.setattr("harness.flow.run.describe_run", other_data)
    family = SimpleNamespace(served=(sample_variant(),), failed=())
    with pytest.raises(RunFolderError):
        _write_down(study, folder, [family], {}, RunSettings())
    assert not Journal.read(folder.path / JOURNAL).variants
