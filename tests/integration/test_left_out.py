"""A variant that cannot be made or served does not end the study: the others are judged."""

import json

import pytest
import yaml

import harness.export.variants
import harness.flow.serving
from harness.cli.main import run_command
from harness.errors import ParityError
from harness.runs.folder import read_run
from tests.local_study import write_local_study

REASON = "it differs by more than its precision explains: " + "0123456789 " * 30

pytestmark = pytest.mark.usefixtures("undisturbed")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = write_local_study(tmp_path_factory.mktemp("study"))
    document = yaml.safe_load(path.read_text())
    task, models = document["families"][0]["task"], document["families"][0]["models"]
    task["chain_samples"] = 0
    models[1]["precisions"] = ["int8", "fp32"]
    document["teacher_counts"] = True
    document["traffic"] |= {"protocols": ["http"], "client_batch_sizes": [1], "warmup_s": 2.0}
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def int8_fails(monkeypatch):
    def fail(source, path):
        raise ParityError(REASON, next_step="drop int8")

    monkeypatch.setattr(harness.export.variants, "write_int8", fail)


def command(study, name, *more):
    repository = study.parent / "repository"
    return [name, str(study), "--repository", str(repository), *map(str, more)]


@pytest.mark.usefixtures("int8_fails")
def test_export_makes_the_others_prints_the_reason_and_fails(study, capsys):
    assert run_command(command(study, "export", "--json")) == ParityError.exit_code
    printed = capsys.readouterr()
    made = {one["variant"]: one for one in json.loads(printed.out)}
    assert "sha256" in made["own-teacher-fp32"]
    assert "sha256" in made["own-student-fp32"]
    assert REASON.strip() in made["own-student-int8"]["failed"]
    assert REASON.strip() in printed.err
    assert "next: drop int8" in printed.err


@pytest.mark.triton
@pytest.mark.usefixtures("int8_fails", "server_environment")
def test_the_others_are_scored_and_the_failed_one_stands_beside_them(study, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run_command(command(study, "evaluate", "--out", folder)) == 0
    out = capsys.readouterr().out
    assert "own-student-int8 is left out" in out
    assert "0123456789 " * 29 in " ".join(out.split())
    run = read_run(folder)
    assert {score.variant for score in run.scores} == {"own-teacher-fp32", "own-student-fp32"}
    (failed,) = run.failed
    assert (failed.name, failed.cause, failed.role) == ("own-student-int8", "export", "student")
    assert failed.reason == REASON
    for name in ("report.html", "report.md"):
        assert REASON.strip() in (folder / name).read_text()


@pytest.mark.triton
@pytest.mark.usefixtures("server_environment")
def test_a_verdict_lists_it_and_a_resumed_run_tries_it_again(study, tmp_path, monkeypatch):
    def fail(source, path):
        raise ParityError(REASON)

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(harness.export.variants, "write_int8", fail)
        assert run_command(command(study, "run", "--out", folder)) in {0, 4}
    verdict = json.loads((folder / "verdict.json").read_text())
    assert {"variant": "own-student-int8", "trial_id": None, "cause": "export"}.items() <= (
        verdict["rejected"][0].items()
    )
    assert verdict["rejected"][0]["reason"] == REASON
    assert "own-student-int8" in verdict["summary"]
    assert "own-student-int8" not in {trial.trial.variant for trial in read_run(folder).trials}
    assert run_command(command(study, "evaluate", "--out", folder, "--resume")) == 0
    again = read_run(folder)
    assert again.failed == ()
    assert "own-student-int8" in {score.variant for score in again.scores}


@pytest.mark.triton
@pytest.mark.usefixtures("server_environment")
def test_a_model_that_triton_refuses_is_left_out_and_the_server_goes_on(
    study, tmp_path, monkeypatch
):
    override = harness.flow.serving.override_for

    def refused(variant, serving):
        config = override(variant, serving)
        return config.replace("onnxruntime", "nosuch") if "student-int8" in variant.name else config

    monkeypatch.setattr(harness.flow.serving, "override_for", refused)
    folder = tmp_path / "run"
    assert run_command(command(study, "evaluate", "--out", folder)) == 0
    run = read_run(folder)
    assert {score.variant for score in run.scores} == {"own-teacher-fp32", "own-student-fp32"}
    (failed,) = run.failed
    assert (failed.name, failed.cause) == ("own-student-int8", "serving")
    assert "nosuch" in failed.reason


def test_without_what_the_others_are_compared_with_the_study_ends(tmp_path, capsys):
    path = write_local_study(tmp_path)
    document = yaml.safe_load(path.read_text())
    document["families"][0]["models"][0]["precisions"] = ["int8", "fp32"]
    path.write_text(yaml.safe_dump(document))

    def fail(source, target):
        raise ParityError("broken")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(harness.export.variants, "write_int8", fail)
        assert run_command(command(path, "export")) == ParityError.exit_code
    told = " ".join(capsys.readouterr().err.split())
    assert "own-teacher-int8 is what the variants of family sentences are compared with" in told
    assert "broken" in told


def test_whatever_a_tool_raises_is_the_failure_of_its_artefact(study, tmp_path, capsys):
    def fail(source, target):
        raise RuntimeError("[ShapeInferenceError] no such axis")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(harness.export.variants, "write_int8", fail)
        other = ["export", str(study), "--repository", str(tmp_path / "repository")]
        assert run_command(other) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "RuntimeError: [ShapeInferenceError] no such axis" in told
    assert (tmp_path / "repository" / "own-student-fp32" / "manifest.json").is_file()
