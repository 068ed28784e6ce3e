"""A run's variants priced, by hand: c7i.large has 2 vCPUs and costs 0.08925 USD per hour."""

import dataclasses
from datetime import date
from types import SimpleNamespace

import pytest
from cost_samples import STUDENT, TEACHER, result, run_of, variant

from harness.errors import UsageError
from harness.flow.costing import planned_replicas
from harness.planning.cost.catalogue import Catalogue, InstanceType, read_catalogue
from harness.planning.cost.costs import CostQuestion, costs_of, leading_instance
from harness.report.cost.tables import costs_table
from harness.runs.documents import read_document, write_document
from harness.study.objective import parse_objective
from harness.types import (
    Decision,
    Rejection,
    Role,
    StreamCounts,
    StreamFigures,
    Verdict,
)
from harness.types.capacity import Headroom
from harness.types.costs import CostReport
from harness.types.estimates import Demand, Interval

DAY = date(2026, 11, 29)
ONE_DOLLAR = Catalogue(
    (
        InstanceType("any", "two", "", 0, 2, 4.0, 1.0, 0.3, "here", DAY, "a test"),
        InstanceType("any", "four", "", 0, 4, 8.0, 2.0, None, "here", DAY, "a test"),
        InstanceType("any", "gpu", "T4", 1, 4, 8.0, 2.0, None, "here", DAY, "a test"),
    )
)
GPUS = Catalogue(
    (*ONE_DOLLAR.types, InstanceType("any", "gpus", "T4", 4, 8, 8.0, 2.0, None, "here", DAY, "x"))
)
RUN = run_of(result(TEACHER, 250.0), result(STUDENT, 1000.0))


def ask(run=RUN, demand=None, catalogue=ONE_DOLLAR, **question):
    question = {"instances": ("two",), "measured_on": "two", **question}
    return costs_of(run, demand, catalogue, CostQuestion(today=DAY, **question))


def cost(report, name, instance="two"):
    (found,) = [one for one in report.costs if (one.variant, one.instance) == (name, instance)]
    return found


def bounds(interval):
    return (interval.value, interval.low, interval.high)


def test_a_thousand_per_second_at_a_dollar_an_hour():
    found = cost(ask(), STUDENT)
    assert round(found.usd_per_million_inferences.value, 4) == 0.2778
    assert bounds(found.usd_per_million_inferences) == pytest.approx(
        (1 / 3.6, 1 / 3.6 / 1.1, 1 / 3.6 / 0.9)
    )
    assert not found.is_estimate
    assert found.trial_id == RUN.trials[1].trial.trial_id
    assert round(cost(ask(), TEACHER).usd_per_million_inferences.value, 4) == 1.1111


def test_streams_cost_by_the_tokens_they_write_and_read():
    """1,000 tokens/s at a dollar an hour: 0.278 USD per million; a quarter as many are read."""
    figures = StreamFigures(StreamCounts(500, 2000), 1000.0, Interval(1000.0, 800.0, 1250.0))
    streaming = dataclasses.replace(result(STUDENT, 50.0), streams=figures, duration_s=2.0)
    found = cost(ask(run_of(result(TEACHER, 250.0), streaming)), STUDENT)
    assert bounds(found.usd_per_million_output_tokens) == pytest.approx(
        (1 / 3.6, 1 / 3.6 / 1.25, 1 / 3.6 / 0.8)
    )
    assert bounds(found.usd_per_million_input_tokens) == pytest.approx(
        (4 / 3.6, 4 / 3.6 / 1.1, 4 / 3.6 / 0.9)
    )
    assert cost(ask(), STUDENT).usd_per_million_output_tokens is None
    shown = costs_table(ask(run_of(result(TEACHER, 250.0), streaming)))
    titles = [column.title for column in shown.columns]
    assert titles[4:6] == ["Per million output tokens", "Per million input tokens"]
    row = next(row for row in shown.rows if row[0].text == STUDENT)
    assert (row[4].text, row[5].text) == ("0.278", "1.11")
    assert "not to be added up" in shown.note


def test_tokens_are_counted_where_their_number_is_given():
    found = cost(ask(tokens_per_inference=100.0), STUDENT)
    assert found.usd_per_million_tokens.value == pytest.approx(1 / 360)
    assert cost(ask(), STUDENT).usd_per_million_tokens is None


def test_a_month_at_the_demand_and_what_the_student_saves():
    report = ask(demand=Demand(500.0, peak_factor=2.0), training_usd=1000.0, engineering_usd=3380.0)
    teacher, student = cost(report, TEACHER).fleet, cost(report, STUDENT).fleet
    assert bounds(teacher.machines) == (4, 4, 5)  # 1000 / (250, 275, 225)
    assert bounds(student.machines) == (1, 1, 2)  # 1000 / (1000, 1100, 900)
    assert bounds(teacher.usd_per_month) == (2920, 2920, 3650)
    (saved,) = report.savings
    assert bounds(saved.usd_per_month) == (2190, 1460, 2920)
    assert saved.share.value == pytest.approx(0.75)
    paid = saved.break_even
    assert (paid.months, paid.earliest_months, paid.latest_months) == (2.0, 1.5, 3.0)
    assert paid.return_on_investment.value == pytest.approx(5.0)  # 12 * 2190 / 4380 - 1


def test_a_plans_replicas_are_taken_headroom_included():
    """6 replicas for the peak and 2 spare: 8 machines, or 3 + 1 of twice the throughput."""
    plan = {STUDENT: Headroom(6, 7, 8, 8, 7)}
    report = ask(demand=Demand(500.0), replicas=plan, instances=("two", "four"))
    assert report.planned
    assert bounds(cost(report, STUDENT).fleet.machines) == (8, 8, 8)
    assert cost(report, STUDENT).fleet.usd_per_month.value == 8 * 730
    there = cost(report, STUDENT, "four").fleet.machines
    band = 1.5 * 1.15  # ratios of 2 / 1.725 and 2 * 1.725: 6 and 5.17 fill, 2 and 1.7 are spare
    assert (there.value, there.low, there.high) == (4, 3, 8)
    assert 6 / (2 * band) < 2 < 6 / (2 / band) < 6
    assert bounds(cost(report, TEACHER).fleet.machines) == (2, 2, 3)  # 500 / (250, 275, 225)
    assert any(one.startswith("the plan has no replicas of teacher") for one in report.notes)


def test_fleets_that_are_counted_in_two_ways_are_not_subtracted():
    """The teacher's 8 planned machines have two to spare; what the student saves is not known."""
    teachers = {TEACHER: Headroom(6, 7, 8, 8, 7)}
    report = ask(demand=Demand(500.0), replicas=teachers, training_usd=1000.0)
    (saved,) = report.savings
    assert (saved.usd_per_month, saved.break_even) == (None, None)
    assert saved.share.value == pytest.approx(0.75)
    assert any(
        one.startswith("the plan has no replicas of student") and "no saving per month" in one
        for one in report.notes
    )
    both = {**teachers, STUDENT: Headroom(1, 2, 2, 2, 1)}
    (saved,) = ask(demand=Demand(500.0), replicas=both).savings
    assert saved.usd_per_month.value == 6 * 730


def planned(replicas, decision, variant=STUDENT, **changes):
    """A row of a plan, of which only this much is read."""
    row = {"variant": variant, "family": "topics", "objective": "p95 < 50 ms"}
    return SimpleNamespace(**row, replicas=replicas, decision=decision, **changes)


def test_only_replicas_that_are_sure_to_meet_the_objective_are_paid_for():
    """Three replicas that are undecided, or fail, do not come before four that pass."""
    four = Headroom(3, 4, 4, 4, 3)
    plan = SimpleNamespace(
        demand=Demand(500.0),
        deployments=(
            planned(Headroom(2, 3, 3, 3, 2), Decision.UNDECIDED),
            planned(Headroom(1, 2, 2, 2, 1), Decision.FAIL),
            planned(Headroom(4, 5, 5, 5, 4), Decision.PASS),
            planned(four, Decision.PASS),
            planned(None, Decision.FAIL, TEACHER),
            planned(Headroom(2, 3, 3, 3, 2), Decision.UNDECIDED, TEACHER),
        ),
    )
    assert planned_replicas(plan, Demand(500.0), RUN, None) == {STUDENT: four}
    # The same objective, though it was typed in another way; and another one
    assert planned_replicas(plan, Demand(500.0), RUN, parse_objective("p95<50ms"))
    assert not planned_replicas(plan, Demand(500.0), RUN, parse_objective("p95 < 51 ms"))


def test_without_a_demand_a_plan_buys_nothing():
    report = ask(replicas={STUDENT: Headroom(6, 7, 8, 8, 7)})
    assert not report.planned
    assert cost(report, STUDENT).fleet is None


def test_tokens_differ_by_variant_and_a_number_that_is_given_goes_before():
    report = ask(tokens={STUDENT: 50.0})
    assert cost(report, STUDENT).usd_per_million_tokens.value == pytest.approx(1 / 3.6 / 50)
    assert cost(report, STUDENT).tokens_per_inference == 50.0
    assert cost(report, TEACHER).usd_per_million_tokens is None
    given = ask(tokens={STUDENT: 50.0}, tokens_per_inference=100.0)
    assert cost(given, STUDENT).usd_per_million_tokens.value == pytest.approx(1 / 360)
    assert cost(given, TEACHER).usd_per_million_tokens.value == pytest.approx(1 / 90)


def test_variants_are_compared_on_the_measured_type_else_where_most_have_a_cost():
    report = ask(instances=("two", "four"))
    assert leading_instance(report.costs) == "two"
    elsewhere = [one for one in report.costs if one.instance == "four"]
    assert leading_instance(elsewhere) == "four"
    two_estimated = [
        dataclasses.replace(one, pricing=dataclasses.replace(one.pricing, rule="estimate"))
        for one in report.costs
        if (one.variant, one.instance) != (TEACHER, "two")
    ]
    assert leading_instance(two_estimated) == "four"
    assert leading_instance([]) == ""


def test_another_machine_is_an_estimate_with_its_bounds_and_its_rule():
    found = cost(ask(instances=("four",)), STUDENT, "four")
    band = 1.5 * 1.15
    assert found.is_estimate
    assert found.pricing.rule.startswith("estimate from two: 2 vCPUs to 4 vCPUs")
    assert bounds(found.inferences_per_s) == pytest.approx(
        (2000, 2000 * 0.9 / band, 2000 * 1.1 * band)
    )
    # twice the price at twice the throughput
    assert found.usd_per_million_inferences.value == pytest.approx(1 / 3.6)
    assert found.usd_per_million_inferences.high == pytest.approx(band / 3.6 / 0.9)


def test_a_machine_that_is_not_known_measures_nothing():
    run = run_of(*RUN.trials, environment={"usable_cores": 2, "gpus": []})
    report = ask(run, measured_on="")
    assert cost(report, STUDENT).is_estimate
    assert any("of unknown type, so every throughput is an estimate" in one for one in report.notes)


def test_the_spot_price_is_taken_where_it_is_known():
    found = cost(ask(spot=True), STUDENT)
    assert found.usd_per_million_inferences.value == pytest.approx(0.3 / 3.6)
    with pytest.raises(UsageError, match="spot price of four is not known"):
        ask(spot=True, instances=("two", "four"))


def test_what_no_rule_reaches_is_told_for_that_machine_alone():
    report = ask(instances=("two", "gpu"))
    assert {one.instance for one in report.costs} == {"two"}
    assert [(one.variant, one.instance) for one in report.unpriced] == [
        (TEACHER, "gpu"), (STUDENT, "gpu"),
    ]  # fmt: skip
    assert report.unpriced[0].next_step == "run the study on gpu, then add --measured-on gpu"


@pytest.mark.parametrize(
    ("trials", "rate"),
    [
        # a higher load that misses the objective does not count
        ([result(STUDENT, 900.0), result(STUDENT, 2000.0, p95_ms=80.0, concurrency=8)], 900.0),
        # one that cannot be told from the bound does not either
        ([result(STUDENT, 900.0), result(STUDENT, 2000.0, p95_ms=49.0, concurrency=8)], 900.0),
        ([result(STUDENT, 900.0), result(STUDENT, 2000.0, invalid="why", concurrency=8)], 900.0),
        ([result(STUDENT, 900.0), result(STUDENT, 950.0, concurrency=8)], 950.0),
        # measured afresh before the search's luckiest
        ([result(STUDENT, 900.0), result(STUDENT, 950.0, stage="workload")], 900.0),
    ],
)
def test_the_highest_load_that_meets_the_objective(trials, rate):
    found = cost(ask(run_of(result(TEACHER, 250.0), *trials)), STUDENT)
    assert found.inferences_per_s.value == rate


def test_the_objective_can_be_another():
    run = run_of(
        result(TEACHER, 250.0),
        result(STUDENT, 900.0),
        result(STUDENT, 2000.0, p95_ms=80.0, concurrency=8),
    )
    found = cost(ask(run, slo=parse_objective("p95 < 100 ms")), STUDENT)
    assert found.inferences_per_s.value == 2000.0


def test_trials_with_the_demands_rows_count_before_others():
    run = run_of(
        result(TEACHER, 250.0), result(STUDENT, 3000.0, batch=16), result(STUDENT, 900.0, batch=1)
    )
    assert cost(ask(run), STUDENT).inferences_per_s.value == 3000.0
    report = ask(run, demand=Demand(100.0))
    assert cost(report, STUDENT).inferences_per_s.value == 900.0
    assert report.notes == ()
    eights = ask(run, demand=Demand(100.0, batch_mix=((8, 1.0),)))
    assert cost(eights, STUDENT).inferences_per_s.value == 3000.0
    assert (
        "student was measured with 16 rows per request and the demand has 8: its cost is that of "
        "16 rows"
    ) in eights.notes


def test_the_best_of_a_search_alone_is_noted():
    report = ask(run_of(result(TEACHER, 250.0), result(STUDENT, 900.0, stage="workload")))
    assert not cost(report, STUDENT).confirmed
    assert any(
        one.startswith("the throughput of student is the best of the search")
        for one in report.notes
    )


def test_what_a_fresh_measurement_does_not_bear_out_has_no_price():
    """10,000/s met the objective once, and not when measured afresh: 900/s is what holds."""
    lucky = result(STUDENT, 10_000.0, stage="workload")
    fresh = result(STUDENT, 9_000.0, p95_ms=80.0)
    other = result(STUDENT, 900.0, stage="workload", concurrency=2)
    found = cost(ask(run_of(result(TEACHER, 250.0), lucky, fresh, other)), STUDENT)
    assert found.inferences_per_s.value == 900.0
    reason, step = unpriced(lucky, fresh)
    assert reason.startswith(
        "no trial of it meets the objective when it is measured afresh: p95 80"
    )
    assert step == "ask for less with --slo"
    spoiled = result(STUDENT, 9_000.0, invalid="the generator was the bottleneck")
    report = ask(run_of(result(TEACHER, 250.0), lucky, spoiled))
    assert cost(report, STUDENT).inferences_per_s.value == 10_000.0
    assert any("student is the best of the search, which no fresh" in one for one in report.notes)


def unpriced(*trials, verdicts=()):
    report = ask(run_of(result(TEACHER, 250.0), *trials, verdicts=verdicts))
    (found,) = report.unpriced
    assert (found.variant, found.instance) == (STUDENT, "")
    return found.reason, found.next_step


def test_a_variant_whose_trials_decide_nothing_has_no_cost():
    reason, step = unpriced(result(STUDENT, 900.0, p95_ms=49.0))
    assert reason.startswith("no trial of it meets the objective, and 1 trial is undecided: p95 49")
    assert step == "raise duration_s in the study's traffic, then: harness run topics.yaml"
    named = run_of(result(TEACHER, 250.0), command="harness run 'my studies/a.yaml' --out run1")
    (found,) = ask(named).unpriced
    assert found.next_step == "harness run 'my studies/a.yaml' --out RUN --resume"
    reason, step = unpriced(result(STUDENT, 900.0, invalid="the generator was the bottleneck"))
    assert reason.endswith("1 trial is invalid: the generator was the bottleneck")
    assert step == "mend what the reason names, then: harness run topics.yaml"
    reason, _ = unpriced(result(STUDENT, 900.0, p95_ms=80.0))
    assert reason.startswith("no trial of it meets the objective: p95 80")


def test_a_throughput_without_an_interval_has_no_cost():
    without = dataclasses.replace(
        result(STUDENT, 900.0),
        throughput_low_inferences_per_s=None,
        throughput_high_inferences_per_s=None,
    )
    assert "no interval of their throughput" in unpriced(without)[0]


def test_a_variant_that_was_never_measured_says_why():
    assert unpriced() == (
        "no trial of it was measured",
        "harness run topics.yaml --out RUN --resume",
    )
    rejected = Rejection(STUDENT, None, "quality", "keeps 80% of the teacher's accuracy")
    verdict = Verdict("topics", "", Decision.FAIL, None, "", (rejected,))
    reason, _ = unpriced(verdicts=(verdict,))
    assert reason == "it was ruled out before any load: keeps 80% of the teacher's accuracy"


def test_without_a_choice_the_measured_type_and_the_cheapest_of_each_cloud():
    report = ask(catalogue=read_catalogue(today=DAY), instances=(), measured_on="c7i.xlarge")
    found = {one.instance: one.cloud for one in report.costs}
    assert found.pop("c7i.xlarge") == "aws"
    # per vCPU and hour: c7i 0.0446, F4s_v2 0.0423 (F2s_v2 and F8s_v2 as near), c3-highcpu 0.0425
    assert sorted(found.values()) == ["aws", "azure", "gcp"]
    assert all(one.is_estimate is (one.instance != "c7i.xlarge") for one in report.costs)


def test_the_students_are_compared_with_the_teachers_cheapest_variant():
    """Quantising the teacher saves too, and costs no distillation."""
    other = variant("teacher-int8", Role.TEACHER)
    run = run_of(*RUN.trials, result("teacher-int8", 500.0), variants=(*RUN.variants, other))
    (saved,) = ask(run).savings
    assert (saved.teacher, saved.student) == ("teacher-int8", STUDENT)
    assert saved.share.value == pytest.approx(0.5)


def test_the_share_saved_does_not_depend_on_how_fast_another_machine_is():
    """1 - 250/1000, and 1 - 275/900 to 1 - 225/1100: the scaling's bounds are the same for both."""
    report = ask(instances=("two", "four"))
    shares = {one.instance: bounds(one.share) for one in report.savings}
    expected = (0.75, 1 - 275 / 900, 1 - 225 / 1100)
    assert shares["two"] == pytest.approx(expected)
    assert shares["four"] == pytest.approx(expected)


def test_controls_and_ensembles_are_no_candidates():
    others = (variant("control", Role.CONTROL), variant("text", Role.STUDENT, ensemble_of=STUDENT))
    run = run_of(
        *RUN.trials, result("control", 500.0), result("text", 500.0),
        variants=(*RUN.variants, *others),
    )  # fmt: skip
    assert {one.variant for one in ask(run).costs} == {TEACHER, STUDENT}


def test_old_prices_and_a_machine_that_does_not_fit_are_noted():
    run = run_of(*RUN.trials, environment={"usable_cores": 8, "gpus": []})
    old = Catalogue((dataclasses.replace(ONE_DOLLAR.types[0], date=date(2026, 1, 1)),))
    notes = ask(run, catalogue=old).notes
    assert notes[0].startswith("two has 2 vCPUs, and the run could use 8")
    assert notes[1].startswith("the price of two is 332 days old")


def test_tokens_that_may_be_none_have_no_cost_and_json_no_infinity(tmp_path):
    figures = StreamFigures(StreamCounts(0, 20_000), 1000.0, Interval(1000.0, 0.0, 2100.0))
    writing = dataclasses.replace(result(STUDENT, 1000.0), streams=figures)
    report = ask(run_of(result(TEACHER, 250.0), writing))
    assert cost(report, STUDENT).usd_per_million_output_tokens is None
    assert "Infinity" not in write_document(tmp_path, "cost", report).read_text()


def test_a_few_cores_of_the_detected_machine_are_noted():
    """A container with 2 of 16 cores pays for 16, and gives an eighth of what the type does."""
    shown = {"usable_cores": 2, "gpus": [], "instance": "c7i.4xlarge"}
    run = run_of(*RUN.trials, environment=shown)
    report = ask(run, catalogue=read_catalogue(today=DAY), instances=(), measured_on="")
    assert not cost(report, STUDENT, "c7i.4xlarge").is_estimate
    assert report.notes[0].startswith("c7i.4xlarge has 16 vCPUs, and the run could use 2")
    whole = run_of(*RUN.trials, environment={**shown, "usable_cores": 16})
    report = ask(whole, catalogue=read_catalogue(today=DAY), instances=(), measured_on="")
    assert not any("vCPUs, and" in one for one in report.notes)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({"training_usd": -1.0}, "the training cost is -1 USD"),
        ({"engineering_usd": float("nan")}, "the engineering cost is nan USD"),
        ({"tokens_per_inference": 0.0}, "0 tokens per inference"),
        ({"horizon_months": 0.0}, "a horizon of 0 months"),
        ({"instances": ("twoo",)}, "unknown instance type 'twoo': did you mean two?"),
    ],
)
def test_what_cannot_be_is_exit_2(question, told):
    with pytest.raises(UsageError) as caught:
        ask(**question)
    assert str(caught.value) == told
    assert caught.value.exit_code == 2


def test_an_external_servers_machine_has_to_be_named():
    run = run_of(*RUN.trials, server={"url": "http://there"})
    with pytest.raises(UsageError, match="whose machine its manifest does not know"):
        ask(run, measured_on="")
    assert ask(run).costs


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_machine_of_an_external_server_says_what_a_model_ran_on(kind):
    """vLLM tells of no instances, which is stored as `cpu`: its machine has a GPU or has none."""
    measured = result(STUDENT, 1000.0, kind=kind)
    there = run_of(measured, server={"url": "http://there"})
    report = ask(there, measured_on="gpu", instances=("gpu", "gpus", "two"), catalogue=GPUS)
    assert {(one.instance, one.inferences_per_s.value) for one in report.costs} == {
        ("gpu", 1000.0), ("gpus", 4000.0),
    }  # fmt: skip
    assert report.notes == ()
    (left_out,) = [one for one in report.unpriced if one.variant == STUDENT]
    assert left_out.reason.startswith("measured on the accelerator of gpu")
    unasked = ask(there, measured_on="gpu", instances=(), catalogue=GPUS)
    assert {one.instance for one in unasked.costs} <= {"gpu", "gpus"}
    on_cpus = ask(there, measured_on="two", instances=("four",))
    assert {one.instance for one in on_cpus.costs} == {"four"}
    here = ask(run_of(measured), measured_on="gpu", instances=("gpus",), catalogue=GPUS)
    assert [one.instance for one in here.costs] == (["gpus"] if kind == "gpu" else [])


def test_it_is_stored_and_read_back_equal(tmp_path):
    report = ask(demand=Demand(500.0, 2.0), training_usd=100.0, instances=("two", "four", "gpu"))
    write_document(tmp_path, "cost", report)
    assert read_document(tmp_path, "cost", CostReport) == report
