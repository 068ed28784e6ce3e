"""What the search measures once more before it recommends it, and what it does if that fails."""

import dataclasses

import pytest
from closed_queue import DEMO_MODELS, ServedModel, demo_space, measure
from planning_samples import make_result
from search_drive import (
    SLO,
    SLOW,
    drive,
    make_search,
    recommended,
    true_best,
    verdict_of,
)

from harness.planning.assessment import QualityJudgement
from harness.planning.decision import decide
from harness.study.objective import parse_objective
from harness.types import Decision, WireProtocol


def test_the_winner_is_measured_afresh_and_longer():
    results = drive(make_search())
    confirm = next(one.trial for one in results if one.trial.stage == "confirm")
    assert confirm.repeat == 1
    assert confirm.trial_id.endswith("-r1")
    assert confirm.workload.duration_s == 4.0


def test_the_fresh_measurement_may_end_early_but_not_before_any_other():
    confirm = next(one.trial for one in drive(make_search()) if one.trial.stage == "confirm")
    assert confirm.workload.min_duration_s == 2.0


def test_what_does_not_hold_up_gives_way_to_the_next_three_times():
    slow = dict.fromkeys(DEMO_MODELS, SLOW)

    def flattering(trial):
        return measure(trial, models=slow if trial.stage == "confirm" else DEMO_MODELS)

    results = drive(make_search(), flattering)
    confirms = [one for one in results if one.trial.stage == "confirm"]
    assert len({one.trial.trial_id for one in confirms}) == 3
    quality = dict.fromkeys(DEMO_MODELS, QualityJudgement(Decision.PASS, "keeps it"))
    assert decide("topics", SLO, quality, results).decision is not Decision.PASS


def test_a_lucky_cell_is_not_recommended():
    """One load seems to give three times what it does; measured again it is too slow."""
    lucky = "student-int8--mb16-qd0-i1-t1--http-b8-c8"

    def system(trial):
        result = measure(trial)
        if not trial.trial_id.startswith(lucky):
            return result
        if trial.stage == "confirm":
            return make_result(trial, p95_ms=80.0, rate=result.throughput_inferences_per_s)
        return make_result(trial, p95_ms=20.0, rate=3 * result.throughput_inferences_per_s)

    results = drive(make_search(), system)
    assert lucky in {one.trial.trial_id for one in results}
    found = recommended(results)
    assert not found.trial.trial_id.startswith(lucky)
    assert found.throughput_inferences_per_s >= 0.95 * true_best(demo_space(), DEMO_MODELS)


def test_what_only_seemed_to_hold_is_sought_below():
    """The sweep flatters this cell by a quarter; a lighter load takes the place of the winner."""
    _, serving, workloads = demo_space()
    only = [w for w in workloads if (w.protocol, w.client_batch_size) == (WireProtocol.GRPC, 1)]
    slo = parse_objective("p95 < 13.5 ms")

    def flattering(trial):
        result = measure(trial, models={"slow": ServedModel(4.0, 0.5)})
        p95_ms = result.latency.percentiles["p95"].value_ms
        factor = 1.0 if trial.stage == "confirm" else 0.75
        return make_result(trial, p95_ms=factor * p95_ms, rate=result.throughput_inferences_per_s)

    results = drive(make_search(slo=slo, space=(["slow"], serving[:1], only)), flattering)
    confirms = [one for one in results if one.trial.stage == "confirm"]
    decided = decide("topics", slo, {"slow": QualityJudgement(Decision.PASS, "keeps it")}, results)
    assert [one.trial.workload.concurrency for one in confirms] == [16, 11]
    assert decided.recommended == confirms[-1].trial.trial_id


def test_a_clearly_better_candidate_is_confirmed_too():
    confirmed = []

    def fading(trial):
        result = measure(trial)
        if trial.stage == "confirm":
            confirmed.append(trial)
        factor = 0.5 if len(confirmed) == 1 else 1.0
        return dataclasses.replace(
            result, throughput_inferences_per_s=factor * result.throughput_inferences_per_s
        )

    results = drive(make_search(), fading)
    assert len(confirmed) == 2
    assert recommended(results).trial == confirmed[1]


def test_a_confirmation_decides_what_the_sweep_could_not():
    def slowly_decided(trial):
        result = measure(trial)
        p95_ms = result.latency.percentiles["p95"].value_ms
        width = 0.04 if trial.stage == "confirm" else 30.0
        return make_result(
            trial, p95_ms=p95_ms, width=width, rate=result.throughput_inferences_per_s
        )

    assert recommended(drive(make_search(), slowly_decided)).trial.variant == "student-int8"


def test_proven_quality_is_confirmed_before_unproven():
    results = drive(make_search(unproven={"student-int8"}))
    confirmed = [one.trial.variant for one in results if one.trial.stage == "confirm"]
    assert confirmed
    assert "student-int8" not in confirmed
    only = drive(make_search(unproven=set(DEMO_MODELS)))
    assert any(one.trial.stage == "confirm" for one in only)


def test_what_is_no_candidate_is_never_confirmed_and_rules_none_out():
    teachers = {"teacher-fp32", "teacher-int8"}
    fast = {**DEMO_MODELS, "teacher-fp32": DEMO_MODELS["student-int8"]}
    slow = {**fast, "student-int8": DEMO_MODELS["student-fp32"]}
    search = make_search(yardsticks=teachers)
    results = drive(search, lambda trial: measure(trial, models=slow))
    confirmed = {one.trial.variant for one in results if one.trial.stage == "confirm"}
    assert confirmed
    assert confirmed <= set(DEMO_MODELS) - teachers
    students_left_out = [one for one in search.pruned if one.variant not in teachers]
    assert not [one for one in students_left_out if "; teacher-" in one.reason]


def test_an_invalid_trial_that_would_be_the_best_is_measured_again_once():
    winner = recommended(drive(make_search())).trial.trial_id.removesuffix("-r1")

    def spoiled_once(trial):
        return measure(trial, invalid="not steady yet" if trial.trial_id == winner else "")

    results = drive(make_search(), spoiled_once)
    again = [one for one in results if one.trial.repeat == 2]
    assert [one.trial.trial_id for one in again] == [f"{winner}-r2"]
    assert recommended(results).trial.trial_id == f"{winner}-r1"
    assert len({one.trial.trial_id for one in results}) == len(results)


def test_what_stays_invalid_is_measured_again_three_times_at_most():
    def broken(trial):
        return measure(trial, invalid="the generator was the limit")

    results = drive(make_search(), broken)
    assert sum(one.trial.repeat == 2 for one in results) == 3


def test_a_fresh_measurement_that_is_invalid_is_measured_once_more():
    def spoiled_once(trial):
        return measure(trial, invalid="the server lacked CPU" if trial.repeat == 1 else "")

    results = drive(make_search(), spoiled_once)
    first, again = (one.trial for one in results if one.trial.stage == "confirm")
    assert (first.repeat, again.repeat) == (1, 7)
    assert dataclasses.replace(again, repeat=1) == first
    assert not again.after_longer_warm_up
    assert len({one.trial.trial_id for one in results}) == len(results)
    assert recommended(results).trial == again


def test_what_is_invalid_the_second_time_too_stays_unconfirmed():
    def spoiled(trial):
        return measure(trial, invalid="too little CPU" if trial.stage == "confirm" else "")

    results = drive(make_search(), spoiled)
    repeats = [one.trial.repeat for one in results if one.trial.stage == "confirm"]
    assert repeats == [1, 7] * 3
    decided = verdict_of(results)
    assert decided.decision is Decision.UNDECIDED
    assert "too little CPU" in decided.summary


def spoiled_but_measured_better_again(name, best):
    """A system in which the best trial of one variant is invalid the first time."""

    def system(trial):
        spoils = trial.variant == name and trial.repeat == 0 and trial.configuration in best
        return measure(trial, invalid="the generator was the limit" if spoils else "")

    return system


@pytest.mark.parametrize("kind", ["unproven", "yardsticks"])
def test_a_faster_variant_that_cannot_be_recommended_leaves_no_candidate_invalid(kind):
    """student-int8 is faster than all; student-fp32 is what may be recommended."""
    reserved = {kind: {"student-int8", "teacher-fp32"}}
    undisturbed = drive(make_search(**reserved))
    winner = next(one.trial for one in undisturbed if one.trial.stage == "confirm")
    assert winner.variant == "student-fp32"
    system = spoiled_but_measured_better_again("student-fp32", {winner.configuration})
    again = [one.trial for one in drive(make_search(**reserved), system) if one.trial.repeat == 2]
    assert [one.configuration for one in again] == [winner.configuration]


def test_candidates_come_first_among_what_is_measured_again():
    def broken(trial):
        return measure(trial, invalid="the generator was the limit")

    results = drive(make_search(unproven={"student-int8"}), broken)
    again = [one.trial.variant for one in results if one.trial.repeat == 2]
    assert again
    assert again[0] != "student-int8"
