"""The verdict on a family."""

import dataclasses

import pytest
from planning_samples import make_result, make_trial

from harness.planning.assessment import QualityJudgement
from harness.planning.decision import decide
from harness.study.objective import parse_objective
from harness.types import Decision, LoadMode, ServingConfig

PASS, FAIL, UNDECIDED = Decision.PASS, Decision.FAIL, Decision.UNDECIDED
SLO = parse_objective("p95 < 50 ms, accuracy >= 90% of teacher")
KEEPS = QualityJudgement(PASS, "keeps 97.2% (95.4\u201399.0%) of the teacher's accuracy")
QUALITY = {
    "teacher": QualityJudgement(PASS, "is the teacher itself"),
    "student": KEEPS,
    "tiny": QualityJudgement(FAIL, "keeps 80% (78% to 82%) of the teacher's accuracy"),
}


def verdict(*results, quality=QUALITY, teacher_counts=False):
    return decide(
        "topics", SLO, quality, results, teachers=("teacher",), teacher_counts=teacher_counts
    )


def student(rate, *, stage="workload", batch=4, concurrency=4, **numbers):
    trial = make_trial("student", batch=batch, concurrency=concurrency, stage=stage)
    return make_result(trial, rate=rate, **numbers)


def teacher(rate, *, stage="workload", **numbers):
    return make_result(make_trial("teacher", stage=stage), rate=rate, **numbers)


def reasons(decided):
    return {(r.variant, r.trial_id): (r.cause, r.reason) for r in decided.rejected}


def test_the_confirmed_trial_is_recommended():
    fresh = student(1430, stage="confirm", concurrency=16)
    decided = verdict(
        teacher(300), student(812), student(1500, concurrency=16), teacher(200, p95_ms=80), fresh
    )
    assert decided.decision is PASS
    assert decided.recommended == fresh.trial.trial_id
    assert decided.slo == SLO.text
    assert decided.summary == (
        "Serve student (gRPC, client batch 4, 16 in flight; max batch 16, 1 instance): "
        "1,430 inferences/s at p95 40.0 ms (at most 42.0 ms with 95% confidence); "
        "it keeps 97.2% (95.4\u201399.0%) of the teacher's accuracy."
    )


def test_every_other_candidate_has_a_reason():
    slow = make_result(make_trial("teacher", batch=16), p95_ms=63.1, rate=400)
    failing = student(1200, batch=8, failures=100)
    invalid = student(2000, batch=16, invalid="the generator was the limit")
    unclear = student(1600, batch=1, p95_ms=49.5)
    beaten = student(812, concurrency=1)
    fresh = student(1430, stage="confirm", concurrency=16)
    winner = student(1500, concurrency=16)
    decided = verdict(slow, failing, invalid, unclear, beaten, winner, fresh)
    told = reasons(decided)
    assert told["tiny", None] == ("quality", QUALITY["tiny"][1])
    assert told["teacher", slow.trial.trial_id][0] == "latency"
    assert told["student", failing.trial.trial_id][0] == "error_rate"
    assert told["student", invalid.trial.trial_id] == ("invalid", "the generator was the limit")
    assert told["student", unclear.trial.trial_id][0] == "undecided"
    cause, reason = told["student", beaten.trial.trial_id]
    assert cause == "slower"
    assert reason == ("meets the objective with 812 inferences/s; the recommended one gives 1,430")
    # The recommended configuration is no rejected one, at whichever time it was measured.
    assert len(told) == 6


def test_equal_throughput_goes_to_the_lower_latency():
    calm = student(1420, stage="confirm", concurrency=4, p95_ms=12)
    busy = student(1430, stage="confirm", concurrency=16, p95_ms=45)
    decided = verdict(calm, busy)
    assert decided.recommended == calm.trial.trial_id
    _, reason = reasons(decided)["student", busy.trial.trial_id]
    assert "at 45.0 ms instead of 12.0 ms" in reason


def test_a_sweep_s_pass_alone_is_not_recommended():
    decided = verdict(student(1500))
    assert decided.decision is UNDECIDED
    assert decided.recommended is None
    assert decided.next_step == "run the study again"


def test_a_pass_whose_fresh_measurement_is_invalid_says_why():
    fresh = student(1500, stage="confirm", invalid="the generator was the limit")
    decided = verdict(student(1500), fresh)
    assert decided.decision is UNDECIDED
    assert f"{fresh.trial.trial_id} is invalid: the generator was the limit." in decided.summary
    assert decided.next_step == "fix what made the trial invalid, then run the study again"


def test_what_fails_when_measured_afresh_is_not_recommended():
    swept = [student(1500), student(900, concurrency=1)]
    fresh = [
        student(1500, stage="confirm", p95_ms=60),
        student(890, concurrency=1, stage="confirm"),
    ]
    decided = verdict(*swept, *fresh)
    assert decided.decision is PASS
    assert decided.recommended.endswith("c1-r1")
    cause, reason = reasons(decided)["student", make_trial().trial_id]
    assert cause == "latency"
    assert "met the objective once, but measured afresh: p95 60.0 ms" in reason


def test_no_student_that_qualifies_is_a_fail_that_keeps_the_teacher():
    decided = verdict(student(900, p95_ms=90), teacher(300), teacher(290, stage="confirm"))
    assert decided.decision is FAIL
    assert decided.recommended is None
    assert decided.summary.startswith("Keep the teacher: no student of topics meets `p95 < 50 ms")
    assert "1 of 2 student variants fall short in quality" in decided.summary
    assert "none of 1 configurations meets the load clauses (1 by latency)" in decided.summary
    assert "The teacher meets it: teacher (gRPC, client batch 4, 4 in flight" in decided.summary
    assert "gave 290 inferences/s at p95 40.0 ms" in decided.summary
    told = reasons(decided)
    assert told["teacher", make_trial("teacher").trial_id][0] == "teacher"


def test_a_teacher_that_fails_too_is_kept_with_that_said():
    decided = verdict(student(900, p95_ms=90), teacher(300, p95_ms=80))
    assert decided.decision is FAIL
    assert "The teacher does not meet it either: teacher (gRPC" in decided.summary
    assert "p95 80.0 ms" in decided.summary


def test_a_teacher_that_was_never_measured_well_is_kept_with_that_said():
    spoiled = teacher(300, invalid="counters were reset")
    decided = verdict(student(900, p95_ms=90), spoiled)
    assert decided.decision is FAIL
    assert "No valid trial was measured of the teacher itself." in decided.summary


def test_no_student_at_all_is_never_a_pass():
    quality = {"teacher": QualityJudgement(PASS, "is the teacher itself")}
    decided = verdict(teacher(300), teacher(300, stage="confirm"), quality=quality)
    assert decided.decision is FAIL
    assert "no student could be measured" in decided.summary


def test_a_teacher_that_counts_is_kept_as_a_pass():
    confirmed = teacher(290, stage="confirm")
    decided = verdict(student(900, p95_ms=90), teacher(300), confirmed, teacher_counts=True)
    assert decided.decision is PASS
    assert decided.recommended == confirmed.trial.trial_id
    assert decided.summary.startswith("Keep the teacher, no student is confirmed to meet the obj")
    assert decided.summary.endswith("it is the teacher itself.")


def test_a_student_passes_beside_a_faster_teacher_and_that_is_said():
    fresh = student(1000, stage="confirm")
    decided = verdict(teacher(2000), student(1000), fresh)
    assert decided.decision is PASS
    assert decided.recommended == fresh.trial.trial_id
    assert decided.summary.endswith("met the load clauses with 2,000 inferences/s.")
    assert "The teacher gives more: teacher" in decided.summary
    # As much, within what windows differ by, is no more.
    assert "gives more" not in verdict(teacher(1020), student(1000), fresh).summary


def test_a_student_is_not_recommended_over_a_teacher_that_was_not_measured_well():
    spoiled = teacher(2000, invalid="the generator was the limit")
    decided = verdict(teacher(300), spoiled_beside(spoiled), student(1000, stage="confirm"))
    assert decided.decision is UNDECIDED
    assert decided.recommended is None
    assert "the generator was the limit" in decided.summary
    assert "1,000 inferences/s" in decided.summary
    assert decided.next_step


def test_an_invalid_trial_of_the_teacher_that_could_not_win_changes_nothing():
    fresh = student(1000, stage="confirm")
    for spoiled in (
        teacher(500, invalid="sent late"),  # less than the student gives
        teacher(2000, p95_ms=90, invalid="sent late"),  # would not have met it
    ):
        assert verdict(spoiled_beside(spoiled), fresh).decision is PASS
    better = teacher(2100)  # known to be better all the same
    assert verdict(better, spoiled_beside(teacher(2000, invalid="late")), fresh).decision is PASS


def spoiled_beside(result):
    """The result in its own configuration."""
    trial = make_trial("teacher", batch=16)
    return dataclasses.replace(result, trial=trial)


def test_a_trial_measured_again_is_listed_once_as_spoiled():
    spoiled = student(1500, invalid="not steady yet")
    again = dataclasses.replace(
        student(1480), trial=dataclasses.replace(make_trial("student"), repeat=2)
    )
    decided = verdict(spoiled, again, student(1470, stage="confirm"))
    assert decided.decision is PASS
    cause, reason = reasons(decided)["student", spoiled.trial.trial_id]
    assert (cause, reason) == ("invalid", "not steady yet; it was measured again")


def test_all_variants_fall_short_in_quality():
    quality = {
        "student": QualityJudgement(FAIL, "keeps 50%"),
        "tiny": QualityJudgement(FAIL, "keeps 40%"),
    }
    decided = verdict(quality=quality)
    assert decided.decision is FAIL
    assert "2 of 2 student variants fall short in quality" in decided.summary
    assert {r.cause for r in decided.rejected} == {"quality"}


def test_all_configurations_fail():
    decided = verdict(
        student(100, p95_ms=70),
        student(80, p95_ms=90, batch=8),
        teacher(20, p95_ms=300),
        teacher_counts=True,
    )
    assert decided.decision is FAIL
    assert decided.summary.startswith("No model of topics meets `p95 < 50 ms")
    assert "none of 3 configurations meets the load clauses (3 by latency)" in decided.summary
    assert "the nearest was student (gRPC, client batch 4, 4 in flight" in decided.summary


def test_a_variant_that_was_never_driven_leaves_it_open():
    decided = verdict(teacher(100, p95_ms=70))
    assert decided.decision is UNDECIDED
    assert "no trial was measured of student." in decided.summary
    assert decided.next_step == verdict().next_step == "run the study again"


def test_undecided_latency_says_how_long_to_measure():
    decided = verdict(teacher(20, p95_ms=300), student(1000, p95_ms=49, stage="confirm"))
    assert decided.decision is UNDECIDED
    # 2.45 ms of interval against 1 ms of room: 6 times the 2 s.
    assert decided.next_step == "raise traffic.confirm_duration_s to about 12.0 s"
    assert "49.0 ms" in decided.summary


def test_undecided_quality_keeps_the_verdict_open():
    quality = {
        "student": QualityJudgement(UNDECIDED, "keeps 90.5% (88% to 93%) of the teacher's accuracy")
    }
    decided = verdict(student(1000), student(1000, stage="confirm"), quality=quality)
    assert decided.decision is UNDECIDED
    assert "keeps 90.5%" in decided.summary
    assert "samples" in decided.next_step


def test_undecided_quality_does_not_stop_another_s_pass():
    quality = {**QUALITY, "student": QualityJudgement(UNDECIDED, "keeps 90.5%"), "other": KEEPS}
    confirmed = make_result(make_trial("other", stage="confirm"), rate=300)
    decided = verdict(student(1000), teacher(300), confirmed, quality=quality)
    assert decided.decision is PASS
    assert decided.recommended == confirmed.trial.trial_id


def test_only_invalid_measurements_left_open():
    decided = verdict(student(100, invalid="counters were reset"), teacher(20, p95_ms=70))
    assert decided.decision is UNDECIDED
    assert "counters were reset" in decided.summary


def test_an_invalid_trial_does_not_hide_that_quality_is_open_too():
    quality = {
        **QUALITY,
        "student": QualityJudgement(UNDECIDED, "keeps 100% (83% to 120%): about 72 samples"),
    }
    decided = verdict(student(100, invalid="sent late"), quality=quality)
    assert decided.decision is UNDECIDED
    assert "is invalid: sent late. And student keeps 100% (83% to 120%)" in decided.summary
    assert "score more samples" in decided.next_step


@pytest.mark.parametrize("numbers", [{}, {"invalid": "sent late"}])
def test_more_samples_are_not_advised_where_no_number_of_them_would_decide(numbers):
    judged = QualityJudgement(UNDECIDED, "keeps 90.7% (64.8% to 123%)", at_the_bound=True)
    decided = verdict(student(100, **numbers), quality={**QUALITY, "student": judged})
    assert "score more samples" not in decided.next_step
    assert "move the quality's bound, or take another student" in decided.next_step


def test_what_is_no_candidate_is_never_recommended():
    control = make_trial("control", stage="confirm")
    decided = verdict(make_result(control, rate=9000), student(800, stage="confirm"))
    assert decided.recommended == make_trial("student", stage="confirm").trial_id
    assert all(rejection.variant != "control" for rejection in decided.rejected)


def test_an_invalid_fresh_measurement_does_not_undo_the_sweep_s():
    spoiled = student(1500, stage="confirm", invalid="sent late")
    decided = verdict(student(1500, p95_ms=70), spoiled, teacher(20, p95_ms=90))
    assert decided.decision is FAIL


def test_what_met_it_once_and_is_invalid_afresh_is_undecided_not_invalid():
    spoiled = student(1500, stage="confirm", invalid="sent late")
    decided = verdict(student(1500), spoiled)
    assert decided.decision is UNDECIDED
    told = reasons(decided)
    assert told["student", spoiled.trial.trial_id] == ("invalid", "sent late")
    cause, reason = told["student", make_trial().trial_id]
    assert cause == "undecided"
    assert reason == "met the objective once, but measured afresh: invalid: sent late"


def test_the_setting_names_what_differs_from_the_default():
    serving = ServingConfig(queue_delay_us=2000, instance_count=2, intra_op_threads=2)
    result = make_result(make_trial(serving=serving, stage="confirm"))
    assert (
        "max batch 16, 2 instances \u00d7 2 threads, queue delay 2 ms)" in verdict(result).summary
    )


def test_an_open_loop_is_named_by_its_rate():
    fresh = student(1000, stage="confirm")
    workload = dataclasses.replace(
        fresh.trial.workload, load_mode=LoadMode.OPEN, rate_per_s=250.0, concurrency=512
    )
    result = dataclasses.replace(fresh, trial=dataclasses.replace(fresh.trial, workload=workload))
    assert "client batch 4, 250 requests/s Poisson; max batch 16" in verdict(result).summary


def test_the_latency_of_the_objective_is_the_one_reported():
    slo = parse_objective("mean < 30 ms")
    decided = decide("topics", slo, {"student": KEEPS}, [student(800, stage="confirm")])
    assert "at mean 22.0 ms (at most 24.0 ms with 95% confidence)" in decided.summary


def test_equals_in_both_go_to_the_first_measured():
    plain = student(1420, stage="confirm", p95_ms=12.3)
    odd = make_result(
        make_trial(stage="confirm", serving=ServingConfig(queue_delay_us=2000)),
        rate=1430,
        p95_ms=12.0,
    )
    decided = verdict(plain, odd)
    assert decided.recommended == plain.trial.trial_id
    _, reason = reasons(decided)["student", odd.trial.trial_id]
    assert "the recommended one gave 1,420" in reason
