from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_run import sample_run
from unusual_runs import interrupted, no_server_metrics, single_variant

from harness.report import selection
from harness.report.family_results import families_of, reference_score
from harness.report.findings import finding_of
from harness.study.objective import parse_objective
from harness.types import CONFIRM, Decision, Rejection, Role, ServerMetrics
from harness.words.labels import short_names

POINTS = st.lists(
    st.tuples(st.floats(0.1, 1e3, allow_nan=False), st.floats(0, 1, allow_nan=False)), max_size=30
)


@pytest.fixture(scope="module")
def topics():
    return families_of(sample_run())[0]


def test_families_come_in_the_study_order_even_where_nothing_of_them_was_reached():
    assert [family.name for family in families_of(interrupted())] == ["topics", "prose"]


def test_the_objectives_quality_metric_comes_first(topics):
    prose = families_of(sample_run())[1]
    assert topics.metrics == ("accuracy", "macro_f1")
    assert prose.metrics == ("perplexity", "bits_per_byte")


def test_a_relative_floor_is_the_factor_of_the_teachers_own_value(topics):
    floor, clause = topics.quality_floor("accuracy")
    assert floor == pytest.approx(0.9 * 0.8213)
    assert clause.text == "accuracy >= 90% of teacher"
    assert topics.quality_floor("macro_f1") is None


def test_the_best_trial_passes_and_no_passing_one_is_faster(topics):
    best = selection.best_trial(topics.trials, "p95")
    passing = [r for r in topics.trials if r.decision is Decision.PASS]
    assert best is max(passing, key=lambda r: r.throughput_inferences_per_s)


def test_an_invalid_trial_is_never_the_best(topics):
    invalid = [r for r in topics.trials if not r.valid]
    assert invalid
    assert selection.best_trial(invalid, "p95") is None


def test_without_a_passing_trial_the_lowest_latency_is_the_best(topics):
    failing = [replace(r, decision=Decision.FAIL) for r in topics.trials]
    best = selection.best_trial(failing, "p95")
    lowest = min(r.latency.percentiles["p95"].value_ms for r in failing if r.valid)
    assert best.latency.percentiles["p95"].value_ms == lowest


def test_a_recommended_teacher_is_what_students_are_compared_with(topics):
    """Its confirmation, which is shown for it, and not the search's luckier trial."""
    (teacher, *_) = (one.name for one in topics.variants if one.role is Role.TEACHER)
    own = [one for one in topics.trials_of(teacher) if one.valid]
    confirmed = min(own, key=lambda one: one.throughput_inferences_per_s)
    verdict = replace(topics.verdict, recommended=confirmed.trial.trial_id)
    family = replace(topics, verdict=verdict)
    assert selection.strongest_teacher(family) is confirmed


def test_the_recommended_trial_stands_for_its_variant(topics):
    assert selection.best_of_variant(topics, "topics-student-int8") is topics.recommended


def test_a_fresh_measurement_stands_for_what_the_search_found(topics):
    """It says less of the configuration than the search's lucky trial, and is what is shown."""
    name = "topics-student-fp32"
    lucky = selection.best_of_variant(topics, name)
    assert lucky.decision is Decision.PASS
    fresh = replace(
        lucky,
        trial=replace(lucky.trial, stage=CONFIRM, repeat=1),
        decision=Decision.UNDECIDED,
        throughput_inferences_per_s=lucky.throughput_inferences_per_s / 2,
    )
    family = replace(topics, trials=(*topics.trials, fresh))
    assert selection.best_of_variant(family, name) is fresh
    invalid = replace(fresh, valid=False)
    family = replace(topics, trials=(*topics.trials, invalid))
    assert selection.best_of_variant(family, name) is lucky


def test_fresh_measurements_stand_for_teachers_and_batches_too(topics):
    lucky = selection.strongest_teacher(topics)
    fresh = replace(
        lucky,
        trial=replace(lucky.trial, stage=CONFIRM, repeat=1),
        decision=Decision.FAIL,
        throughput_inferences_per_s=lucky.throughput_inferences_per_s / 2,
    )
    family = replace(topics, trials=(*topics.trials, fresh))
    assert selection.strongest_teacher(family) is fresh
    assert fresh in selection.best_by_batch(family)
    assert lucky not in selection.best_by_batch(family)


def test_one_best_trial_for_each_variant_and_client_batch(topics):
    keys = [
        (r.trial.variant, r.trial.workload.client_batch_size)
        for r in selection.best_by_batch(topics)
    ]
    assert len(keys) == len(set(keys)) == 16


def test_the_latency_split_adds_up_to_the_clients_mean(topics):
    for result in topics.trials:
        split = selection.latency_split(result)
        total = split.client_ms + split.queue_ms + split.compute_ms
        assert total == pytest.approx(result.latency.mean_ms) or split.client_ms == 0


def test_a_server_slower_than_the_client_saw_leaves_nothing_to_the_client(topics):
    server = ServerMetrics(queue_ms=1e4, compute_infer_ms=1.0)
    assert selection.latency_split(replace(topics.trials[0], server=server)).client_ms == 0


def test_without_the_servers_side_there_is_no_split():
    results = families_of(no_server_metrics())[0].trials
    assert [selection.latency_split(result) for result in results] == [None] * len(results)


def test_a_teacher_alone_is_its_own_reference():
    family = families_of(single_variant())[0]
    assert reference_score(family, "accuracy").variant == "topics-teacher-fp32"


@given(POINTS, st.booleans())
def test_no_point_beats_the_pareto_front_in_both(points, lower_is_better):
    front = selection.pareto_front(points, lower_is_better=lower_is_better)
    sign = -1 if lower_is_better else 1
    assert bool(front) == bool(points)
    for latency, quality in points:
        assert any(x <= latency and sign * y >= sign * quality for x, y in front)
    assert front == sorted(set(front))


@pytest.mark.parametrize(
    ("objective", "floor"),
    [
        ("accuracy >= 90% of teacher, accuracy >= 75%", 0.75),
        ("accuracy >= 70%, accuracy >= 90% of teacher", 0.9 * 0.8213),
    ],
)
def test_of_two_bounds_on_a_quality_the_strictest_is_drawn(topics, objective, floor):
    asked = replace(topics, objective=parse_objective(objective))
    assert asked.quality_floor("accuracy")[0] == pytest.approx(floor)


@pytest.mark.parametrize(
    ("objective", "label", "value"),
    [
        ("accuracy >= 75%", "Accuracy", "79.7%"),
        ("accuracy >= 90% of teacher", "Quality", "97.1%"),
        ("accuracy >= 75%, accuracy >= 90% of teacher", "Quality", "97.1%"),
        ("p95 < 50 ms", "Quality", "97.1%"),
    ],
)
def test_what_is_asked_of_the_metric_itself_stands_beside_the_metric(
    topics, objective, label, value
):
    found = finding_of(replace(topics, objective=parse_objective(objective)))
    (tile,) = [one for one in found.tiles if one.label in {"Accuracy", "Quality"}]
    assert (tile.label, tile.value) == (label, value)
    assert (f"asked: {objective}" in tile.details) is objective.startswith("accuracy")


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a-teacher-fp32", "a-tiny-fp32"], ["teacher-fp32", "tiny-fp32"]),
        (["teacher-fp32", "teacher-int8"], ["fp32", "int8"]),
        (["bert", "bert-int8"], ["bert", "bert-int8"]),
        (["alone-fp32"], ["alone-fp32"]),
        ([], []),
    ],
)
def test_short_names_drop_only_what_all_share(names, short):
    assert list(short_names(names).values()) == short


def test_a_row_says_one_thing_where_the_fresh_measurement_does_not_bear_it_out(topics):
    best = topics.recommended
    for cause, expected in {
        "slower": Decision.PASS,
        "teacher": Decision.PASS,
        "undecided": Decision.UNDECIDED,
        "invalid": Decision.UNDECIDED,  # as run folders of earlier releases have it
        "latency": Decision.FAIL,
    }.items():
        rejection = Rejection(best.trial.variant, best.trial.trial_id, cause, "")
        told = replace(topics, verdict=replace(topics.verdict, rejected=(rejection,)))
        assert selection.standing(told, best) == (expected, cause)
    slow = replace(best, decision=Decision.FAIL)
    assert selection.standing(topics, slow) == (Decision.FAIL, "")
    ruled_out = Rejection(best.trial.variant, None, "quality", "accuracy keeps 80.0%")
    told = replace(topics, verdict=replace(topics.verdict, rejected=(ruled_out,)))
    assert selection.standing(told, best) == (Decision.FAIL, "quality")
