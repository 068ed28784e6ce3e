"""The command line's own part: what it prints, refuses and exits with."""

import json
from pathlib import Path

import pytest

from harness.cli.demo import quick_study
from harness.cli.main import run_command
from harness.cli.options import parse_cpus
from harness.cli.serve import parse_ports
from harness.cli.session import resume_command
from harness.cli.sweep import override
from harness.errors import ObjectiveError, StudyError, UsageError
from harness.resources import bundled
from harness.study_file import load_study, parse_study
from tests.samples import sample_study


@pytest.fixture
def reference():
    return load_study(bundled("studies/reference.yaml"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "no-such-file.yaml"],
        ["run"],
        ["load", "no-such-file.yaml", "--variant", "x"],
        ["demo", "--no-such-option"],
        ["conjure"],
    ],
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    assert run_command(arguments) == 2
    assert capsys.readouterr().err


def test_a_wrong_study_is_exit_2_with_its_problems_on_standard_error(tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nfamilies: []\nspeed: 3\n")
    assert run_command(["run", str(path)]) == 2
    printed = capsys.readouterr()
    assert "speed: unknown key" in printed.err
    assert "families" in printed.err
    assert printed.out == ""


def test_a_folder_that_is_no_run_is_exit_2_with_the_next_step(tmp_path, capsys):
    assert run_command(["report", str(tmp_path)]) == 2
    assert "next:" in capsys.readouterr().err


def test_resume_without_a_run_is_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(["demo", "--resume"]) == 2
    assert "start one without --resume" in capsys.readouterr().err


def test_the_schema_is_json_on_standard_output(capsys):
    assert run_command(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == "Study"
    assert "families" in schema["required"]


def test_doctor_names_every_part(capsys):
    run_command(["doctor", "--json"])
    subjects = {finding["subject"] for finding in json.loads(capsys.readouterr().out)}
    assert {"python", "machine", "GPU", "disk", "embedded Triton", "extra [export]"} <= subjects


def test_an_objective_on_the_command_line_replaces_every_family_s(reference):
    changed = override(reference, "p99 < 20 ms", "grid")
    assert {changed.objective_of(family).text for family in changed.families} == {"p99 < 20 ms"}
    assert changed.search == "grid"


def test_an_objective_on_the_command_line_must_fit_every_task(reference):
    with pytest.raises(StudyError, match="asks for accuracy"):
        override(reference, "accuracy >= 0.5", None)
    with pytest.raises(ObjectiveError):
        override(reference, "p95 << 3", None)


def test_the_quick_demo_keeps_the_models_and_measures_less(reference):
    quick = quick_study(reference)
    assert quick.families[0].models == reference.families[0].models
    assert quick.traffic.duration_s < reference.traffic.duration_s
    assert set(quick.traffic.client_batch_sizes) == {1, 4, 8, 16}


def test_cpu_lists():
    assert parse_cpus(None) is None
    assert parse_cpus("0") == (0,)
    for wrong in ("", "a", "0-", "9999", "1-0"):
        with pytest.raises(UsageError):
            parse_cpus(wrong)


def test_ports():
    assert parse_ports("8000,8001,8002") == (8000, 8001, 8002)
    for wrong in ("8000", "a,b,c", "1,2,3,4"):
        with pytest.raises(UsageError):
            parse_ports(wrong)


def test_a_study_survives_the_way_through_its_json(reference):
    for study in (reference, parse_study(sample_study(), source="study")):
        assert parse_study(study.model_dump(mode="json"), source="again") == study


@pytest.mark.parametrize(
    "called",
    [
        "run a.yaml --repository r",
        "run a.yaml --out old --repository r",
        "run a.yaml --out=old --repository r --resume",
    ],
)
def test_the_way_to_go_on_is_the_command_as_it_was_called(called):
    wanted = "harness run a.yaml --repository r --out 'my runs/x' --resume"
    assert resume_command(called.split(), Path("my runs/x")) == wanted
