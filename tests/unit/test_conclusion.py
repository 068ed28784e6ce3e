"""What the demo ends with: the plan and the page to sign, as their commands write them."""

import json
from dataclasses import replace

import pytest
from stored_folder import write_topics

from harness.cli import run as run_module
from harness.cli.main import run_command
from harness.cli.run import DEMO_DEMAND
from harness.cli.session import print_outcome
from harness.flow.conclusion import conclude_run
from harness.flow.plan import PlanQuestion
from harness.report.build import build_report
from harness.runs.folder import read_run

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def concluded(tmp_path_factory):
    """A run folder and its conclusion."""
    folder = write_topics(tmp_path_factory.mktemp("runs") / "run")
    build_report(read_run(folder), folder)
    return folder, conclude(folder)


def conclude(folder):
    return conclude_run(folder, PlanQuestion(DEMO_DEMAND), lambda _: None)


def test_plan_and_page_are_those_of_the_commands(concluded):
    """The commands write a document only where it differs from the newest one."""
    folder, conclusion = concluded
    assert conclusion.plan_file == folder / "plan.json"
    assert "Replicas for 6,000 requests/s at the peak" in conclusion.decision.html.read_text()
    run_command(["plan", str(folder), "--demand", "2000/s", "--peak", "3x"])
    run_command(["decide", str(folder)])
    assert not list(folder.glob("*-2.json"))


def test_the_last_lines_name_plan_and_page(concluded, capsys):
    folder, conclusion = concluded
    print_outcome(read_run(folder), folder, conclusion, as_json=False, verbose=False)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3:] == [
        f"report: {folder / 'report.html'}",
        f"plan: {folder / 'plan.json'}",
        f"decision page: {folder / 'decision.html'}",
    ]
    assert any(line.startswith("Replicas for 2,000 requests/s") for line in shown)


def test_as_json_the_paths_are_two_keys_of_the_one_object(concluded, capsys):
    folder, conclusion = concluded
    print_outcome(read_run(folder), folder, conclusion, as_json=True, verbose=False)
    found = json.loads(capsys.readouterr().out)
    assert found["plan"] == str(folder / "plan.json")
    assert found["decision_page"] == str(folder / "decision.html")
    assert found["decision"] == str(read_run(folder).decision)


def test_without_a_valid_trial_there_is_a_page_and_the_reason(tmp_path, capsys):
    def invalid(run):
        trials = tuple(replace(one, valid=False, invalid_reason="held up") for one in run.trials)
        return replace(run, trials=trials)

    folder = write_topics(tmp_path / "run", change=invalid)
    concluded = conclude(folder)
    assert concluded.plan is None
    assert not list(folder.glob("plan*.json"))
    print_outcome(read_run(folder), folder, concluded, as_json=False, verbose=False)
    shown = capsys.readouterr().out
    assert "plan: none: none of the run's" in shown
    assert "held up" in shown
    assert (folder / "decision.html").exists()


@pytest.mark.parametrize("arguments", [["demo"], ["demo", "--quick"]])
def test_the_demo_asks_for_2000_requests_a_second_and_three_times_that(monkeypatch, arguments):
    asked = []
    monkeypatch.setattr(run_module, "run_to_verdict", lambda *all_of: asked.append(all_of) or 0)
    assert run_command(arguments) == 0
    ((_, _, _, question),) = asked
    assert question.demand.rate_per_s == 2000.0
    assert question.demand.peak_rate_per_s == 6000.0
