"""A new metric is one entry (and its computation): from there on it is known wherever metrics are.

Each toy is entered in the registry, and nothing else is changed.
"""

import dataclasses
import io
import json

import numpy as np
import pytest
from local_study import write_local_study
from planning_samples import judge_trial, make_result, make_score, make_trial
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console
from sample_run import sample_run

from harness.errors import ObjectiveError, StudyError
from harness.metrics import METRICS, metric_named
from harness.planning.clauses import MEASURES, Interval, Measured
from harness.planning.decision import judge_quality
from harness.report.family_results import FamilyResults, families_of
from harness.report.tables.quality import models_table
from harness.report.terminal.trial import trial_table
from harness.statistics.metrics import share_statistic
from harness.study import study_schema
from harness.study.clauses import judged_latency, load_clauses, quality_clauses
from harness.study.file import load_study
from harness.study.objective import parse_objective
from harness.telemetry.exposition.monitor import LoadMonitor, labels_of
from harness.telemetry.exposition.page import MonitorCollector
from harness.types import SPANS, Decision, LatencySpan, Moment
from harness.types.metrics import PLAIN, SHARE, Metric, MetricKind, Unit
from harness.words.labels import cause_title
from harness.words.metrics import as_markdown
from harness.words.numbers import amount, heading, metric_value, relative_value

PASS, FAIL, UNDECIDED = Decision.PASS, Decision.FAIL, Decision.UNDECIDED
TOY = Metric(
    name="toy_score", kind=MetricKind.QUALITY, title="toy-score",
    of="share of the rows that please", lower_is_better=False, unit=SHARE, example="70%",
    tasks=("sequence-classification",), missed="below the quality floor",
)  # fmt: skip
TOY_ERROR = dataclasses.replace(
    TOY, name="toy_error", title="toy error", lower_is_better=True, unit=PLAIN, example="0.5"
)
SHED = Metric(
    name="shed_rate", kind=MetricKind.SHARE, title="shed rate", of="share of requests shed",
    lower_is_better=True, unit=SHARE, example="2%", missed="too many shed requests",
)  # fmt: skip
PRICE = Metric(
    name="price", kind=MetricKind.COST, title="price", of="cents per thousand inferences",
    lower_is_better=True, unit=Unit({"c": 1.0, "/euro": 100.0}, " c"), example="3 c",
    missed="too dear",
)  # fmt: skip
TTFT = LatencySpan(
    "ttft", "time to first token", Moment.SENT, "first token", "harness_ttft_seconds",
    "From the send of a request to its first token.", judged=True,
)  # fmt: skip


def measured(value, low, high):
    return lambda result: Measured(value, Interval(value, low, high), 0.95, "3 of 100 requests")


@pytest.fixture(autouse=True)
def _entered(monkeypatch):
    for one in (TOY, TOY_ERROR, SHED, PRICE):
        monkeypatch.setitem(METRICS.entries, one.name, one)
    monkeypatch.setitem(MEASURES, "shed_rate", measured(0.03, 0.01, 0.05))
    monkeypatch.setitem(MEASURES, "price", measured(2.5, 2.4, 2.6))
    monkeypatch.setitem(SPANS, "ttft", TTFT)


def clause_of(text):
    (clause,) = parse_objective(text).constraints
    return clause


@pytest.mark.parametrize(
    ("text", "metric", "value", "said"),
    [
        ("toy_score >= 70%", "toy_score", 0.7, "70%"),
        ("toy_score >= 90% of teacher", "toy_score", 0.9, "90%"),
        (">= 90% of the teacher's toy_score", "toy_score", 0.9, "90%"),
        ("toy_error <= 1.1x teacher", "toy_error", 1.1, "1.1\u00d7"),
        ("toy_error < 0.25", "toy_error", 0.25, "0.25"),
        ("shed_rate < 2%", "shed_rate", 0.02, "2%"),
        ("price <= 3 c", "price", 3.0, "3 c"),
        ("price <= 0.03 / euro", "price", 3.0, "3 c"),
        ("ttft_p95 < 0.2 s", "ttft_p95", 200.0, "200 ms"),
        ("ttft_mean < 90 ms", "ttft_mean", 90.0, "90 ms"),
    ],
)
def test_the_grammar_knows_it(text, metric, value, said):
    clause = clause_of(text)
    assert (clause.metric, clause.value) == (metric, value)
    assert amount(clause) == said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("toy_scor > 70%", "did you mean toy_score?"),
        ("toy_score < 70%", "toy_score needs a lower bound"),
        ("toy_score > 70 ms", "toy_score is not measured in 'ms'"),
        ("toy_score > 170%", "no model can meet this: toy-score is never above 100%"),
        ("toy_error < 20%", "toy_error is not measured in '%'"),
        ("shed_rate < 90% of teacher", "shed_rate cannot be relative to the teacher"),
        ("price < 3", "expected c, /euro, as in 3 c"),
        ("ttft_p97 < 50 ms", "did you mean ttft_p99?"),
        ("nothing < 50 ms", "ttft_p50, ttft_p90, ttft_p95, ttft_p99, ttft_mean"),
        ("nothing < 50 ms", "toy_score, toy_error, shed_rate, price"),
    ],
)
def test_errors_of_the_grammar_know_it(text, told):
    with pytest.raises(ObjectiveError) as caught:
        parse_objective(text)
    assert told in str(caught.value)


def test_a_study_knows_it_and_refuses_it_of_another_task(tmp_path):
    study = load_study(write_local_study(tmp_path, cost={"instance": "g5.xlarge"}))
    asked = parse_objective("toy_score >= 70%, ttft_p99 < 300 ms, price < 5 c")
    assert study.asked_otherwise(objective=asked).objective == asked
    with pytest.raises(StudyError, match=r"asks for exact_match.*toy_score, toy_error"):
        study.asked_otherwise(objective=parse_objective("exact_match > 1%"))


@pytest.mark.parametrize("name", ["toy_score", "toy_error", "shed_rate", "price", "ttft_p95"])
def test_the_schema_and_the_page_list_it(name):
    metric = metric_named(name)
    objective = study_schema()["properties"]["objective"]
    assert f"{metric.clause} ({metric.of})" in objective["description"]
    assert metric.clause in objective["examples"]
    assert f"| `{name}` | {metric.of} |" in as_markdown()


@pytest.mark.parametrize(
    ("objective", "score", "decision", "reason"),
    [
        ("toy_score >= 90% of teacher", {"relative": 0.95}, PASS,
         "keeps 95.0% (93.0\u201397.0%) of the teacher's toy-score"),
        ("toy_score >= 75%", {"value": 0.8}, PASS, "has toy-score 80.0% (78.0\u201382.0%)"),
        ("toy_score >= 85%", {"value": 0.8}, FAIL,
         "has toy-score 80.0% (78.0\u201382.0%), where at least 85% is asked for"),
        ("toy_error <= 0.9", {"metric": "toy_error", "value": 0.8}, PASS,
         "has toy error 0.800 (0.780\u20130.820)"),
        ("toy_error <= 1.5x teacher", {"metric": "toy_error", "relative": 1.6}, FAIL,
         ("has 1.60\u00d7 (1.58\u20131.62\u00d7) the teacher's toy error, where at most "
          "1.5\u00d7 is asked for")),
    ],
)  # fmt: skip
def test_a_quality_is_judged_and_worded(objective, score, decision, reason):
    found = judge_quality(
        parse_objective(objective), [make_score(**{"metric": "toy_score", **score})],
        [make_score("teacher", metric="toy_score", value=0.82, relative=1.0)],
    )  # fmt: skip
    assert (found.decision, found.reason) == (decision, reason)


def test_a_quality_not_scored_is_undecided():
    found, reason, _ = judge_quality(parse_objective("toy_score > 70%"), [make_score()], [])
    assert (found, reason) == (UNDECIDED, "toy-score was not scored: score it first")


@pytest.mark.parametrize(
    ("objective", "decision", "reason"),
    [
        ("shed_rate <= 5%", PASS, ""),
        ("shed_rate < 0.5%", FAIL,
         "shed rate 3.0% (3 of 100 requests, 95% interval 1.0\u20135.0%) is over 0.5%"),
        ("shed_rate < 2%", UNDECIDED,
         ("shed rate 3.0% (3 of 100 requests, 95% interval 1.0\u20135.0%) cannot yet be told from "
          "2%: about 4 times as many requests would tell")),
        ("price < 3 c", PASS, ""),
        ("price < 2 c", FAIL,
         "price 2.50 c (3 of 100 requests, 95% interval 2.40\u20132.60 c) is over 2 c"),
    ],
)  # fmt: skip
def test_a_share_and_a_cost_are_judged_and_worded(objective, decision, reason):
    assert judge_trial(parse_objective(objective), make_result()) == (decision, reason)


def with_ttft(result):
    return dataclasses.replace(
        result, latencies={**result.latencies, "ttft": make_result(p95_ms=10.0).latency}
    )


@pytest.mark.parametrize(
    ("objective", "decision", "reason"),
    [
        ("ttft_p95 < 11 ms, p95 < 50 ms", PASS, ""),
        ("ttft_p95 < 9 ms", FAIL,
         "time to first token p95 10.0 ms (95% interval 9.50\u201310.5 ms) is over 9 ms"),
        ("ttft_mean < 7 ms", PASS, ""),
    ],
)  # fmt: skip
def test_a_spans_statistic_is_judged_by_its_own_values(objective, decision, reason):
    assert judge_trial(parse_objective(objective), with_ttft(make_result())) == (decision, reason)


def test_a_span_that_no_request_has_decides_nothing():
    found, reason = judge_trial(parse_objective("ttft_p95 < 9 ms"), make_result())
    assert found is UNDECIDED
    assert reason == "no answered request has it, so nothing is known of time to first token p95"


def test_it_is_filed_and_labelled():
    slo = parse_objective("toy_score > 70%, shed_rate < 2%, ttft_p95 < 9 ms")
    assert [one.metric for one in quality_clauses(slo)] == ["toy_score"]
    assert [one.metric for one in load_clauses(slo)] == ["shed_rate", "ttft_p95"]
    assert judged_latency(slo).name == "ttft_p95"
    assert cause_title("shed_rate") == "too many shed requests"
    assert cause_title("latency") == "too slow to answer"
    assert (heading("toy_score"), metric_value("toy_score", 0.8123)) == ("Toy-score", "81.2%")
    assert relative_value("toy_error", 1.234) == "1.23\u00d7"
    statistic = share_statistic("toy_score", np.array([True, True, False, True]))
    assert statistic.value == 0.75


def test_the_terminal_and_the_report_show_it():
    run = sample_run()
    scores = tuple(dataclasses.replace(one, metric="toy_score") for one in run.scores)
    scores = tuple(
        new for new, one in zip(scores, run.scores, strict=True) if one.metric == "accuracy"
    )
    asked = parse_objective("ttft_p95 < 20 ms, toy_score >= 90% of teacher")
    family = families_of(dataclasses.replace(run, scores=scores))[0]
    family = dataclasses.replace(family, objective=asked)
    assert isinstance(family, FamilyResults)
    table = models_table(family)
    assert "Toy-score" in [column.title for column in table.columns]
    assert any(metric_named("ttft_p95").title in column.title for column in table.columns)
    text = io.StringIO()
    result = with_ttft(make_result())
    Console(file=text, width=120, color_system=None).print(trial_table(result, asked))
    assert "ttft_p95 < 20 ms" in text.getvalue()
    assert "toy_score >= 90% of teacher: a load test does not measure quality" in text.getvalue()


def test_prometheus_gets_its_bound_under_its_kind():
    monitor = LoadMonitor()
    slo = parse_objective("ttft_p95 < 200 ms, shed_rate < 2%, price < 3 c, toy_score >= 70%")
    labels = labels_of("student", make_trial().workload)
    monitor.begin(labels, slo, family="topics", concurrency=4, rate_per_s=None)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MonitorCollector(monitor))
    page = generate_latest(registry).decode()
    bounds = [line for line in page.splitlines() if line.startswith("harness_objective_bound_")]
    found = {
        line.split("{")[0].removeprefix("harness_objective_bound_"): float(line.split()[-1])
        for line in bounds
    }
    assert found == {"seconds": 0.2, "ratio": 0.02, "cost": 3.0, "score": 0.7}


def test_a_study_and_a_verdict_with_it_are_read_back(tmp_path):
    study = load_study(write_local_study(tmp_path)).asked_otherwise(
        objective=parse_objective("ttft_p95 < 200 ms, toy_score >= 70%")
    )
    written = json.loads(study.model_dump_json())["objective"]
    assert parse_objective(written) == study.objective
