"""Which open loops follow a verdict: whose, at which rates, in which configuration."""

from dataclasses import replace

import pytest
from planning_samples import make_result, make_trial

from harness.planning.saturation import SaturationTerms, saturation_trials
from harness.types import (
    SATURATION,
    ArrivalKind,
    Decision,
    LoadMode,
    ServingConfig,
    Trial,
    Verdict,
    WireProtocol,
    Workload,
)

TERMS = SaturationTerms(shares=(0.5, 0.25, 0.8), duration_s=3.0, max_in_flight=256)
TEACHERS = ("teacher", "teacher-int8")


def result(variant, rate, *, batch=4, concurrency=4, decision=Decision.PASS, **changes):
    """`rate` is in inferences per second."""
    trial = make_trial(variant, batch=batch, concurrency=concurrency)
    invalid = "the generator was the limit" if decision is Decision.INVALID else ""
    made = make_result(replace(trial, **changes), rate=rate, invalid=invalid)
    return replace(made, decision=decision)


def verdict(recommended=None, decision=Decision.PASS):
    wanted = recommended.trial.trial_id if recommended else None
    return Verdict("topics", "p95 < 50 ms", decision, wanted, "", ())


def rates(trials, variant):
    return [one.workload.rate_per_s for one in trials if one.variant == variant]


def test_winner_and_teacher_are_measured_at_shares_of_the_highest_throughput_found():
    winner = result("student", 4000.0, concurrency=8)
    results = [
        winner,
        result("student", 4800.0, concurrency=64, decision=Decision.FAIL),  # too slow, but valid
        result("student", 9000.0, concurrency=32, decision=Decision.INVALID),
        result("student", 9999.0, batch=16),  # other requests
        result("student", 9999.0, serving=ServingConfig(instance_count=2)),  # served otherwise
        result("teacher", 800.0),
        result("teacher-int8", 1200.0),
    ]
    trials = saturation_trials(verdict(winner), results, TEACHERS, TERMS)
    # 4,800 inferences in requests of 4 are 1,200 requests per second.
    assert rates(trials, "student") == [300.0, 600.0, 960.0]
    assert rates(trials, "teacher-int8") == [75.0, 150.0, 240.0]
    assert {one.variant for one in trials} == {"student", "teacher-int8"}


def test_they_are_the_winners_configuration_in_an_open_loop():
    winner = result("student", 1000.0, concurrency=8)
    first, *_, last = saturation_trials(verdict(winner), [winner], TEACHERS, TERMS)
    workload = first.workload
    assert first.serving == winner.trial.serving
    assert (first.stage, first.repeat) == (SATURATION, 0)
    assert workload.load_mode is LoadMode.OPEN
    assert workload.arrivals.kind is ArrivalKind.POISSON
    assert (workload.client_batch_size, workload.protocol) == (4, WireProtocol.GRPC)
    assert (workload.concurrency, workload.duration_s, workload.min_duration_s) == (256, 3.0, None)
    assert workload.seed != last.workload.seed  # each rate has arrivals of its own


@pytest.mark.parametrize("decision", [Decision.FAIL, Decision.UNDECIDED])
def test_without_a_recommendation_it_is_the_best_student_that_met_the_load_clauses(decision):
    results = [
        result("small", 3000.0, decision=Decision.FAIL),
        result("student", 2000.0),
        result("teacher", 800.0, decision=Decision.FAIL),
    ]
    trials = saturation_trials(verdict(decision=decision), results, TEACHERS, TERMS)
    assert [one.variant for one in trials] == ["student"] * 3 + ["teacher"] * 3


def test_what_a_fresh_measurement_does_not_bear_out_is_not_the_best_that_met_it():
    lucky = [result("student", 9000.0, concurrency=32), result("teacher", 800.0, concurrency=32)]
    fresh = [
        replace(one, trial=replace(one.trial, stage="confirm", repeat=1), decision=Decision.FAIL)
        for one in lucky
    ]
    holds = [result("other", 2000.0), result("teacher-int8", 400.0)]
    trials = saturation_trials(
        verdict(decision=Decision.UNDECIDED), [*lucky, *fresh, *holds], TEACHERS, TERMS
    )
    assert list(dict.fromkeys(one.variant for one in trials)) == ["other", "teacher-int8"]


def test_a_recommended_teacher_is_measured_once():
    teacher = result("teacher", 800.0)
    results = [teacher, result("teacher-int8", 1200.0), result("student", 400.0)]
    trials = saturation_trials(verdict(teacher), results, TEACHERS, TERMS)
    assert [one.variant for one in trials] == ["teacher"] * 3


def test_nothing_valid_and_no_shares_ask_for_nothing():
    spoiled = [result("student", 1000.0, decision=Decision.INVALID)]
    assert not saturation_trials(verdict(), spoiled, TEACHERS, TERMS)
    valid = [result("student", 1000.0)]
    assert not saturation_trials(verdict(), valid, TEACHERS, replace(TERMS, shares=()))


def test_a_search_of_open_loops_never_takes_them_for_its_own():
    workload = Workload(
        WireProtocol.HTTP, 1, 512, 2.0, 0.5, 0, load_mode=LoadMode.OPEN, rate_per_s=300.0
    )
    own = Trial("student", "topics", ServingConfig(), workload, "workload")
    assert replace(own, stage=SATURATION).trial_id == f"{own.trial_id}-saturation"
    again = replace(own, stage=SATURATION, repeat=3)
    assert again.trial_id == f"{own.trial_id}-saturation-r3"
