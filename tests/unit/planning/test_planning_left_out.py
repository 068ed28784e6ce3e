"""What the search does not measure, rejects or cannot decide, each with its reason."""

from collections import Counter

from closed_queue import DEMO_MODELS, demo_space, measure
from hypothesis import given
from hypothesis import strategies as st
from planning_samples import make_result
from search_drive import SLO, SLOW, drive, make_search, recommended, verdict_of

from harness.planning.assessment import QualityJudgement
from harness.planning.decision import decide
from harness.planning.search import BisectionSearch, GridSearch
from harness.study.objective import parse_objective
from harness.types import Decision, ServingConfig, WireProtocol, Workload


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
    assert (
        "too little for another configuration to make up; student-int8 (" in reasons["teacher-fp32"]
    )
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
    quality = dict.fromkeys(variants, QualityJudgement(Decision.PASS, "keeps it"))
    decided = decide("topics", SLO, quality, results)
    told = [rejection.trial_id for rejection in decided.rejected]
    assert len(told) == len(set(told))
    if decided.decision is Decision.PASS:
        # Measured again where it was invalid: the last of these is what was confirmed.
        swept, _, repeat = decided.recommended.rpartition("-r")
        assert repeat in {"1", "7"}
        *_, last = (one for one in ids if one == swept or one.startswith(f"{swept}-r2"))
        assert set(ids) - set(told) == {decided.recommended, last}
    else:
        assert decided.recommended is None
        assert set(told) == set(ids)
