"""`harness decide` on run folders: the matrix, its links, weights, risks, other documents."""

import copy
import json
import re
import shutil
from dataclasses import dataclass, replace
from urllib.parse import unquote

import numpy as np
import pytest
from stored_folder import ROWS, topics_manifest, write_topics

from harness.cli.main import run_command
from harness.flow.review import contributions, decisions
from harness.flow.review.contributions import Contribution, Contributor, VariantFigure
from harness.flow.review.decisions import review_runs
from harness.report.build import build_report
from harness.report.review.plots import front_of, pareto_plots
from harness.runs.documents import read_document, write_document
from harness.runs.folder import read_run
from harness.runs.journal import Journal
from harness.types import Decision
from harness.types.capacity import CapacityPlan
from harness.types.costs import CostReport
from harness.types.estimates import Pricing
from harness.types.losses import Estimate, LossEntry, SliceLoss
from harness.types.review import DecisionReview, Figure, FigureBasis, PlannedFact

pytestmark = pytest.mark.usefixtures("few_draws")

TEACHER, STUDENT, TINY = "topics-teacher-fp32", "topics-student-fp32", "topics-tiny-fp32"


@pytest.fixture
def folder(tmp_path):
    return write_topics(tmp_path / "run")


@pytest.fixture
def priceable(folder):
    """The same run, whose throughputs have intervals: 10% either way."""
    journal = folder / "journal.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    changed = [one for entry in entries for one in _with_throughput(entry)]
    assert changed
    for one in changed:
        rate = one["throughput_inferences_per_s"]
        one["throughput_low_inferences_per_s"] = 0.9 * rate
        one["throughput_high_inferences_per_s"] = 1.1 * rate
    journal.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return folder


def _with_throughput(value):
    if isinstance(value, dict):
        if "throughput_inferences_per_s" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _with_throughput(one)


def matrix(*folders, **options):
    return review_runs(folders, **options).matrices[0]


def test_the_matrix_has_every_candidate_with_its_figures_and_trial(folder):
    found = matrix(folder)
    names = [one.name for one in found.candidates]
    assert names == [
        TEACHER,
        "topics-teacher-int8",
        STUDENT,
        "topics-student-int8",
        TINY,
    ]
    assert found.metrics == ("accuracy", "p95", "throughput", "size", "cold_start")
    student = found.candidate(STUDENT)
    assert student.figure("accuracy").estimate == Estimate(0.9724, 0.9513, 0.9935)
    assert student.figure("accuracy").relative
    assert student.figure("size").estimate.value == pytest.approx(2.33)
    assert student.figure("p95").trial_id.startswith(f"{STUDENT}--")
    assert found.candidate(TEACHER).figure("accuracy").estimate == Estimate(1.0, 1.0, 1.0)


def test_hard_limits_come_first_and_the_front_is_not_filtered_by_them(folder):
    found = matrix(folder)
    tiny = found.candidate(TINY)
    assert tiny.decision is Decision.FAIL
    quality = next(one for one in tiny.limits if one.metric == "accuracy")
    assert quality.decision is Decision.FAIL
    assert "80.0%" in quality.reason
    # Without a load there is no place; the same variant with one is placed, though it fails
    assert found.place(TINY).probability is None
    drawn = {trace["name"] for trace in pareto_plots(found, 1)[0].traces}
    assert {TEACHER, STUDENT} <= drawn


def with_p95(found, name, estimate):
    """The matrix in which a candidate has another p95."""
    candidates = tuple(
        replace(
            one,
            figures=tuple(
                replace(f, estimate=estimate) if f.metric == "p95" else f for f in one.figures
            ),
        )
        if one.name == name
        else one
        for one in found.candidates
    )
    return replace(found, candidates=candidates)


def test_an_axis_of_latencies_reaches_to_the_ends_of_the_drawn_intervals(folder):
    found = with_p95(matrix(folder), TEACHER, Estimate(19.1, 0.2, 1e6))
    plot = pareto_plots(found, 1)[0]
    low, high = (10**end for end in plot.layout["xaxis"]["range"])
    assert low < 0.2
    assert 191.0 < high < 400.0
    (drawn,) = [trace for trace in plot.traces if trace["name"] == TEACHER]
    assert drawn["error_x"]["array"] == [pytest.approx(9 * 19.1)]


def test_a_candidate_at_zero_is_said_to_be_off_the_logarithmic_axis(folder):
    plot = pareto_plots(with_p95(matrix(folder), TEACHER, Estimate(0.0, 0.0, 0.1)), 1)[0]
    assert TEACHER not in {trace["name"] for trace in plot.traces}
    said = "not drawn: 1 at 0, which this axis lacks"
    assert said in plot.layout["xaxis"]["title"]["text"]
    assert said in plot.summary


def test_the_recommendation_is_the_verdicts(folder, capsys):
    assert run_command(["decide", str(folder)]) == 0
    found = matrix(folder)
    assert found.decision is Decision.PASS
    assert found.candidate(found.recommended).confirmed
    assert found.sentence.startswith(f"Serve {found.recommended}")
    assert "Pareto front with a probability of" in found.sentence
    assert found.recommended in capsys.readouterr().out


def test_every_link_of_the_page_leads_to_a_row_of_a_report(folder):
    build_report(read_run(folder), folder)
    assert run_command(["decide", str(folder)]) == 0
    report = (folder / "report.html").read_text()
    rows = set(re.findall(r'<tr id="([^"]+)"', report))
    html, markdown = (folder / "decision.html").read_text(), (folder / "decision.md").read_text()
    links = re.findall(r'href="(report\.html#[^"]+)"', html)
    assert '<section class="verdict family' in html  # what the script looks for around a plot
    targets = {unquote(link.partition("#")[2]) for link in links}
    assert targets <= rows
    found = matrix(folder)
    for one in found.candidates:
        assert f"model-{one.variant}" in targets
        for figure in one.figures:
            if figure.trial_id:
                assert f"trial-{figure.trial_id}" in targets
                assert f"report.html#trial-{figure.trial_id}" in markdown


def test_links_of_a_page_elsewhere_start_there(folder, tmp_path):
    out = tmp_path / "elsewhere"
    assert run_command(["decide", str(folder), "--out", str(out)]) == 0
    assert 'href="../run/report.html#trial-' in (out / "decision.html").read_text()


def test_the_document_is_read_back_as_it_was(folder):
    assert run_command(["decide", str(folder), "--weights", "accuracy=1,throughput=1"]) == 0
    stored = read_document(folder, "decide", DecisionReview)
    assert stored == review_runs([folder], weights={"accuracy": 1.0, "throughput": 1.0})


def test_no_weights_no_ranking_and_weights_rank_with_their_sensitivity(folder):
    assert matrix(folder).ranking is None
    ranking = matrix(folder, weights={"accuracy": 20.0, "throughput": 1.0}).ranking
    names = [one.candidate for one in ranking.ranked]
    assert TINY not in names  # a hard limit rules it out
    assert TEACHER in names  # the yardstick
    assert ranking.reference == TEACHER
    assert next(one.score for one in ranking.ranked if one.candidate == TEACHER) == 1.0
    assert [one.metric for one in ranking.ranges] == ["accuracy", "throughput"]
    # All for accuracy: the teacher, whose share is 1 by definition
    assert matrix(folder, weights={"accuracy": 1.0}).ranking.ranked[0].candidate == TEACHER


def test_weights_that_prefer_another_are_said_and_overrule_nothing(folder):
    found = matrix(folder, weights={"accuracy": 1.0})
    assert found.recommended.startswith("topics-student")
    assert any("the weights prefer" in risk.text for risk in found.risks)


def test_the_weights_of_the_study_count_where_none_are_asked_for(tmp_path):
    manifest = copy.deepcopy(topics_manifest())
    manifest["study"]["weights"] = {"throughput": 1.0}
    folder = write_topics(tmp_path / "run", manifest=manifest)
    assert matrix(folder).ranking.weights == {"throughput": 1.0}
    assert matrix(folder, weights={"size": 1.0}).ranking.weights == {"size": 1.0}


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (["--weights", "accuracy=0"], "sum to nothing"),
        (["--weights", "accuracy=-1"], "0 or more"),
        (["--weights", "rmse=1"], "nothing is known of it"),
        (["--kpi", "speed"], "speed"),
    ],
)
def test_bad_options_are_exit_2(folder, capsys, extra, problem):
    assert run_command(["decide", str(folder), *extra]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())
    assert not (folder / "decide.json").exists()


def test_a_page_that_cannot_be_written_says_so(folder, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert run_command(["decide", str(folder), "--out", str(tmp_path / "taken")]) == 5
    assert "cannot write to" in capsys.readouterr().err


def test_no_run_folder_or_one_twice_is_exit_2(folder, tmp_path, capsys):
    assert run_command(["decide", str(folder), str(folder)]) == 2
    assert run_command(["decide", str(tmp_path)]) == 2
    assert run_command(["decide"]) == 2
    assert "named twice" in capsys.readouterr().err


def test_quality_is_drawn_by_one_weighting_of_the_rows(tmp_path):
    """The int8 student is wrong wherever the fp32 one is: it is surely no better in quality."""
    rng = np.random.default_rng(3)
    teacher = rng.random(ROWS) < 0.82
    student = teacher & (rng.random(ROWS) < 0.97)
    worse = student.copy()
    worse[np.flatnonzero(student)[:2]] = False
    quantised = teacher.copy()
    quantised[np.flatnonzero(teacher)[:2]] = False
    right = {TEACHER: teacher, STUDENT: student, "topics-student-int8": worse}
    right["topics-teacher-int8"] = quantised
    folder = write_topics(tmp_path / "run", right=right)
    found = matrix(folder, kpis=["accuracy"])
    assert found.place(TEACHER).probability == pytest.approx(1.0)
    assert found.place("topics-student-int8").probability == 0.0
    # By the intervals apart, which overlap, it would lie above the other in half of the draws


def test_two_runs_of_one_study_stand_in_one_matrix(folder, tmp_path):
    manifest = copy.deepcopy(topics_manifest())
    manifest["environment"]["cpu"] = "Another"
    other = write_topics(tmp_path / "gpu", manifest=manifest)
    review = review_runs([folder, other])
    assert len(review.matrices) == 1
    found = review.matrices[0]
    assert {one.name for one in found.candidates} >= {f"{STUDENT} [run]", f"{STUDENT} [gpu]"}
    assert any(risk.kind == "machine" for risk in found.risks)
    manifest["study"]["objective"] = "accuracy>=0.9x teacher, p95<50ms"
    typed = write_topics(tmp_path / "typed", manifest=manifest)
    assert len(review_runs([folder, typed]).matrices) == 1  # the same, written otherwise
    manifest["data"] = {"topics": {"digest": "other"}}
    third = write_topics(tmp_path / "third", manifest=manifest)
    assert len(review_runs([folder, third]).matrices) == 2


def test_risks_name_what_is_invalid_small_or_lost_by_slice(tmp_path):
    slices = (
        SliceLoss("class", "sport", 200, 0.9, 0.7, Estimate(0.2, 0.12, 0.28), 0.15, 0.001, None),
        SliceLoss("class", "law", 200, 0.9, 0.88, Estimate(0.02, -0.03, 0.07), 0.0, 0.6, None),
    )

    def change(run):
        scores = tuple(replace(one, units=90) for one in run.scores)
        return replace(run, scores=scores)

    folder = write_topics(tmp_path / "run", change=change)
    for name in (STUDENT, "topics-student-int8"):
        entry = LossEntry(name, "x", "topics", None, slices=slices, metric="accuracy")
        Journal.read(folder / "journal.jsonl").add(entry)
    risks = matrix(folder).risks
    told = [risk.text for risk in risks if risk.kind == "slice"]
    assert len(told) == 1  # of the recommended variant, and the slice that is surely worse
    assert "class is sport" in told[0]
    assert "\u221220.00 accuracy points" in told[0]
    assert any("90 independent samples" in r.text for r in risks if r.kind == "small sample")
    invalid = next(risk for risk in risks if risk.kind == "invalid")
    assert invalid.trial_id
    assert invalid.text.startswith("1 of 55 trials is invalid: ")


@dataclass(frozen=True)
class ToyPlan:
    """What another command leaves in a run folder."""

    error_rates: dict[str, float]


def test_another_document_adds_figures_facts_and_risks_by_one_entry(folder, monkeypatch):
    """A toy plan that estimates error rates, and brings a fact for the page."""

    def contribute(plan, run):
        figures = tuple(
            VariantFigure(
                name,
                Figure(
                    "error_rate", Estimate(v, v / 2, v * 2), run, basis=FigureBasis.ESTIMATE,
                    note="scaled from another machine",
                ),
            )
            for name, v in plan.error_rates.items()
        )  # fmt: skip
        fact = PlannedFact("Return on investment", "Break-even", "14 days", run)
        return Contribution(figures, facts=(("topics", fact),))

    monkeypatch.setattr(contributions, "CONTRIBUTORS", [Contributor("toy", ToyPlan, contribute)])
    assert "error_rate" not in matrix(folder).metrics
    write_document(folder, "toy", ToyPlan({STUDENT: 0.01, TEACHER: 0.02}))
    found = matrix(folder)
    assert found.candidate(STUDENT).figure("error_rate").estimate == Estimate(0.01, 0.005, 0.02)
    assert "error_rate" in found.metrics
    extrapolated = [risk.text for risk in found.risks if risk.kind == "extrapolated"]
    assert any(STUDENT in text and "scaled from another machine" in text for text in extrapolated)
    assert run_command(["decide", str(folder)]) == 0
    assert "14 days" in (folder / "decision.html").read_text()
    assert "Return on investment" in (folder / "decision.md").read_text()


def test_what_plan_says_of_replicas_is_on_the_page(folder):
    assert run_command(["plan", str(folder), "--demand", "300/s", "--peak", "2x"]) == 0
    plan = read_document(folder, "plan", CapacityPlan)
    assert run_command(["decide", str(folder)]) == 0
    page = (folder / "decision.md").read_text()
    assert "Replicas for 600 requests/s at the peak" in page
    planned = [one for one in plan.deployments if one.replicas is not None]
    assert planned
    for one in planned:
        replicas = f"{one.replicas.peak}, or {one.replicas.recommended} with headroom; predicted"
        assert f"| {one.variant} ({one.serving.label}) | {replicas}" in page


def test_costs_and_what_is_saved_are_on_the_page(priceable):
    """On the measured type, though another was priced too; the figures are those of cost.json."""
    before = matrix(priceable)
    assert "cost" not in before.metrics
    command = ["cost", str(priceable), "--measured-on", "c7i.large", "--demand", "300/s"]
    types = ["--instance", "c7i.xlarge", "--instance", "c7i.large"]
    assert run_command([*command, *types, "--training-cost", "1000"]) == 0
    costs = read_document(priceable, "cost", CostReport)
    found = matrix(priceable)
    assert "cost" in found.metrics
    here = {one.variant: one for one in costs.costs if one.instance == "c7i.large"}
    assert STUDENT in here
    for name, one in here.items():
        figure = found.candidate(name).figure("cost")
        amount = one.usd_per_million_inferences
        assert figure.estimate == Estimate(amount.value, amount.low, amount.high)
        assert (figure.trial_id, figure.basis) == (one.trial_id, FigureBasis.MEASURED)
        assert figure.note == "on c7i.large, 1 per request"
    assert {fact.heading for fact in found.facts} == {
        "Cost per month on c7i.large for 300 requests/s at the peak, none of them spare",
        "Return on investment",
    }
    assert all("c7i.xlarge" not in fact.name + fact.value for fact in found.facts)
    plots = {plot.key for plot in pareto_plots(found, 1)}
    assert {"decision-1-cost-accuracy", "decision-1-cost-p95"} <= plots
    assert run_command(["decide", str(priceable)]) == 0
    page = (priceable / "decision.md").read_text()
    assert "1,000 USD paid back after" in page
    assert run_command(["decide", str(priceable), "--weights", "accuracy=1,cost=1"]) == 0


def test_costs_of_runs_on_different_machines_are_a_risk(priceable, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(priceable, other)
    for run, instance in ((priceable, "c7i.large"), (other, "c7i.xlarge")):
        command = ["cost", str(run), "--measured-on", "c7i.large", "--instance", instance]
        assert run_command(command) == 0
    (found,) = review_runs([priceable, other]).matrices
    told = [risk.text for risk in found.risks if risk.kind == "machine"]
    assert told == ["costs are of different machines: on c7i.large, on c7i.xlarge"]
    assert not any(risk.kind == "machine" for risk in matrix(priceable).risks)


def test_a_demand_of_less_than_one_a_second_is_not_none(priceable):
    command = ["--measured-on", "c7i.large", "--instance", "c7i.large", "--demand", "20/min"]
    assert run_command(["cost", str(priceable), *command]) == 0
    assert run_command(["plan", str(priceable), "--demand", "20/min"]) == 0
    headings = {fact.heading for fact in matrix(priceable).facts}
    assert "Replicas for 0.333 requests/s at the peak" in headings
    assert any("on c7i.large for 0.333 requests/s at the peak" in one for one in headings)


def test_a_study_that_prices_its_trials_has_their_cost_and_no_other(priceable, monkeypatch):
    command = ["cost", str(priceable), "--measured-on", "c7i.large", "--instance", "c7i.large"]
    assert run_command(command) == 0
    run = read_run(priceable)
    priced = tuple(replace(one, pricing=Pricing("rack-1", 3.6)) for one in run.trials)
    monkeypatch.setattr(decisions, "read_run", lambda _: replace(run, trials=priced))
    student = matrix(priceable).candidate(STUDENT)
    figures = [one for one in student.figures if one.metric == "cost"]
    assert [one.note for one in figures] == ["on rack-1"]
    rate = student.figure("throughput").estimate.value
    assert figures[0].estimate.value == pytest.approx(
        1000.0 / rate
    )  # 3.6 USD/h: 0.001 USD a second


def test_a_plan_is_priced_with_its_headroom(priceable, capsys):
    plan = ["plan", str(priceable), "--demand", "300/s", "--peak", "2x"]
    assert run_command([*plan, "--instance", "c7i.lrge"]) == 2
    assert "did you mean c7i.large" in capsys.readouterr().err
    assert run_command([*plan, "--measured-on", "c7i.large"]) == 2
    assert "--measured-on says something of --instance" in capsys.readouterr().err
    assert run_command([*plan, "--instance", "c7i.large", "--measured-on", "c7i.lrge"]) == 2
    assert "did you mean c7i.large" in capsys.readouterr().err
    assert read_document(priceable, "plan", CapacityPlan) is None
    assert run_command([*plan, "--instance", "c7i.large", "--measured-on", "c7i.large"]) == 0
    assert "USD/month" in capsys.readouterr().out
    planned = read_document(priceable, "plan", CapacityPlan)
    costs = read_document(priceable, "cost", CostReport)
    assert costs.planned
    assert costs.demand == planned.demand
    assert any("sure to carry the demand" in note for note in costs.notes)
    replicas = {}
    for one in planned.deployments:
        if one.replicas:
            replicas.setdefault(one.variant, []).append(one.replicas.recommended)
    for one in costs.costs:
        if one.variant in replicas:
            fewest = min(replicas[one.variant])
            assert one.fleet.machines.value == fewest
            assert one.fleet.usd_per_month.value == pytest.approx(fewest * 0.08925 * 730)
    assert run_command(["cost", str(priceable), "--measured-on", "c7i.large"]) == 0
    assert read_document(priceable, "cost", CostReport).planned  # the plan's demand is the default
    other = ["cost", str(priceable), "--measured-on", "c7i.large", "--demand", "301/s"]
    assert run_command(other) == 0
    assert not read_document(priceable, "cost", CostReport).planned


def test_json_is_the_document(folder, capsys):
    capsys.readouterr()
    assert run_command(["decide", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["matrices"][0]["family"] == "topics"


def test_a_plots_front_is_that_of_all_points():
    points = [(1.0, 5.0), (2.0, 7.0), (3.0, 6.0), (4.0, 9.0)]
    assert front_of(points, low_x=True, low_y=False) == [(1.0, 5.0), (2.0, 7.0), (4.0, 9.0)]
    assert front_of(points, low_x=False, low_y=False) == [(4.0, 9.0)]
    assert front_of(points, low_x=True, low_y=True) == [(1.0, 5.0)]


def test_a_plan_that_is_printed_as_json_is_priced_all_the_same(priceable, capsys):
    machine = ["--instance", "c7i.large", "--measured-on", "c7i.large"]
    assert run_command(["plan", str(priceable), "--demand", "300/s", *machine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["demand"]["rate_per_s"] == 300.0
    assert {one.instance for one in read_document(priceable, "cost", CostReport).costs} == {
        "c7i.large"
    }
