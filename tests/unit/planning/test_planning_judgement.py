"""One trial, or one variant's scores, against an objective."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_samples import judge_trial, make_result, make_score
from scipy import stats

from harness.planning.decision import judge_quality
from harness.study.objective import parse_objective
from harness.types import RESPONSE, Decision, Percentile

PASS, FAIL, UNDECIDED = Decision.PASS, Decision.FAIL, Decision.UNDECIDED
TEACHER = [make_score("teacher", value=0.82, relative=1.0, spread=0.0)]


def trial(objective, **numbers):
    return judge_trial(parse_objective(objective), make_result(**numbers))


@pytest.mark.parametrize(
    ("low_ms", "decision", "said"),
    [
        (3_600_000.0, FAIL, "p95 is unbounded: the queue never drained, so it is over 50 ms"),
        (900.0, FAIL, "p95 is unbounded, at least 900 ms: the queue never drained, so it is over"),
        (20.0, UNDECIDED, "at least 20.0 ms: the queue never drained, but that could be chance"),
    ],
)
def test_a_queue_that_never_drains_is_said_in_words(low_ms, decision, said):
    result = make_result()
    lost = {**result.latency.percentiles, "p95": Percentile(3_600_000.0, low_ms, 3_600_000.0)}
    latency = dataclasses.replace(result.latency, percentiles=lost)
    found, reason = judge_trial(
        parse_objective("p95 < 50 ms"), dataclasses.replace(result, latencies={RESPONSE: latency})
    )
    assert found is decision
    assert said in reason
    assert "3,600,000" not in reason


@pytest.mark.parametrize(
    ("objective", "decision"),
    [
        ("p95 < 50 ms", PASS),  # 38 to 42
        ("p95 < 39 ms", UNDECIDED),
        ("p95 < 41 ms", UNDECIDED),
        ("p95 < 37 ms", FAIL),
        ("p95 < 42 ms", UNDECIDED),
        ("p95 <= 42 ms", PASS),
        ("p95 < 38 ms", FAIL),
        ("p95 <= 38 ms", UNDECIDED),
        ("mean < 25 ms", PASS),  # 20 to 24
        ("mean < 21 ms", UNDECIDED),
        ("p99 < 50 ms", FAIL),
        ("throughput >= 999/s", PASS),  # 999 to 1,001
        ("throughput >= 1000/s", UNDECIDED),
        ("throughput > 999/s", UNDECIDED),
        ("throughput > 1001/s", FAIL),
        ("p95 < 50 ms, throughput >= 2000/s", FAIL),
        ("p95 < 41 ms, throughput >= 2000/s", FAIL),
        ("accuracy >= 90%", PASS),  # quality clauses are not a trial's business
    ],
)
def test_bounds_decide_not_values(objective, decision):
    verdict, reason = trial(objective)
    assert verdict is decision
    assert bool(reason) is (decision is not PASS)


def test_reasons_carry_their_numbers():
    _, reason = trial("p95 < 37 ms")
    assert reason == "p95 40.0 ms (95% interval 38.0\u201342.0 ms) is over 37 ms"
    _, reason = trial("throughput >= 2000/s")
    assert reason == (
        "throughput 1,000 inferences/s (95% interval 999\u20131,001 inferences/s) is under "
        "2,000 inferences/s"
    )
    _, reason = trial("throughput >= 998/s, p95 < 37 ms")
    assert "inferences/s" not in reason
    _, reason = trial("throughput >= 999.5/s")
    assert reason == (
        "throughput 1,000 inferences/s (95% interval 999\u20131,001 inferences/s) cannot yet be "
        "told from 999.5 inferences/s: about 4 times as many requests would tell"
    )
    _, reason = trial("p95 < 41 ms")
    # 2 ms of interval against 1 ms of room: four times the sample.
    assert "cannot yet be told from 41 ms: about 4 times as many requests" in reason


def test_a_throughput_without_an_interval_decides_nothing():
    """A window too short for its own memory, or a journal from before there were intervals."""
    old = dataclasses.replace(
        make_result(),
        throughput_low_inferences_per_s=None,
        throughput_high_inferences_per_s=None,
    )
    verdict, reason = judge_trial(parse_objective("throughput >= 10/s"), old)
    assert verdict is UNDECIDED
    assert "throughput 1,000 inferences/s has no interval" in reason
    assert "a longer window would tell" in reason


def test_without_an_upper_bound_more_requests_are_asked_for():
    result = make_result(requests=36)
    percentiles = {**result.latency.percentiles, "p95": Percentile(10.0, 8.0, 3_600_000.0)}
    latency = dataclasses.replace(result.latency, percentiles=percentiles)
    decision, reason = judge_trial(
        parse_objective("p95 < 50 ms"), dataclasses.replace(result, latencies={RESPONSE: latency})
    )
    assert decision is UNDECIDED
    assert "95% interval at least 8.00 ms" in reason
    # 72 independent samples give a bound; two requests count as one, and there are 36.
    assert "about 4 times as many requests" in reason


@pytest.mark.parametrize(
    ("failures", "requests", "decision"),
    [
        (0, 2000, UNDECIDED),
        (0, 3687, UNDECIDED),
        (0, 3688, PASS),
        (1, 3688, UNDECIDED),
        (20, 2000, FAIL),
    ],
)
def test_an_error_rate_needs_enough_requests(failures, requests, decision):
    verdict, reason = trial("error_rate < 0.1%", failures=failures, requests=requests)
    assert verdict is decision
    if decision is UNDECIDED:
        assert "times as many requests would tell" in reason


@pytest.mark.parametrize(("failures", "decision"), [(20, PASS), (21, UNDECIDED), (40, FAIL)])
def test_an_objective_without_an_error_rate_allows_one_percent(failures, decision):
    verdict, reason = trial("p95 < 50 ms", failures=failures, requests=2000 - failures)
    assert verdict is decision
    assert bool(reason) is (decision is not PASS)
    assert decision is PASS or "names no error_rate" in reason


@pytest.mark.parametrize("objective", ["p95 < 50 ms", "p95 < 50 ms, error_rate < 0.5%"])
def test_what_an_open_loop_had_to_drop_has_failed(objective):
    result = dataclasses.replace(make_result(requests=1900, failures=20), dropped=80)
    decision, reason = judge_trial(parse_objective(objective), result)
    assert decision is FAIL
    assert "100 of 2,000 requests, 80 of them dropped" in reason


def test_failures_in_bursts_are_fewer_than_they_look():
    """20 of 2,000 are at most 1.6%; in one burst they are one event, of 40 or so."""
    alone = make_result(requests=1980, failures=20)
    burst = dataclasses.replace(alone, failure_design_effect=50.0)
    assert judge_trial(parse_objective("error_rate < 2%"), alone)[0] is PASS
    assert judge_trial(parse_objective("error_rate < 2%"), burst)[0] is UNDECIDED


def test_a_named_error_rate_replaces_the_implied_one():
    assert trial("error_rate < 10%", failures=60, requests=1940)[0] is PASS


def test_an_invalid_trial_decides_nothing():
    verdict, reason = trial("p95 < 50 ms", invalid="the generator was the limit")
    assert (verdict, reason) == (Decision.INVALID, "the generator was the limit")


def test_no_answer_at_all_decides_nothing():
    assert trial("p95 < 50 ms", requests=0)[0] is UNDECIDED


def quality(objective, *scores):
    return judge_quality(parse_objective(objective), list(scores), TEACHER)


@pytest.mark.parametrize(
    ("objective", "score", "decision"),
    [
        ("accuracy >= 90% of teacher", make_score(relative=0.95), PASS),
        ("accuracy >= 90% of teacher", make_score(relative=0.91), UNDECIDED),
        ("accuracy >= 90% of teacher", make_score(relative=0.87), FAIL),
        ("accuracy >= 75%", make_score(value=0.8), PASS),
        ("accuracy >= 79%", make_score(value=0.8), UNDECIDED),
        ("accuracy >= 85%", make_score(value=0.8, relative=1.2), FAIL),
        ("perplexity <= 2x teacher", make_score(metric="perplexity", relative=1.6), PASS),
        ("perplexity <= 1.6x teacher", make_score(metric="perplexity", relative=1.6), UNDECIDED),
        ("perplexity <= 1.5x teacher", make_score(metric="perplexity", relative=1.6), FAIL),
        ("macro_f1 >= 75%", make_score(), UNDECIDED),
        ("accuracy >= 90% of teacher", make_score(relative=None), UNDECIDED),
        ("accuracy >= 99% of teacher", TEACHER[0], PASS),
        ("accuracy >= 85%", TEACHER[0], FAIL),
        ("p95 < 50 ms", make_score(), PASS),
    ],
)
def test_quality(objective, score, decision):
    verdict, reason, _ = quality(objective, score)
    assert verdict is decision
    assert reason


def test_quality_reasons_carry_their_numbers():
    objective = "accuracy >= 90% of teacher"
    _, reason, _ = quality(objective, make_score(relative=0.972, spread=0.018))
    assert reason == "keeps 97.2% (95.4\u201399.0%) of the teacher's accuracy"
    _, reason, _ = quality(objective, make_score(relative=0.8))
    assert reason == (
        "keeps 80.0% (78.0\u201382.0%) of the teacher's accuracy, where at least 90% is asked for"
    )
    _, reason, at_the_bound = quality(objective, make_score(relative=0.91))
    # 1,500 (0.02 / 0.01)^2 (1 + 0.842 / 1.960)^2 = 12,257
    assert "about 13,000 samples (now 1,500) decide it with a chance of 80%" in reason
    assert not at_the_bound
    _, reason, at_the_bound = quality(objective, make_score(relative=0.9))
    assert "it lies at the bound, which no number of samples (now 1,500) will change" in reason
    assert at_the_bound
    _, reason, _ = quality(
        "perplexity <= 2x teacher", make_score(metric="perplexity", relative=1.61, spread=0.05)
    )
    assert reason == "has 1.61\u00d7 (1.56\u20131.66\u00d7) the teacher's perplexity"
    assert quality(objective, TEACHER[0])[1] == "is the teacher itself"


def test_a_perplexity_of_other_tokens_is_undecided_and_says_what_compares():
    student, theirs = make_score(metric="perplexity"), make_score("teacher", "perplexity")
    asked = parse_objective("perplexity <= 2x teacher")
    verdict, reason, _ = judge_quality(asked, [student], [theirs])
    assert verdict is UNDECIDED
    assert reason.endswith("make other tokens of the text; put bits_per_byte into the objective")
    assert judge_quality(asked, [student], [])[1].endswith("score the teacher first")


def agreeing(rows, **fields):
    """Twenty rows of twenty: the exact interval, and what the share of the teacher's has."""
    low = 0.025 ** (1 / rows)
    return dataclasses.replace(
        make_score(value=1.0, relative=1.0), samples=rows, low=low, high=1.0, units=rows,
        standard_error=0.0, relative_low=low, relative_high=1 / low, relative_standard_error=0.0,
        **fields,
    )  # fmt: skip


@pytest.mark.parametrize("objective", ["accuracy >= 95%", "accuracy >= 95% of teacher"])
def test_twenty_right_rows_of_twenty_decide_nothing_and_say_how_many_would(objective):
    verdict, reason, _ = quality(objective, agreeing(20))
    assert verdict is UNDECIDED
    assert "(83.2\u2013" in reason
    # 0.025^(1/72) = 95.006%, 0.025^(1/71) = 94.94%
    assert "about 72 samples (now 20) decide it" in reason
    assert quality(objective, agreeing(71))[0] is UNDECIDED
    assert quality(objective, agreeing(72))[0] is PASS


def test_samples_needed_are_those_that_decide_four_times_in_five():
    """18 of 20 for at least 75%: the chance that n rows more decide it, from the binomial."""
    exact = stats.binomtest(18, 20).proportion_ci()
    score = dataclasses.replace(
        make_score(value=0.9), samples=20, low=exact.low, high=exact.high,
        standard_error=(0.9 * 0.1 / 20) ** 0.5,
    )  # fmt: skip
    verdict, reason, _ = quality("accuracy >= 75%", score)
    assert verdict is UNDECIDED
    needed = int(re.search(r"about (\d+) samples", reason).group(1))
    hits = np.arange(needed + 1)
    passes = [stats.binomtest(int(hit), needed).proportion_ci().low >= 0.75 for hit in hits]
    chance = stats.binom.pmf(hits, needed, 0.9)[passes].sum()
    assert 0.7 < chance < 0.95


def test_what_has_no_interval_is_undecided_in_words():
    one = dataclasses.replace(
        make_score(metric="perplexity", value=12.0, relative=1.1), units=1, samples=40,
        low=None, high=None, relative_low=None, relative_high=None,
    )  # fmt: skip
    for objective in ("perplexity <= 20", "perplexity <= 2x teacher"):
        verdict, reason, _ = quality(objective, one)
        assert verdict is UNDECIDED
        assert "of one text (40 samples): that has no interval" in reason
        assert "more texts would tell" in reason


def test_every_quality_clause_counts():
    objective = "accuracy >= 90% of teacher, macro_f1 >= 75%"
    good, poor = make_score(relative=0.95), make_score(metric="macro_f1", value=0.6)
    verdict, reason, _ = quality(objective, good, poor)
    assert verdict is FAIL
    assert "macro-F1" in reason
    assert "accuracy" not in reason


@given(st.floats(1, 1000), st.floats(0, 0.9), st.floats(1, 1000))
def test_a_pass_never_hides_a_possible_violation(p95_ms, width, bound_ms):
    slo = parse_objective(f"p95 <= {bound_ms:.6f} ms")
    result = make_result(p95_ms=p95_ms, width=width)
    decision, _ = judge_trial(slo, result)
    p95, bound = result.latency.percentiles["p95"], slo.constraints[0].value
    assert (decision is PASS) == (p95.high_ms <= bound)
    assert (decision is FAIL) == (p95.low_ms > bound)
