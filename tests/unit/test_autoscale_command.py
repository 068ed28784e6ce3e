"""harness autoscale: from a run folder and a trace to autoscale.json, a table and the report."""

import json
from dataclasses import replace

import pytest
import yaml

from harness.cli.main import run_command
from harness.flow import autoscaling
from harness.flow.autoscaling import AutoscaleQuestion, _schedule_notes, autoscale_run
from harness.flow.review.contributions import contributions_of
from harness.planning.capacity.headroom import cold_start_seconds
from harness.report.autoscaling.section import autoscaling_section
from harness.runs.documents import read_document
from harness.runs.folder import RunFolder, read_run
from harness.types import ColdStart, Role, ServingConfig
from harness.types.autoscaling import AutoscalePlan, RateTrace, ScalingTerms
from harness.words.numbers import percent
from tests.samples import sample_variant
from tests.simulated_server import SimulatedServer, measure

pytestmark = pytest.mark.usefixtures("few_draws")

MANIFEST = {
    "schema_version": 1,
    "study_digest": "",
    "artefacts": {},
    "seeds": {"study": 4},
    "environment": {"usable_cores": 2},
    "study": {"name": "s", "objective": "p95 < 30 ms", "families": [{"name": "family"}]},
}
COLD = ColdStart("student", "", ServingConfig(8), 8.0, 30.0, 20, 5, 1.5, 5.0)
RATES = "timestamp_s,rps\n" + "".join(
    f"{60 * n},{rate}\n" for n, rate in enumerate([200] * 20 + [1500] * 20 + [300] * 30)
)


@pytest.fixture(scope="module")
def measured():
    """An execution of n rows takes 3 + n ms: 727 inferences/s at most."""
    return [
        measure(
            SimulatedServer(ServingConfig(8), lambda rows, _: (3.0 + rows) / 1e3),
            seed=clients, clients=clients, requests=1500,
        )
        for clients in (1, 4, 16)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path, measured):
    with RunFolder.create(tmp_path / "run", MANIFEST) as run:
        run.journal.add(replace(sample_variant("student", Role.STUDENT), family="family"))
        run.journal.add(COLD)
        for one in measured:
            run.journal.add(one)
    (tmp_path / "rates.csv").write_text(RATES)
    return tmp_path / "run"


def command(folder, *arguments, trace="rates.csv"):
    given = folder.parent / trace if trace.endswith(".csv") else trace
    return run_command(["autoscale", str(folder), "--trace", str(given), *arguments])


def test_policies_are_kept_shown_and_part_of_the_report(folder, capsys):
    priced = ["--instance", "c7i.xlarge", "--measured-on", "c7i.xlarge"]
    assert command(folder, *priced) == 0
    plan = read_document(folder, "autoscale", AutoscalePlan)
    assert (plan.variant, plan.objective, plan.statistic) == ("student", "p95 < 30 ms", "p95")
    assert plan.terms.start_s == cold_start_seconds(COLD) == 9.5
    assert plan.saturation_per_s == pytest.approx(727, rel=0.02)
    by_name = {one.policy.name: one for one in plan.outcomes}
    fixed = plan.outcomes[0]
    assert fixed.policy.name == "fixed 3"
    assert fixed.replica_hours.value == pytest.approx(3 * 70 / 60)
    assert by_name[plan.chosen].replica_hours.value < fixed.replica_hours.value
    assert fixed.cost_usd.value == pytest.approx(fixed.replica_hours.value * 0.1785, rel=0.001)
    shown = capsys.readouterr().out
    assert plan.chosen in shown
    keda = yaml.safe_load((folder / "autoscale.keda.yaml").read_text())
    assert keda["metadata"]["annotations"]["harness/policy"] == plan.chosen
    assert keda["spec"]["maxReplicaCount"] == plan.terms.limits.max_replicas
    assert 'model="student"' in keda["spec"]["triggers"][0]["metadata"]["query"]
    assert yaml.safe_load((folder / "autoscale.hpa.yaml").read_text())["kind"].startswith("Hori")
    html = (folder / "report.html").read_text()
    assert 'id="autoscaling"' in html
    assert 'data-plot="autoscaling-course"' in html
    assert "## Autoscaling" in (folder / "report.md").read_text()
    ((_, fact),) = [one for part in contributions_of(folder).parts for one in part.facts]
    assert plan.chosen in fact.value


def test_the_pictures_have_the_trace_and_every_policy(folder):
    trace = RateTrace("by hand", 60.0, (200.0,) * 20 + (1500.0,) * 20)
    plan = autoscale_run(
        read_run(folder), AutoscaleQuestion(trace, ScalingTerms(0.0)), lambda _: None
    )
    course, in_time, front = autoscaling_section(plan).plots
    rate = next(one for one in course.traces if one["name"] == "requests/s")
    assert rate["y"][0] == pytest.approx(200, rel=0.15)
    assert max(rate["y"]) == pytest.approx(1500, rel=0.1)
    assert in_time.layout["shapes"][0]["y0"] == 95.0
    assert in_time.summary.endswith("%, and 95% are needed.")
    assert f"the lowest is {percent(min(in_time.traces[0]['y']) / 100)}, " in in_time.summary
    drawn = sum(len(one["x"]) for one in front.traces if one.get("mode") == "markers")
    assert drawn == len(plan.outcomes) + (plan.chosen is not None)


@pytest.mark.parametrize(
    ("hours", "begins_s", "words"),
    [
        (48, None, ["take it to begin at midnight UTC"]),
        (48, 52200.0, []),
        (24, None, ["so it is a yardstick"]),
    ],
)
def test_what_a_schedule_does_not_know_is_said(hours, begins_s, words):
    trace = RateTrace("t", 3600.0, (200.0,) * hours, begins_s=begins_s)
    notes = list(_schedule_notes(trace))
    assert len(notes) == len(words)
    assert all(part in note for part, note in zip(words, notes, strict=True))


def test_the_same_question_has_the_same_answer_and_another_another_document(folder):
    assert command(folder, "--json") == command(folder, "--json") == 0
    assert not (folder / "autoscale-2.json").exists()
    assert command(folder, "--start-time", "4min", "--json") == 0
    slow = json.loads((folder / "autoscale-2.json").read_text())
    assert slow["terms"]["start_s"] == 240.0


def test_a_made_up_trace_takes_the_demand_of_the_newest_plan(folder, capsys):
    assert command(folder, trace="flash-crowd") == 2
    assert "needs its mean rate" in capsys.readouterr().err
    assert run_command(["plan", str(folder), "--demand", "300/s", "--peak", "4x"]) == 0
    assert command(folder, trace="flash-crowd") == 0
    plan = read_document(folder, "autoscale", AutoscalePlan)
    assert plan.trace.peak_per_s == pytest.approx(1200.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peak", "2x"], "--peak is of a made-up trace"),
        (["--slo", "mean < 5 ms"], "bounds no percentile"),
        (["--variant", "nobody"], "no trial of nobody"),
        (["--min-replicas", "0"], "an HPA keeps one"),
        (["--min-replicas", "5", "--max-replicas", "4"], "at most 4 replicas, and at least 5"),
        (["--down-stabilization", "2h"], "Kubernetes takes 0 to 3600 s"),
        (["--start-time", "soon"], "not a length of time"),
        (["--instance", "c7i.xlrge"], "c7i.xlarge"),
        (["--usd-per-hour", "0"], "a price is above 0"),
        (["--usd-per-hour", "1", "--instance", "c7i.xlarge"], "two prices"),
        (["--query", "up"], "--query: of --trace prometheus alone"),
        (["--since", "24h", "--step", "1s"], "--since, --step: of --trace prometheus alone"),
        (["--until", "2026-01-01"], "--until: of --trace prometheus alone"),
        (["--prometheus-header", "a: b"], "--prometheus-header: of --trace prometheus alone"),
        (["--own-machines"], "--own-machines says something of --live"),
        (["--measured-on", "c7i.large"], "--measured-on says something of --instance"),
        (["--usd-per-hour", "1", "--prices", "p.csv"], "--prices says something of --instance"),
        (["--batch", "16"], "16 rows exceed the largest batch"),
        (["--live", "5s"], "too short for a scaler"),
        (["--live", "1min", "--min-replicas", "9", "--max-replicas", "2"], "and at least 9"),
        (["--live", "1min"], "is not in its repository any more"),
        (["--resume"], "--resume goes on with what the interrupted run was asked next: leave --tr"),
    ],
)
def test_what_cannot_be_simulated_is_one_clear_line(folder, capsys, arguments, words):
    assert command(folder, *arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words in said
    assert "next: " in said
    assert not (folder / "autoscale.json").exists()


def test_a_replica_of_an_external_server_is_priced_by_the_machine_that_is_named(
    tmp_path, measured, monkeypatch, capsys
):
    """What the manifest describes is the machine that sent the load."""
    sender = {"usable_cores": 2, "gpus": [], "instance": "c7i.large"}
    manifest = MANIFEST | {"environment": sender, "server": {"url": "http://there"}}
    with RunFolder.create(tmp_path / "run", manifest) as run:
        run.journal.add(replace(sample_variant("student", Role.STUDENT), family="family"))
        run.journal.add(COLD)
        for one in measured:
            run.journal.add(one)
    (tmp_path / "rates.csv").write_text(RATES)
    priced = ["--measured-on", "g5.xlarge", "--instance", "g6.xlarge"]
    assert command(tmp_path / "run", *priced) == 0
    pricing = read_document(tmp_path / "run", "autoscale", AutoscalePlan).pricing
    assert (pricing.instance, pricing.is_estimate) == ("g6.xlarge", True)
    assert pricing.rule.startswith("estimate from g5.xlarge: 1 A10G to 1 L4")
    monkeypatch.setattr(autoscaling, "fit_capacity", None)  # refused before it is needed
    capsys.readouterr()
    assert command(tmp_path / "run", "--instance", "g6.xlarge") == 2
    said = capsys.readouterr().err
    assert "the run measured an external server" in said
    assert "--measured-on" in said


def test_where_no_live_run_was_interrupted_there_is_none_to_go_on_with(folder, capsys):
    assert run_command(["autoscale", str(folder), "--resume"]) == 2
    assert "no live run that was interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timestamp_s,rps\n0,1\n60,1\n240,1\n300,1\n", "a gap of 180 s"),
        ("timestamp_s,rps\n60,1\n0,1\n", "line 3"),
        ("timestamp,rps\n0,1\n60000,1\n", "--trace-unit"),
        ("timestamp_s,rps\n0,0\n60,0\n", "no requests at all"),
        ("timestamp_s,rps\n0,5\n5,5\n", "nothing is ever decided"),
        ("timestamp_s,rps\n" + "".join(f"{3600 * n},5\n" for n in range(240)), "days long"),
    ],
)
def test_a_bad_trace_is_refused(folder, capsys, text, words):
    (folder.parent / "bad.csv").write_text(text)
    assert command(folder, trace="bad.csv") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words in said
    assert "next: " in said


def test_no_trace_and_no_prometheus_are_said(folder, capsys):
    assert command(folder, trace="nowhere") == 2
    assert "no such file" in capsys.readouterr().err
    assert command(folder, trace="prometheus") == 2
    assert "needs --prometheus and --query" in capsys.readouterr().err


def test_a_run_without_a_cold_start_asks_how_long_a_start_takes(tmp_path, measured, capsys):
    with RunFolder.create(tmp_path / "run", MANIFEST) as run:
        for one in measured:
            run.journal.add(one)
    (tmp_path / "rates.csv").write_text(RATES)
    assert command(tmp_path / "run") == 2
    assert "--start-time 90s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [("--slo", "p95 < 9 ms"), ("--min-replicas", "1"), ("--own-machines",)]
)
def test_a_live_run_that_is_gone_on_with_is_asked_nothing_else(folder, capsys, option):
    assert run_command(["autoscale", str(folder), "--resume", *option]) == 2
    assert f"next: leave {option[0]} out" in capsys.readouterr().err
    assert run_command(["autoscale", str(folder), "--resume", "--json"]) == 2
    assert "has no live run that was interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("trace", ["diurnal", "prometheus"])
def test_a_unit_is_of_a_file_s_times(folder, capsys, trace):
    assert command(folder, "--trace-unit", "ms", "--demand", "5/s", trace=trace) == 2
    assert f"--trace-unit ms is of a file's times, and the trace is {trace}" in (
        capsys.readouterr().err
    )
