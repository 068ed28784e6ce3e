"""The search, driven over made-up systems whose truth is known."""

import dataclasses
import functools
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from closed_queue import DEMO_MODELS, ServedModel, demo_space, measure, operate
from hypothesis import given, settings
from hypothesis import strategies as st
from open_queue import CAPACITY_PER_S, highest_rate_per_s, measure_open, open_space
from planning_samples import make_result

from harness.planning.decision import decide, judge_trial
from harness.planning.objective import parse_objective
from harness.planning.search import BisectionSearch, GridSearch
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    Decision,
    LoadMode,
    ServingConfig,
    WireProtocol,
    Workload,
)

SLO = parse_objective("p95 < 50 ms, accuracy >= 90% of teacher")
SLOW = ServedModel(500.0, 1.0)


def make_search(kind=BisectionSearch, slo=SLO, space=None, **changes):
    variants, serving, workloads = space or demo_space()
    return kind("topics", variants, serving, workloads, slo, confirm_duration_s=4.0, **changes)


def drive(search, system=measure):
    """Run a search to its end; the results in order."""
    results = []
    while (trial := search.ask()) is not None:
        assert search.remaining >= 1
        results.append(system(trial))
        search.tell(results[-1])
    assert search.remaining == 0
    return results


def recommended(results, slo=SLO):
    quality = dict.fromkeys(DEMO_MODELS, (Decision.PASS, "keeps it"))
    decided = decide("topics", slo, quality, results)
    assert decided.decision is Decision.PASS
    return next(one for one in results if one.trial.trial_id == decided.recommended)


def true_best(space, models, bound_ms=50.0):
    """The most inferences/s that any cell gives under the bound, at any number in flight."""
    variants, serving, workloads = space
    heaviest = max(workload.concurrency for workload in workloads)
    outcomes = [
        operate(models[variant], config, dataclasses.replace(workload, concurrency=in_flight))
        for variant in variants
        for config in serving
        for workload in {(w.protocol, w.client_batch_size): w for w in workloads}.values()
        if workload.client_batch_size <= config.max_batch_size
        for in_flight in range(1, heaviest + 1)
    ]
    return max(rate for rate, latency_ms in outcomes if 1.3 * latency_ms < bound_ms)


def reloads(results):
    """How often another variant or serving configuration had to be loaded."""
    loaded = [(one.trial.variant, one.trial.serving) for one in results]
    return 1 + sum(before != after for before, after in pairwise(loaded))


def test_the_demo_takes_a_tenth_of_the_grid_s_trials_and_finds_the_best():
    bisected, grid = drive(make_search()), drive(make_search(GridSearch))
    assert len(bisected) <= 55
    assert len(grid) > 500
    assert reloads(bisected) <= 12
    found, best = recommended(bisected), recommended(grid)
    assert found.trial.variant == best.trial.variant == "student-int8"
    for one in (found, best):
        assert one.throughput_inferences_per_s >= 0.95 * true_best(demo_space(), DEMO_MODELS)


def made_up_system(rng):
    """One to three models whose times lie anywhere in two orders of magnitude, and a bound."""
    fixed_ms, sample_ms = (0.1, 0.3, 1.0, 2.0, 5.0), (0.02, 0.1, 0.3, 1.0, 3.0)
    models = {
        f"model{number}": ServedModel(
            rng.choice(fixed_ms) * rng.uniform(0.8, 1.2),
            rng.choice(sample_ms) * rng.uniform(0.8, 1.2),
        )
        for number in range(rng.randint(1, 3))
    }
    return models, rng.choice([15, 50, 200])


def test_the_best_of_any_system_is_found_in_nineteen_of_twenty():
    """One thing is varied at a time, so what pays only together is missed now and then."""
    rng = random.Random(1)
    shares = []
    for _ in range(40):
        models, bound_ms = made_up_system(rng)
        slo, space = parse_objective(f"p95 < {bound_ms} ms"), (list(models), *demo_space()[1:])
        results = drive(
            make_search(slo=slo, space=space), functools.partial(measure, models=models)
        )
        assert len(results) <= 33 * len(models)
        decided = decide("topics", slo, dict.fromkeys(models, (Decision.PASS, "")), results)
        found = next(one for one in results if one.trial.trial_id == decided.recommended)
        truth = true_best(space, models, bound_ms=0.93 * bound_ms)
        shares.append(found.throughput_inferences_per_s / truth)
    assert sum(share >= 0.95 for share in shares) >= 38


def test_six_serving_configurations_take_a_dozen_trials():
    """The space on which Model Analyzer's brute search took 42 measurements."""
    serving = [
        ServingConfig(largest, instance_count=instances)
        for largest in (1, 8, 16)
        for instances in (1, 2)
    ]
    loads = [
        Workload(WireProtocol.GRPC, 1, in_flight, 5.0, 1.0, seed=1, min_duration_s=0.5)
        for in_flight in (1, 64)
    ]
    space = (["student-int8"], serving, loads)
    results = drive(make_search(space=space))
    assert len(results) <= 15
    assert reloads(results) <= 7
    assert {one.trial.serving for one in results} == set(serving)
    found = recommended(results)
    assert found.throughput_inferences_per_s >= 0.95 * true_best(space, DEMO_MODELS)


def test_the_demo_shows_what_it_must():
    results = drive(make_search())
    assert {one.trial.variant for one in results} == set(DEMO_MODELS)
    for variant in DEMO_MODELS:
        own = [one for one in results if one.trial.variant == variant]
        assert {one.trial.workload.client_batch_size for one in own} == {1, 4, 8, 16}
        assert any(judge_trial(SLO, one)[0] is Decision.PASS for one in own)
    assert {one.trial.workload.protocol for one in results} == set(WireProtocol)
    assert len({one.trial.serving for one in results}) == 4
    assert {one.trial.stage for one in results} == {
        "workload", "protocol", "serving", "refine", "confirm"
    }  # fmt: skip
    assert results[-1].trial.stage == "confirm"


def test_an_open_loop_is_searched_by_its_rate():
    results = drive(make_search(space=open_space()), measure_open)
    quality = dict.fromkeys(CAPACITY_PER_S, (Decision.PASS, "keeps it"))
    decided = decide("topics", SLO, quality, results)
    trial = next(one.trial for one in results if one.trial.trial_id == decided.recommended)
    assert (trial.variant, trial.workload.client_batch_size) == ("student", 4)
    assert (trial.workload.protocol, trial.serving.instance_count) == (WireProtocol.GRPC, 2)
    truth = highest_rate_per_s(trial, 50.0)
    assert 0.90 * truth <= trial.workload.rate_per_s <= truth
    assert len(results) <= 45
    assert f"{trial.workload.rate_per_s:g} requests/s (poisson)" in decided.summary


def test_a_trace_is_one_load():
    process = ArrivalProcess(ArrivalKind.TRACE, trace=Path("monday.csv"))
    workload = Workload(
        WireProtocol.GRPC, 1, 512, 2.0, 0.5, seed=1, load_mode=LoadMode.OPEN, arrivals=process
    )
    space = (["student", "teacher"], [ServingConfig()], [workload])
    results = drive(make_search(space=space), lambda trial: make_result(trial, p95_ms=20.0))
    assert [one.trial.stage for one in results] == ["workload", "workload", "confirm"]
    assert all(one.trial.workload.rate_per_s is None for one in results)


def test_no_trial_is_asked_for_twice():
    for kind in (BisectionSearch, GridSearch):
        ids = Counter(one.trial.trial_id for one in drive(make_search(kind)))
        assert set(ids.values()) == {1}


def test_the_same_results_lead_the_same_way():
    first = [one.trial for one in drive(make_search())]
    assert first == [one.trial for one in drive(make_search())]


def test_a_question_stands_until_it_is_answered():
    search = make_search()
    trial = search.ask()
    assert search.ask() == trial
    search.tell(measure(trial))
    assert search.ask() != trial
    with pytest.raises(ValueError, match="not the trial that was asked for"):
        search.tell(measure(trial))


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
    quality = dict.fromkeys(DEMO_MODELS, (Decision.PASS, "keeps it"))
    assert decide("topics", SLO, quality, results).decision is not Decision.PASS


def test_a_lucky_cell_is_not_recommended():
    """One load seems to give three times what it does; measured afresh it is too slow."""
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
    decided = decide("topics", slo, {"slow": (Decision.PASS, "keeps it")}, results)
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


def test_what_cannot_win_is_left_out_with_a_reason():
    search = make_search()
    results = drive(search)
    measured = {one.trial.trial_id for one in results}
    assert search.pruned
    reasons = {rejection.variant: rejection.reason for rejection in search.pruned}
    for rejection in search.pruned:
        assert rejection.trial_id not in measured
        assert rejection.cause == "dominated"
        assert rejection.reason.startswith("not measured: ")
    assert "too little for another configuration to mend; student-int8 (" in reasons["teacher-fp32"]
    slow = [one for one in results if one.trial.variant == "teacher-fp32"]
    assert {one.trial.serving for one in slow} == {demo_space()[1][0]}


def test_a_cell_that_cannot_win_costs_one_trial():
    results = drive(make_search())
    probes = Counter(
        (one.trial.variant, one.trial.workload.client_batch_size)
        for one in results
        if one.trial.stage == "workload"
    )
    assert [probes["teacher-fp32", batch] for batch in (4, 8, 16)] == [1, 1, 1]


def test_an_unproven_variant_rules_no_proven_one_out():
    search = make_search(unproven={"student-int8"})
    results = drive(search)
    assert recommended(results).trial.variant == "student-fp32"
    assert all("; student-int8 (" not in one.reason for one in search.pruned
               if one.variant != "student-int8")  # fmt: skip


def verdict_of(results, slo=SLO):
    quality = dict.fromkeys(DEMO_MODELS, (Decision.PASS, "keeps it"))
    return decide("topics", slo, quality, results)


def test_nothing_feasible_fails_with_a_reason_for_everything():
    hopeless = dict.fromkeys(DEMO_MODELS, SLOW)
    search = make_search()
    results = drive(search, lambda trial: measure(trial, models=hopeless))
    decided = verdict_of(results)
    assert decided.decision is Decision.FAIL
    assert {one.trial_id for one in decided.rejected} == {one.trial.trial_id for one in results}
    assert {one.cause for one in decided.rejected} == {"latency"}
    assert {one.trial.workload.concurrency for one in results} >= {1}
    assert not search.pruned
    assert len(results) <= 50


def test_what_stays_undecided_is_not_recommended():
    def vague(trial):
        result = measure(trial)
        rate = result.throughput_inferences_per_s
        return make_result(trial, p95_ms=45.0, width=0.5, rate=rate)

    search = make_search()
    results = drive(search, vague)
    assert verdict_of(results).decision is Decision.UNDECIDED
    assert sum(one.trial.stage == "confirm" for one in results) == 3
    assert not search.pruned  # nothing passed, so nothing can be ruled out by it


def test_a_confirmation_decides_what_the_sweep_could_not():
    def slowly_decided(trial):
        result = measure(trial)
        p95_ms = result.latency.percentiles["p95"].value_ms
        width = 0.04 if trial.stage == "confirm" else 30.0
        return make_result(
            trial, p95_ms=p95_ms, width=width, rate=result.throughput_inferences_per_s
        )

    assert recommended(drive(make_search(), slowly_decided)).trial.variant == "student-int8"


def test_a_throughput_floor_does_not_prune_heavier_loads():
    slo = parse_objective("p95 < 50 ms, throughput >= 6000/s")
    results = drive(make_search(slo=slo))
    assert recommended(results, slo).throughput_inferences_per_s >= 6000


def test_another_serving_configuration_can_rescue_a_variant():
    # One instance gives 11,500 inferences/s at best.
    slo = parse_objective("p95 < 50 ms, throughput >= 13000/s")
    results = drive(make_search(slo=slo))
    assert recommended(results, slo).trial.serving.instance_count == 2


def test_invalid_trials_lead_nowhere():
    def spoiled(trial):
        limit = trial.workload.concurrency > 6
        return measure(trial, invalid="the generator was the limit" if limit else "")

    assert recommended(drive(make_search(), spoiled)).trial.workload.concurrency in {4, 6}
    broken = drive(make_search(), lambda trial: measure(trial, invalid="counters were reset"))
    assert {one.trial.stage for one in broken} == {"workload"}


def test_client_batches_that_no_configuration_takes_are_left_out():
    variants, _, workloads = demo_space()
    serving = [ServingConfig(4), ServingConfig(8)]
    for kind in (BisectionSearch, GridSearch):
        for one in drive(make_search(kind, space=(variants, serving, workloads))):
            assert one.trial.workload.client_batch_size <= one.trial.serving.max_batch_size


def test_proven_quality_is_confirmed_before_unproven():
    results = drive(make_search(unproven={"student-int8"}))
    confirmed = [one.trial.variant for one in results if one.trial.stage == "confirm"]
    assert confirmed
    assert "student-int8" not in confirmed
    only = drive(make_search(unproven=set(DEMO_MODELS)))
    assert any(one.trial.stage == "confirm" for one in only)


@pytest.mark.parametrize("kind", [BisectionSearch, GridSearch])
def test_nothing_to_search(kind):
    assert drive(make_search(kind, space=([], *demo_space()[1:]))) == []


def test_the_estimate_comes_near():
    search = make_search()
    estimate = search.remaining
    assert estimate == pytest.approx(len(drive(search)), rel=0.35)


WORKLOADS = st.builds(
    Workload,
    protocol=st.sampled_from(WireProtocol),
    client_batch_size=st.sampled_from([1, 2, 32]),
    concurrency=st.sampled_from([1, 3]),
    duration_s=st.just(1.0),
    warmup_s=st.just(0.0),
    seed=st.just(0),
)
OUTCOMES = st.tuples(
    st.sampled_from([10.0, 49.0, 51.0, 200.0]),
    st.integers(1, 3000),
    st.sampled_from(["", "", "", "spoiled"]),
    st.sampled_from([0, 0, 500]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(WORKLOADS, unique_by=lambda workload: workload.label, max_size=12),
    st.lists(st.sampled_from([ServingConfig(4), ServingConfig(64), ServingConfig(64, 100)]),
             unique=True, max_size=3),
    st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3),
    st.sampled_from([BisectionSearch, GridSearch]),
    st.data(),
)  # fmt: skip
def test_any_space_with_any_results_ends_in_a_verdict(workloads, serving, variants, kind, data):
    def anything(trial):
        p95_ms, rate, invalid, failures = data.draw(OUTCOMES)
        return make_result(trial, p95_ms=p95_ms, rate=rate, invalid=invalid, failures=failures)

    results = drive(make_search(kind, space=(variants, serving, workloads)), anything)
    ids = [one.trial.trial_id for one in results]
    assert len(ids) == len(set(ids))
    quality = dict.fromkeys(variants, (Decision.PASS, "keeps it"))
    decided = decide("topics", SLO, quality, results)
    told = [rejection.trial_id for rejection in decided.rejected]
    assert len(told) == len(set(told))
    if decided.decision is Decision.PASS:
        assert decided.recommended.endswith("-r1")
        swept = decided.recommended.removesuffix("-r1")
        assert set(ids) - set(told) == {decided.recommended, swept}
    else:
        assert decided.recommended is None
        assert set(told) == set(ids)
