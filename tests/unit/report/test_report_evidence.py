"""The tables of what was measured of the measurement: trust, cold start, the search."""

from dataclasses import replace

import pytest
from sample_evidence import scaled
from sample_run import sample_run
from unusual_runs import interrupted, no_evidence_over_time, nothing_yet, open_loop

from harness.report.family_results import families_of
from harness.report.page import page_of
from harness.report.selection import leading_trials, service_ms
from harness.report.tables.costs import cold_start_table, ended_early, search_table, search_words
from harness.report.tables.provenance import environment_table
from harness.report.tables.quality import consistency_table, models_table, task_table
from harness.report.tables.trust import trust_table
from harness.study.objective import parse_objective
from harness.types import (
    RESPONSE,
    SERVICE,
    ArrivalKind,
    ArrivalProcess,
    BatchConsistency,
    Decision,
    LoadMode,
    LoadShape,
    QualityScore,
    Role,
    ServerMetrics,
    ShapeKind,
    WireProtocol,
    Workload,
)
from harness.types.streams import StreamCounts, StreamFigures
from harness.words.labels import load_label, load_words
from harness.words.numbers import confidence, seconds


@pytest.fixture(scope="module")
def topics():
    return families_of(sample_run())[0]


@pytest.fixture(scope="module")
def at_a_rate():
    return families_of(open_loop())[0]


def rows_of(table):
    """Measured and tolerated by what."""
    return {
        what.text: (measured.text, tolerated.text) for what, measured, tolerated, _ in table.rows
    }


def test_the_latency_that_is_judged_stands_beside_the_throughput():
    run = sample_run()
    judged = parse_objective("p90 < 30 ms, p50 < 10 ms, accuracy >= 90% of teacher")
    prose = parse_objective("mean < 30 ms")
    page = page_of(replace(run, objectives={"topics": judged, "prose": prose}))
    titles = [column.title for column in page.trials.columns]
    assert titles[2:7] == ["Throughput", "p90", "p50", "mean", "Protocol"]
    assert sorted(titles.count(name) for name in ("p50", "p90", "p95", "p99", "mean")) == [1] * 5
    first = run.trials[0]
    p90_ms = first.latency.percentiles["p90"].value_ms
    assert page.trials.rows[0][titles.index("p90")].sort == p90_ms
    assert page.trials.rows[0][titles.index("mean")].sort == first.latency.mean_ms


def test_sizes_and_shares_of_the_environment_read_as_elsewhere():
    manifest = {"artefacts": {"small": {"size_bytes": 342_000}, "large": {"size_bytes": 8 * 10**9}}}
    manifest |= {"data": {"padding_share": 0.14652}}
    rows = {what.text: value.text for what, value in environment_table(manifest).rows}
    assert rows["artefacts · small · size"] == "0.342 MB"
    assert rows["artefacts · large · size"] == "8.00 GB"
    assert rows["data · padding share"] == "14.7%"


def test_lateness_is_tolerated_by_the_latency_that_was_measured(topics):
    result = topics.recommended
    assert rows_of(trust_table(result))["Lag of its event loop, p99"] == (
        "0.420 ms",
        "at most 10.0 ms",
    )
    slow = replace(result.latency.percentiles["p95"], value_ms=200.0)
    latency = replace(result.latency, percentiles={**result.latency.percentiles, "p95": slow})
    rows = rows_of(trust_table(replace(result, latencies={RESPONSE: latency})))
    assert rows["Schedule delay (sent after due), p99"][1] == "at most 20.0 ms"


def test_a_closed_loop_offers_and_drops_nothing(topics):
    assert not {"Offered load", "Dropped, too many in flight"} & set(
        rows_of(trust_table(topics.recommended))
    )


def test_drops_are_told_from_failures_of_what_was_sent(at_a_rate):
    result = replace(at_a_rate.recommended, requests=90, failures=10, dropped=7)
    rows = rows_of(trust_table(result))
    assert rows["Dropped, too many in flight"][0] == "7 of 107"
    assert rows["Failures of those sent"][0] == "10 of 100"
    counts = StreamCounts(left=3)
    left = replace(result, streams=StreamFigures(counts, 0.0))
    rows_with_left = rows_of(trust_table(left))
    assert rows_with_left["Dropped, too many in flight"][0] == "7 of 110"
    assert rows_with_left["Failures of those sent"][0] == "10 of 103"
    assert rows["Offered load"] == ("729 of 736 requests/s", "at least 95%, chance apart")


def test_a_shape_has_no_rate_to_keep_to(at_a_rate):
    result = at_a_rate.recommended
    shaped = ArrivalProcess(shape=LoadShape(ShapeKind.SINE, 0.5, 1.5, 60.0))
    workload = replace(result.trial.workload, arrivals=shaped)
    rows = rows_of(trust_table(replace(result, trial=replace(result.trial, workload=workload))))
    assert rows["Offered load"] == ("729 requests/s", "\u2013")


def test_a_server_that_counts_nothing_is_not_compared(topics):
    rows = rows_of(trust_table(replace(topics.recommended, server=ServerMetrics())))
    assert not any("Triton" in what for what in rows)


def test_latency_from_the_send_is_shown_only_where_it_reads_a_tenth_lower(topics):
    result = topics.recommended
    p95_ms = result.latency.percentiles["p95"].value_ms
    near = replace(result, latencies={**result.latencies, SERVICE: scaled(result.latency, 0.91)})
    far = replace(result, latencies={**result.latencies, SERVICE: scaled(result.latency, 0.89)})
    assert service_ms(near, "p95") is None
    assert service_ms(far, "p95") == pytest.approx(0.89 * p95_ms)
    assert service_ms(replace(result, latencies={RESPONSE: result.latency}), "p95") is None
    former = replace(
        result, latencies={RESPONSE: result.latency}, values_ms={SERVICE: {"p95": 1.0}}
    )
    assert service_ms(former, "p95") == 1.0
    assert service_ms(former, "p90") is None  # once, three percentiles of it were kept


def test_a_cold_start_says_how_much_slower_the_first_request_is(topics):
    table = cold_start_table(topics)
    first, second = table.rows[:2]
    assert first[2].detail == "6.00\u00d7 steady"
    assert (second[3].text, second[3].detail) == ("\u2013", "not in 300 sent")
    assert [row[0].text for row in table.rows] == [
        variant.name for variant in topics.variants if variant.name != "topics-tiny-fp32"
    ]
    assert cold_start_table(families_of(no_evidence_over_time())[0]) is None


def test_the_search_adds_up(topics):
    table = search_table(topics, resumed=False)
    *stages, total = ([cell.sort for cell in row[1:]] for row in table.rows)
    assert [sum(column) for column in zip(*stages, strict=True)] == pytest.approx(total)
    assert total[0] == len(topics.trials)


def test_the_search_says_how_long_it_took_unless_it_was_interrupted(topics):
    # A trial every 4 s, the last of them 12 s long after 0.45 s of warm-up.
    span_s = round(4 * (len(topics.trials) - 1) + 12.45)
    words = search_words(topics, resumed=False)
    assert f"{len(topics.trials)} trials in {span_s // 60} min {span_s % 60} s" in words
    assert "1 skipped" in words
    assert " in " not in search_words(topics, resumed=True).partition(";")[0]


def test_an_unfinished_family_was_searched_as_far_as_it_went():
    topics, prose = families_of(interrupted())
    assert search_table(topics, resumed=False).rows[-1][1].sort == 17
    assert search_table(prose, resumed=False) is None
    assert families_of(nothing_yet()) == ()


def test_only_a_decided_trial_can_have_ended_early(topics):
    result = replace(topics.recommended, duration_s=0.7, decision=Decision.PASS)
    assert ended_early(result)
    assert not ended_early(replace(result, decision=Decision.INVALID))
    assert not ended_early(replace(result, duration_s=result.trial.workload.duration_s - 1e-9))


def test_without_a_recommendation_the_best_trial_leads():
    run = sample_run()
    verdict = replace(run.verdicts[0], recommended=None, decision=Decision.UNDECIDED)
    undecided = replace(run, verdicts=(verdict,))
    first = leading_trials(families_of(undecided)[0])[0]
    assert first.decision is Decision.PASS
    page = page_of(undecided).families[0]
    assert page.leading_is == "best"
    assert page.leading.startswith(first.trial.variant)


@pytest.mark.parametrize(
    ("mode", "rate_per_s", "arrivals", "words", "label"),
    [
        (LoadMode.CLOSED, None, ArrivalProcess(), "64 in flight", "c64"),
        (LoadMode.OPEN, 250.0, ArrivalProcess(), "250 requests/s Poisson", "250/s"),
        (LoadMode.OPEN, 1234.5, ArrivalProcess(ArrivalKind.CONSTANT), "1,234.5 requests/s constant",
         "1,234.5/s"),
        (LoadMode.OPEN, 20.0, ArrivalProcess(ArrivalKind.GAMMA, 2.5),
         "20 requests/s gamma (variation 2.5)", "20/s"),
        (LoadMode.OPEN, 20.0, ArrivalProcess(shape=LoadShape(ShapeKind.SPIKE, 1, 5, 600)),
         "20 requests/s Poisson, spike 1 to 5 over 600 s", "20/s"),
        (LoadMode.OPEN, None, ArrivalProcess(ArrivalKind.TRACE, trace=None), "trace", "trace"),
    ],
)  # fmt: skip
def test_loads_read_as_people_say_them(mode, rate_per_s, arrivals, words, label):
    workload = Workload(WireProtocol.HTTP, 1, 64, 1.0, 0.0, 0, mode, rate_per_s, arrivals)
    assert load_words(workload) == words
    assert load_label(workload) == label


def test_levels_and_times_show_no_digits_that_nobody_chose():
    assert [confidence(level) for level in (0.95, 0.975, 0.9917)] == ["95%", "97.5%", "99.2%"]
    nearly_sure = (0.9995, 0.9999, 0.99999, 1.0)
    assert [confidence(one) for one in nearly_sure] == ["99.95%", "99.99%", "99.999%", "100%"]
    assert [seconds(value) for value in (0.45, 12.0, 1.9000000000000001)] == ["0.45", "12", "1.9"]


def test_a_task_of_lm_eval_is_no_part_of_the_models_own_test():
    family = families_of(sample_run())[1]
    ours, theirs = (
        QualityScore(
            name, "prose", role, "lambada/acc", 0.5, None, None, 20, "d", 1.0, None, None, p
        )
        for name, role, p in (
            ("prose-teacher-fp32", Role.TEACHER, None),
            ("prose-student-fp32", Role.STUDENT, 0.031),
        )
    )
    family = replace(family, scores=(*family.scores, ours, theirs))
    assert "McNemar p" not in [column.title for column in models_table(family).columns]
    (row,) = task_table(family).rows
    # Without an interval the share of the teacher's stands alone.
    assert row[2].plain == "50.0% (100.0% of teacher)"


def test_texts_that_changed_are_not_called_identical():
    family = families_of(sample_run())[1]
    (name, *_) = family.names
    checks = [
        BatchConsistency(name, 4, 50, changed_predictions=3, max_abs_difference=0.0),
        BatchConsistency(name, 8, 50, changed_predictions=0, max_abs_difference=0.0),
    ]
    ((_, changed, same),) = consistency_table(family, checks).rows
    assert changed.plain == "≠ 3 of 50 changed"
    assert "identical outputs" in same.detail
