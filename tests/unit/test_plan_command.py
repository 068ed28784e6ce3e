"""harness plan: from a run folder to plan.json, a table and the report's section."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sample_streams import SMALL, STUDENT, TEACHER, streaming_run

from harness.cli.main import run_command
from harness.errors import UsageError
from harness.flow.plan import PlanQuestion, plan_run
from harness.planning.capacity.demand import parse_rate
from harness.report.capacity.section import capacity_section
from harness.report.capacity.tables import replicas_table
from harness.report.page import Documents, page_of
from harness.report.terminal.capacity import plan_table
from harness.runs.documents import read_document
from harness.runs.folder import JOURNAL, RunFolder, read_run
from harness.runs.journal import Journal
from harness.study.objective import parse_objective
from harness.types import (
    SATURATION,
    Decision,
    Role,
    ServerMetrics,
    ServingConfig,
    StreamCounts,
    StreamFigures,
)
from harness.types.capacity import MEASURED_RANGE, CapacityPlan
from harness.types.estimates import Demand, Interval
from harness.types.workloads import parse_arrivals
from harness.words.numbers import MISSING, number
from tests.samples import sample_variant
from tests.simulated_server import SimulatedServer, measure

pytestmark = pytest.mark.usefixtures("few_draws")

MANIFEST = {
    "schema_version": 1,
    "study_digest": "",
    "artefacts": {},
    "seeds": {"study": 4},
    "study": {"name": "s", "objective": "p95 < 30 ms", "families": [{"name": "family"}]},
}


def trial(clients, **changes):
    server = SimulatedServer(ServingConfig(8), lambda rows, _: (3.0 + rows) / 1e3)
    return replace(measure(server, seed=clients, clients=clients, requests=1500), **changes)


@pytest.fixture
def folder(tmp_path):
    """A run of one variant: an execution of n rows takes 3 + n ms, 727 inferences/s at most."""
    with RunFolder.create(tmp_path / "run", MANIFEST) as run:
        run.journal.add(replace(sample_variant("student", Role.STUDENT), family="family"))
        for clients in (1, 4, 16):
            run.journal.add(trial(clients))
    return tmp_path / "run"


def test_a_plan_is_kept_shown_and_part_of_the_report(folder, capsys):
    assert run_command(["plan", str(folder), "--demand", "2000/s", "--peak", "3x"]) == 0
    plan = read_document(folder, "plan", CapacityPlan)
    (one,) = plan.deployments
    # 6,000/s by 727 at the very most: no fewer than 9, and not twice as many.
    assert 9 <= one.replicas.peak <= 14
    assert one.replicas.lost_replica == one.replicas.peak + 1
    assert one.highest_rate_per_s.low <= 727
    assert (one.statistic, one.bound_ms, plan.seed) == ("p95", 30.0, 4)
    shown = capsys.readouterr().out
    assert "student" in shown
    assert str(one.replicas.lost_zone) in shown
    html = (folder / "report.html").read_text()
    assert 'id="capacity"' in html
    assert 'data-plot="capacity-1"' in html
    assert "## Capacity" in (folder / "report.md").read_text()


def test_a_replica_without_a_sure_rate_has_a_dash_and_not_a_zero(folder):
    plan = plan_run(read_run(folder), PlanQuestion(Demand(100.0)), lambda _: None)
    (one,) = plan.deployments
    unsure = replace(one, replicas=None, highest_rate_per_s=Interval(0.0, 0.0, 300.0))
    shown = [
        str(next(plan_table(replace(plan, deployments=(row,))).columns[2].cells))
        for row in (one, unsure)
    ]
    assert shown == [number(one.highest_rate_per_s.low), MISSING]
    rate = replicas_table(replace(plan, deployments=(unsure,))).rows[0][2]
    assert (rate.text, rate.detail, rate.sort) == (MISSING, "at most 300", None)


def test_the_picture_has_every_measured_point_and_the_bound(folder):
    run = read_run(folder)
    plan = plan_run(run, PlanQuestion(Demand(100.0)), lambda _: None)
    (plot,) = capacity_section(plan).plots
    measured = next(one for one in plot.traces if one["name"] == "measured, closed loop")
    assert measured["x"] == sorted(one.throughput_requests_per_s for one in run.trials)
    predicted = next(one for one in plot.traces if one["name"] == "predicted")
    assert predicted["x"] == sorted(predicted["x"])
    assert plot.layout["shapes"][0]["y0"] == 30.0
    assert "capacity-1" in page_of(run, Documents(plan)).plots
    assert page_of(run).capacity is None


def test_the_picture_reaches_to_the_ends_of_measured_intervals_and_draws_no_zero(folder):
    plan = plan_run(read_run(folder), PlanQuestion(Demand(100.0)), lambda _: None)
    (one,) = plan.deployments
    wide, nothing = (
        replace(one.measured[0], latency_ms=Interval(5.0, 0.01, 1e4)),
        replace(one.measured[1], latency_ms=Interval(0.0, 0.0, 0.1)),
    )
    drawn = replace(plan, deployments=(replace(one, measured=(wide, nothing)),))
    (plot,) = capacity_section(drawn).plots
    low, high = (10**end for end in plot.layout["yaxis"]["range"])
    assert low < 0.01
    assert 50.0 <= high < 1e4
    measured = next(one for one in plot.traces if one["name"] == "measured, closed loop")
    assert measured["y"] == [5.0]


def test_open_loops_after_the_verdict_are_fitted_to_and_drawn_as_measured(folder):
    server = SimulatedServer(ServingConfig(8), lambda rows, _: (3.0 + rows) / 1e3)
    after = measure(server, seed=9, rate_per_s=200.0, requests=1500, stage=SATURATION)
    with RunFolder(folder, Journal.read(folder / JOURNAL)) as run:
        run.journal.add(after)
    stored = read_run(folder)
    assert [one.trial.trial_id for one in stored.saturation] == [after.trial.trial_id]
    (one,) = plan_run(stored, PlanQuestion(Demand(100.0)), lambda _: None).deployments
    (point,) = (point for point in one.measured if point.open_loop)
    assert point.trial_id == after.trial.trial_id
    assert point.latency_ms.value == after.latency.percentiles["p95"].value_ms
    assert point.predicted_ms == pytest.approx(point.latency_ms.value, rel=0.25)


def test_each_family_is_planned_for_its_own_objective(folder):
    """A name for two latencies would put the wrong bound beside one of them."""
    other = trial(8, trial=replace(trial(8).trial, variant="other", family="second"))
    run = read_run(folder)
    run = replace(
        run,
        trials=(*run.trials, other),
        objectives={**run.objectives, "second": parse_objective("p99 < 80 ms")},
    )
    first, second = plan_run(run, PlanQuestion(Demand(100.0)), lambda _: None).deployments
    assert (first.statistic, first.bound_ms) == ("p95", 30.0)
    assert (second.statistic, second.bound_ms) == ("p99", 80.0)
    assert second.measured[0].latency_ms.value == other.latency.value_ms("p99")


def test_another_demand_is_another_document(folder):
    for demand in ("2000/s", "4000/s", "4000/s"):
        assert run_command(["plan", str(folder), "--demand", demand, "--json"]) == 0
    assert json.loads((folder / "plan-2.json").read_text())["demand"]["rate_per_s"] == 4000.0
    assert not (folder / "plan-3.json").exists()


def test_a_run_written_before_execution_times_by_size_is_planned_too(tmp_path):
    former = tmp_path / "former"
    shutil.copytree(Path(__file__).parents[1] / "former_run", former)
    assert run_command(["plan", str(former), "--demand", "2000/s"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--demand", "2000"], "'2000' is not a rate"),
        (["--demand", "5/s", "--peak", "0.5x"], "below the mean"),
        (["--demand", "5/s", "--batch", "many"], "no number of rows"),
        (["--demand", "5/s", "--batch", "16"], "16 rows exceed the largest batch"),
        (["--demand", "5/s", "--slo", "error_rate < 1%"], "bounds no latency"),
        (["--demand", "5/s", "--arrivals", "trace:no.csv"], "constant rate"),
        (["--demand", "5/s", "--variant", "nobody"], "no trial of nobody"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_line(folder, capsys, arguments, words):
    assert run_command(["plan", str(folder), *arguments]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words in said
    assert "next: " in said
    assert not (folder / "plan.json").exists()


def test_a_run_without_a_valid_trial_says_what_to_measure(tmp_path, capsys):
    with RunFolder.create(tmp_path / "run", MANIFEST) as run:
        run.journal.add(trial(1, valid=False, invalid_reason="the server was short"))
    assert run_command(["plan", str(tmp_path / "run"), "--demand", "5/s"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "none of the run's trials is valid (1 measured)" in said
    assert "the server was short" in said
    assert "harness load STUDY --variant student --concurrency 8" in said


def test_a_demand_beyond_the_measured_range_is_planned_with_what_was_measured(tmp_path):
    """Only one request in flight: 238/s were measured, though a replica could carry twice that."""
    with RunFolder.create(tmp_path / "run", MANIFEST) as run:
        run.journal.add(trial(1))
    question = PlanQuestion(Demand(parse_rate("1000/s")))
    (one,) = plan_run(read_run(tmp_path / "run"), question, lambda _: None).deployments
    assert one.limited_by == MEASURED_RANGE
    assert one.highest_rate_per_s.low == pytest.approx(1 / 0.0042, rel=0.01)
    assert one.replicas.peak == 5
    assert "above the highest that was measured (238)" in one.note


def test_a_configuration_that_was_hardly_loaded_does_not_read_as_the_slower_one(folder):
    """Two instances were measured with one request in flight, one instance with sixteen."""
    hardly = trial(1)
    serving = replace(hardly.trial.serving, instance_count=2)
    hardly = replace(hardly, trial=replace(hardly.trial, serving=serving))
    run = read_run(folder)
    both = replace(run, trials=(*run.trials, hardly))
    plan = plan_run(both, PlanQuestion(Demand(100.0)), lambda _: None)
    (one,) = plan.deployments
    assert one.serving.instance_count == 1
    (said,) = plan.left_out
    assert said.startswith("student, max batch 8, 2 instances: it was measured up to 238 requests")


def test_streams_of_closed_loops_alone_are_refused_with_what_to_measure(tmp_path, capsys):
    """A replica is simulated batch by batch, which a model that batches continuously is not."""
    figures = StreamFigures(StreamCounts(50, 200), 100.0)
    streaming = {"streams": figures, "server": ServerMetrics()}
    with RunFolder.create(tmp_path / "run", MANIFEST) as run:
        run.journal.add(replace(sample_variant("student", Role.STUDENT), family="family"))
        run.journal.add(trial(4, **streaming))
    assert run_command(["plan", str(tmp_path / "run"), "--demand", "20/s"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "token by token" in said
    assert "by the open loops that were measured" in said
    assert not (tmp_path / "run" / "plan.json").exists()


def test_a_model_without_a_batcher_is_left_out_with_that_reason(folder):
    """It has execution times: measuring them again would tell no more."""
    run = read_run(folder)
    alone = tuple(
        replace(one, trial=replace(one.trial, variant="alone", serving=ServingConfig(0)))
        for one in run.trials
    )
    with pytest.raises(UsageError, match="takes each request by itself") as raised:
        plan_run(replace(run, trials=alone), PlanQuestion(Demand(100.0)), lambda _: None)
    assert "max_batch_size" in raised.value.next_step
    both = replace(
        run,
        trials=(*run.trials, *alone),
        variants=(*run.variants, replace(run.variants[0], name="alone")),
    )
    plan = plan_run(both, PlanQuestion(Demand(100.0)), lambda _: None)
    assert [one.variant for one in plan.deployments] == ["student"]
    (said,) = (line for line in plan.left_out if line.startswith("alone: "))
    assert "takes each request by itself" in said


@pytest.fixture(scope="module")
def streams():
    """A made-up run of models that write, with open loops behind its verdict."""
    return streaming_run()


def test_streams_are_planned_with_the_highest_rate_that_met_the_objective(streams):
    plan = plan_run(streams, PlanQuestion(Demand(50.0, 4.0)), lambda _: None)
    by_name = {one.variant: one for one in plan.deployments}
    best = by_name[SMALL]
    opened = [one for one in streams.saturation if one.trial.variant == SMALL]
    passed = [one for one in opened if one.decision is Decision.PASS]
    rate = max(one.throughput_requests_per_s for one in passed)
    assert best.highest_rate_per_s == Interval(rate, rate, rate)
    assert best.replicas.peak == math.ceil(200 / rate)
    assert best.decision is Decision.PASS
    assert (best.statistic, best.curve, best.error) == ("ttft_p95", (), {})
    assert len(best.measured) == len(opened) == 4
    assert "measured, not predicted" in best.note
    assert "at the next rate, TTFT p95" in best.note
    # A teacher too slow to decide anything at its lowest rate: no number is made up.
    assert by_name[TEACHER].replicas is None
    assert by_name[TEACHER].decision is Decision.UNDECIDED
    assert any(line.startswith(f"{STUDENT}: ") and "saturation_shares" in line
               for line in plan.left_out)  # fmt: skip


def test_an_overloaded_open_loop_stands_at_the_rate_it_was_asked_for(streams):
    """What it still answers may be less than a lighter one does, and says nothing of that one."""
    beaten = replace(
        streams,
        saturation=tuple(
            replace(one, throughput_requests_per_s=1.0)
            if one.trial.variant == SMALL and one.decision is not Decision.PASS
            else one
            for one in streams.saturation
        ),
    )
    question = PlanQuestion(Demand(50.0, 4.0))
    before, after = (plan_run(run, question, lambda _: None) for run in (streams, beaten))
    best, same = (
        next(one for one in plan.deployments if one.variant == SMALL) for plan in (before, after)
    )
    assert same.replicas == best.replicas
    assert same.highest_rate_per_s == best.highest_rate_per_s


def test_a_rate_that_failed_once_is_not_one_that_every_open_loop_met(streams):
    opened = [one for one in streams.saturation if one.trial.variant == SMALL]
    passed = [one for one in opened if one.decision is Decision.PASS]
    failed = next(one for one in opened if one.decision is not Decision.PASS)
    top = max(passed, key=lambda one: one.trial.workload.rate_per_s)
    again = replace(failed, trial=replace(top.trial, repeat=top.trial.repeat + 1))
    run = replace(streams, saturation=(*streams.saturation, again))
    plan = plan_run(run, PlanQuestion(Demand(50.0, 4.0)), lambda _: None)
    best = next(one for one in plan.deployments if one.variant == SMALL)
    lower = [one.throughput_requests_per_s for one in passed if one is not top]
    assert best.highest_rate_per_s.low == max(lower, default=0.0)


def test_streams_whose_open_loops_are_invalid_are_left_out_with_the_reason(streams):
    spoilt = tuple(
        replace(one, valid=False, invalid_reason="the generator woke late")
        if one.trial.variant == TEACHER
        else one
        for one in streams.saturation
    )
    run = replace(streams, saturation=spoilt)
    plan = plan_run(run, PlanQuestion(Demand(50.0)), lambda _: None)
    (said,) = (line for line in plan.left_out if line.startswith(f"{TEACHER}: "))
    assert said.endswith("none of the 4 is valid: the generator woke late")


def test_streams_under_arrivals_that_were_not_measured_have_no_plan(streams):
    bursts = parse_arrivals("gamma:3")
    with pytest.raises(UsageError, match="token by token"):
        plan_run(streams, PlanQuestion(Demand(50.0, arrivals=bursts)), lambda _: None)


def test_a_plan_of_streams_is_drawn_without_a_prediction(streams):
    plan = plan_run(streams, PlanQuestion(Demand(50.0)), lambda _: None)
    section = capacity_section(plan)
    assert [trace["name"] for trace in section.plots[0].traces] == ["measured, open loop"]
    assert len(section.leading) == 1
    assert len(section.plots) == len(plan.deployments) > 1
    assert section.left_out_names == "stories-student-fp32, stories-control-fp32"
    assert "TTFT p95" in section.plots[0].summary
    assert "predictions" not in section.plots[0].summary
    assert "TTFT p95 ms" in {column.header for column in plan_table(plan).columns}
