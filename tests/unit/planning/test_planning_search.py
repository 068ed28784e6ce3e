import dataclasses
from collections import Counter

import pytest
from closed_queue import DEMO_MODELS, ServedModel, demo_space, measure
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_samples import make_result

from harness.planning.decision import decide
from harness.planning.objective import parse_objective
from harness.planning.search import GridSearch, StagedSearch
from harness.types import Decision, ServingConfig, WireProtocol, Workload

SLO = parse_objective("p95 < 50 ms, accuracy >= 90% of teacher")
SLOW = ServedModel(500.0, 1.0)


def make_search(kind=StagedSearch, slo=SLO, space=None, **changes):
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


def test_the_demo_needs_forty_trials_and_finds_what_the_grid_finds():
    staged, grid = drive(make_search()), drive(make_search(GridSearch))
    assert len(staged) <= 40
    assert len(grid) > 380
    found, best = recommended(staged), recommended(grid)
    assert found.trial.variant == best.trial.variant == "student-int8"
    assert found.throughput_inferences_per_s >= 0.95 * best.throughput_inferences_per_s


def test_the_demo_shows_what_it_must():
    results = drive(make_search())
    assert {one.trial.variant for one in results} == set(DEMO_MODELS)
    assert {one.trial.workload.client_batch_size for one in results} == {1, 4, 8, 16}
    assert {one.trial.workload.protocol for one in results} == set(WireProtocol)
    assert len({one.trial.serving for one in results}) == 4
    stages = [one.trial.stage for one in results]
    order = ["workload", "protocol", "serving", "confirm"]
    assert stages == sorted(stages, key=order.index)
    # Each variant shows throughput against latency over every concurrency at one batch size.
    for variant in ("student-fp32", "student-int8"):
        curves = Counter(
            one.trial.workload.client_batch_size
            for one in results
            if one.trial.variant == variant and one.trial.stage == "workload"
        )
        assert max(curves.values()) == 3


def test_no_trial_is_asked_for_twice():
    for kind in (StagedSearch, GridSearch):
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


def test_what_does_not_hold_up_gives_way_to_the_next_three_times():
    slow = dict.fromkeys(DEMO_MODELS, SLOW)

    def flattering(trial):
        return measure(trial, models=slow if trial.stage == "confirm" else DEMO_MODELS)

    confirms = [one for one in drive(make_search(), flattering) if one.trial.stage == "confirm"]
    assert len({one.trial.trial_id for one in confirms}) == 3


def test_a_clearly_better_candidate_is_confirmed_too():
    def fading(trial):
        result = measure(trial)
        first = trial.stage == "confirm" and trial.variant == "student-int8"
        factor = 0.5 if first else 1.0
        return dataclasses.replace(
            result, throughput_inferences_per_s=factor * result.throughput_inferences_per_s
        )

    results = drive(make_search(), fading)
    assert recommended(results).trial.variant == "student-fp32"


def test_heavier_loads_than_one_that_was_too_slow_are_left_out_with_a_reason():
    search = make_search(space=(["teacher-fp32"], *demo_space()[1:]))
    results = drive(search)
    measured = {one.trial.trial_id for one in results}
    assert search.pruned
    for rejection in search.pruned:
        assert rejection.trial_id not in measured
        assert rejection.cause == "dominated"
        assert "is a lighter load and was too slow (p95" in rejection.reason
    too_slow = [one for one in results if one.latency.percentiles["p95"].low_ms > 50]
    for one in too_slow:
        heavier = [
            other.trial
            for other in results
            if other.trial.stage == "workload" == one.trial.stage
            and other.trial.workload.client_batch_size > one.trial.workload.client_batch_size
            and other.trial.workload.concurrency >= one.trial.workload.concurrency
        ]
        assert not heavier


def test_every_batch_size_is_shown_even_where_all_are_too_slow():
    hopeless = dict.fromkeys(DEMO_MODELS, SLOW)
    results = drive(make_search(), lambda trial: measure(trial, models=hopeless))
    assert {one.trial.workload.client_batch_size for one in results} == {1, 4, 8, 16}
    assert {one.trial.workload.protocol for one in results} == set(WireProtocol)
    assert all(one.trial.stage != "confirm" for one in results)


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
        limit = trial.workload.concurrency == 16
        return measure(trial, invalid="the generator was the limit" if limit else "")

    assert recommended(drive(make_search(), spoiled)).trial.workload.concurrency == 4
    broken = drive(make_search(), lambda trial: measure(trial, invalid="counters were reset"))
    assert {one.trial.stage for one in broken} == {"workload"}


def test_client_batches_that_no_configuration_takes_are_left_out():
    variants, _, workloads = demo_space()
    serving = [ServingConfig(4), ServingConfig(8)]
    for kind in (StagedSearch, GridSearch):
        for one in drive(make_search(kind, space=(variants, serving, workloads))):
            assert one.trial.workload.client_batch_size <= one.trial.serving.max_batch_size


def test_proven_quality_is_confirmed_before_unproven():
    results = drive(make_search(unproven={"student-int8"}))
    confirmed = [one.trial.variant for one in results if one.trial.stage == "confirm"]
    assert confirmed
    assert "student-int8" not in confirmed
    only = drive(make_search(unproven=set(DEMO_MODELS)))
    assert any(one.trial.stage == "confirm" for one in only)


@pytest.mark.parametrize("kind", [StagedSearch, GridSearch])
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
    st.sampled_from([StagedSearch, GridSearch]),
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
