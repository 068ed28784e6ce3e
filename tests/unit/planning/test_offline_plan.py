"""A run's variants for a job, by hand: 1,000 inferences/s do 21.6 million in 6 hours."""

import dataclasses
from datetime import date

import pytest
from cost_samples import STUDENT, TEACHER, result, run_of, variant
from planning_samples import make_score

from harness.errors import UsageError
from harness.planning.cost.catalogue import InstanceType
from harness.planning.offline.asked import check_terms, parse_deadline, parse_documents
from harness.planning.offline.plan import OfflineQuestion, asked_for, offline_plan
from harness.types import ColdStart, Decision, Rejection, Role, ServingConfig, Verdict
from harness.types.costs import MeasuredMachine
from harness.types.offline import OfflinePlan, OfflineTerms

DAY = date(2026, 11, 29)
TWO = InstanceType("any", "two", "", 0, 2, 4.0, 1.0, 0.3, "here", DAY, "a test")
FOUR = InstanceType("any", "four", "", 0, 4, 8.0, 2.0, None, "here", DAY, "a test")
GPU = InstanceType("any", "gpu", "T4", 1, 4, 8.0, 2.0, None, "here", DAY, "a test")
TERMS = OfflineTerms(100_000_000, 6 * 3600.0, start_s=0.0, spread=1e-9)


def scores(relative=0.97):
    half = 0.005
    own = make_score(STUDENT, relative=relative, spread=half)
    return (dataclasses.replace(make_score(TEACHER), role=Role.TEACHER), own)


def run(*trials, slo="p95 < 50 ms, accuracy >= 90% of teacher", **more):
    found = run_of(*(trials or (result(TEACHER, 250.0), result(STUDENT, 1000.0))), slo=slo)
    found.scores = more.pop("scores", scores())
    found.cold_starts = more.pop("cold_starts", ())
    found.batches = more.pop("batches", ())
    for name, value in more.items():
        setattr(found, name, value)
    return found


def ask(stored=None, terms=TERMS, instances=(TWO,), machine="two", **more) -> OfflinePlan:
    measured_on = MeasuredMachine(machine, 2, "", 0)
    question = OfflineQuestion(
        terms, measured_on, DAY, instances, measure="harness batch RUN --measure", **more
    )
    return offline_plan(stored or run(), question)


def of(plan, name):
    (found,) = [one for one in plan.variants if one.variant == name]
    return found


def need(plan, name, instance="two"):
    (found,) = [one for one in of(plan, name).needs if one.instance == instance]
    return found


def bounds(interval):
    return (interval.value, interval.low, interval.high)


def test_machines_jobs_and_cost_by_hand():
    plan = ask()
    student, teacher = need(plan, STUDENT), need(plan, TEACHER)
    # 100M / 21.6M: 4.63 at 1,000/s, 4.21 at 1,100, 5.14 at 900
    assert bounds(student.even) == (5, 5, 6)
    assert bounds(student.with_stragglers) == (5, 5, 6)
    assert bounds(student.with_loss) == (6, 6, 7)
    assert student.recommended == 7
    assert bounds(teacher.even) == (19, 17, 21)
    assert bounds(student.jobs_per_hour) == pytest.approx((0.036, 0.0324, 0.0396))
    # 100,000 seconds of a machine at 1 USD per hour
    assert bounds(student.usd_per_job) == pytest.approx((100 / 3.6, 100 / 3.96, 100 / 3.24))
    assert student.usd_per_month.value == pytest.approx(100 / 3.6 * 365 / 12)
    assert teacher.usd_per_job.value == pytest.approx(4 * 100 / 3.6)


def test_the_job_ends_when_equal_shards_do():
    """7 machines at 1,000/s take 14,286 s; with one lost, each other a sixth more."""
    found = need(ask(), STUDENT)
    assert found.finish_s.value == pytest.approx(100e6 / 7 / 1000, rel=0.01)
    assert found.finish_with_loss_s.value == pytest.approx(100e6 / 6 / 1000, rel=0.01)
    # the rate's own interval is that of the end: +-10%
    assert found.finish_s.low == pytest.approx(100e6 / 7 / 1100, rel=0.02)
    assert found.finish_s.high == pytest.approx(100e6 / 7 / 900, rel=0.02)
    assert bounds(found.in_time_with_loss) == (1.0, 1.0, 1.0)


def test_rows_jobs_and_the_start_count():
    terms = dataclasses.replace(TERMS, rows_per_document=2.0, jobs_per_day=3.0, start_s=600.0)
    found = need(ask(terms=terms), STUDENT)
    assert found.even.value == 10  # 200M in 21,000 s at 1,000/s: 9.52
    machine_s = 200e6 / 1000 + found.recommended * 600
    assert found.usd_per_job.value == pytest.approx(machine_s / 3600)
    assert found.usd_per_month.value == pytest.approx(3 * machine_s / 3600 * 365 / 12)
    assert found.jobs_per_hour.value == pytest.approx(3600 * 1000 / 200e6)


def test_the_cold_start_is_taken_where_nothing_is_said_and_its_lack_is_told():
    terms = dataclasses.replace(TERMS, start_s=None)
    cold = ColdStart(STUDENT, "ab", ServingConfig(), 90.0, 5.0, 40, 20, 10.0, 3.0)
    plan = ask(run(cold_starts=(cold,)), terms)
    assert (of(plan, STUDENT).start_s, of(plan, TEACHER).start_s) == (100.0, 0.0)
    assert any(one.startswith("the run measured no cold start of teacher") for one in plan.notes)


def test_a_machine_that_is_not_as_its_type_is_told():
    few = run(manifest={**run().manifest, "environment": {"usable_cores": 1, "gpus": []}})
    assert any(one.startswith("two has 2 vCPUs, and the run could") for one in ask(few).notes)
    assert not any("the run could use" in one for one in ask().notes)


def test_a_variant_that_fails_on_quality_is_shown_and_not_recommended():
    plan = ask(run(scores=scores(relative=0.80)))
    assert of(plan, STUDENT).quality is Decision.FAIL
    assert need(plan, STUDENT).recommended == 7
    (choice,) = plan.choices
    assert (choice.variant, choice.instance) == (TEACHER, "two")
    assert ask().choices[0].variant == STUDENT


def test_nothing_is_recommended_where_no_quality_passes():
    slo = "accuracy >= 95%"  # of 80%
    (choice,) = ask(run(slo=slo)).choices
    assert choice.variant == ""
    assert choice.reason.startswith("the quality of none passes")


def test_latency_does_not_count():
    stored = run(result(TEACHER, 250.0), result(STUDENT, 1000.0, p95_ms=900.0))
    assert ask(stored).choices[0].variant == STUDENT


def test_who_cannot_be_told_apart_is_named():
    stored = run(result(TEACHER, 900.0), result(STUDENT, 1000.0))
    assert "cannot be told from teacher" in ask(stored).choices[0].reason
    assert "cannot be told" not in ask().choices[0].reason


def test_without_an_instance_machines_are_like_the_measured_one_and_have_no_price():
    plan = ask(instances=())
    found = need(plan, STUDENT, "")
    assert (found.recommended, found.usd_per_job, found.pricing) == (7, None, None)
    assert plan.choices[0].reason.endswith("passes: 7 machines")
    assert any("name a type with --instance" in one for one in plan.notes)


def test_another_type_is_an_estimate_and_an_unreachable_one_is_left_out():
    plan = ask(instances=(TWO, FOUR, GPU))
    there = need(plan, STUDENT, "four")
    assert there.is_estimate
    assert there.inferences_per_s.value == 2000.0
    assert [(one.variant, one.instance) for one in plan.left_out] == [
        (TEACHER, "gpu"), (STUDENT, "gpu"),
    ]  # fmt: skip
    assert plan.left_out[0].next_step == "run the study on gpu, then add --measured-on gpu"


def test_the_machine_of_an_external_server_says_what_a_model_ran_on():
    """An OpenAI endpoint tells of no instances, which is stored as `cpu`."""
    there = run()
    there.manifest["server"] = {"url": "http://there"}
    terms = {"measured_on": MeasuredMachine("other", 4, "T4", 1), "instances": (TWO, GPU)}
    plan = offline_plan(there, OfflineQuestion(TERMS, today=DAY, **terms))
    assert need(plan, STUDENT, "gpu").inferences_per_s.value == 1000.0
    assert {one.instance for one in plan.left_out} == {"two"}
    own = offline_plan(run(), OfflineQuestion(TERMS, today=DAY, **terms))
    assert {one.instance for one in own.left_out} == {"gpu"}


def test_the_knee_is_the_batch_that_is_taken():
    stored = run(
        result(TEACHER, 250.0),
        result(STUDENT, 1000.0, batch=1, spread=0.01),
        result(STUDENT, 3000.0, batch=8, spread=0.01),
        result(STUDENT, 3100.0, batch=16, spread=0.01),
    )
    found = of(ask(stored), STUDENT)
    assert (found.batch_size, found.inferences_per_s.value) == (8, 3000.0)
    assert (found.served.knee, found.served.is_sure) == (8, True)
    # one batch alone has no knee: what to run is said
    assert of(ask(stored), TEACHER).served.knee is None
    assert any(
        one.startswith("no batch of diminishing returns of teacher")
        and "harness batch RUN --measure" in one
        for one in ask(stored).notes
    )


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ((), "it was not load-tested"),
        ((result(STUDENT, 1000.0, invalid="no CPU"),), "none of its trials (1) is a valid closed"),
    ],
)
def test_what_cannot_be_counted_with_says_what_to_measure(trials, told):
    plan = ask(run(result(TEACHER, 250.0), *trials))
    (left,) = plan.left_out
    assert told in left.reason
    assert left.next_step == "harness batch RUN --measure --variant student"


def test_a_rejected_variant_says_why():
    verdict = Verdict(
        "topics", "", Decision.FAIL, None, "", (Rejection(STUDENT, "", "quality", "keeps 60%"),)
    )
    plan = ask(run(result(TEACHER, 250.0), verdicts=(verdict,)))
    assert plan.left_out[0].reason == "it was not load-tested: keeps 60%"


def test_nothing_at_all_is_refused_with_a_command():
    with pytest.raises(UsageError, match="no variant of this run can be counted with") as told:
        ask(run(result(STUDENT, 1000.0, invalid="no CPU")))
    assert told.value.next_step == "harness batch RUN --measure --variant teacher"
    with pytest.raises(UsageError, match="no teacher or student studnet") as told:
        asked_for(run(), ("studnet",))
    assert told.value.next_step == "name one of: teacher, student"


def test_a_start_beyond_the_deadline_and_too_many_machines_are_refused():
    late = dataclasses.replace(TERMS, start_s=7 * 3600.0)
    with pytest.raises(UsageError, match="a machine starts in 25,200 s, and the deadline is"):
        ask(terms=late)
    many = dataclasses.replace(TERMS, documents=10**12)
    with pytest.raises(UsageError, match="more than 10,000 machines"):
        ask(terms=many)


def test_composed_models_are_no_candidates():
    ensemble = variant("ensemble", Role.STUDENT, ensemble_of=STUDENT)
    plan = ask(run(variants=(*run().variants, ensemble)))
    assert {one.variant for one in plan.variants} == {TEACHER, STUDENT}


@pytest.mark.parametrize(
    ("text", "documents"), [("10M", 10**7), ("2.5k", 2500), ("1,000,000", 10**6), ("7", 7)]
)
def test_documents_are_read(text, documents):
    assert parse_documents(text) == documents


@pytest.mark.parametrize("text", ["0", "-5", "many", "1.5", "", "2T", "10M/s", "1e99", "1,5M"])
def test_what_is_no_number_of_documents_is_refused(text):
    with pytest.raises(UsageError, match="is not a number of documents above 0"):
        parse_documents(text)


@pytest.mark.parametrize("text", ["0h", "-1h", "6", "soon", ""])
def test_what_is_no_deadline_is_refused(text):
    with pytest.raises(UsageError, match="a deadline after"):
        parse_deadline(text)
    assert parse_deadline("90min") == 5400.0


def test_jobs_have_to_fit_into_a_day():
    check_terms(dataclasses.replace(TERMS, jobs_per_day=4.0))
    with pytest.raises(UsageError, match="do not fit into a day"):
        check_terms(dataclasses.replace(TERMS, jobs_per_day=4.1))
    weekly = dataclasses.replace(TERMS, deadline_s=48 * 3600.0)
    with pytest.raises(UsageError, match="1 job per day of 172,800 s each") as raised:
        check_terms(weekly)
    assert "--jobs-per-day 0.14 is one a week" in raised.value.next_step
    check_terms(dataclasses.replace(weekly, jobs_per_day=0.14))
    with pytest.raises(UsageError, match="--rows-per-document is 0"):
        check_terms(dataclasses.replace(TERMS, rows_per_document=0.0))
