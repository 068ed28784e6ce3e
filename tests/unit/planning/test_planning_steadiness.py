"""A trial whose load was not steady yet is measured once more, and the second time counts."""

import dataclasses

from closed_queue import measure
from planning_samples import make_result
from search_drive import drive, make_search, recommended

from harness.planning.dialogue import after_longer_warm_up
from harness.types.trials import numbered_repeat

UNSTEADY = "the load was not steady yet when the window opened"


def unsteady_result(needed_s=1.3, **changes):
    made = make_result(invalid=UNSTEADY)
    trial = dataclasses.replace(made.trial, **changes)
    return dataclasses.replace(made, trial=trial, steadier_warmup_s=needed_s)


def test_the_second_time_warms_up_for_at_least_as_long_as_was_missing():
    first = unsteady_result(1.3)  # its warm-up was to take half a second at most
    second = after_longer_warm_up(first)
    assert second.workload.min_warmup_s == 1.3
    assert second.workload.warmup_s == 1.3
    assert second.trial_id == f"{first.trial.trial_id}-r3"
    assert second.after_longer_warm_up
    assert not first.trial.after_longer_warm_up
    assert dataclasses.replace(second, workload=first.trial.workload, repeat=0) == first.trial


def test_a_window_that_opened_early_opens_later_though_there_was_time_enough():
    patient = dataclasses.replace(unsteady_result().trial.workload, warmup_s=10.0)
    second = after_longer_warm_up(unsteady_result(0.9, workload=patient))
    assert (second.workload.min_warmup_s, second.workload.warmup_s) == (0.9, 10.0)


def test_it_is_measured_again_once():
    first = unsteady_result()
    second = dataclasses.replace(unsteady_result(2.9), trial=after_longer_warm_up(first))
    assert after_longer_warm_up(second) is None
    assert after_longer_warm_up(make_result()) is None
    assert after_longer_warm_up(make_result(invalid="the generator was the limit")) is None


def unsteady(result, needed_s=1.3):
    return dataclasses.replace(
        result, valid=False, invalid_reason=UNSTEADY, steadier_warmup_s=needed_s
    )


def test_a_search_goes_on_with_the_second_measurement():
    """Every trial but the second ones is unsteady: the same winner, at twice the trials."""
    steady = drive(make_search())

    def system(trial):
        if not trial.after_longer_warm_up:
            return unsteady(measure(trial))
        first = dataclasses.replace(trial, repeat=trial.repeat - 3)  # with its noise
        return dataclasses.replace(measure(first), trial=trial)

    results = drive(make_search(), system)
    firsts, seconds = results[::2], results[1::2]
    assert [one.trial.trial_id for one in firsts] == [one.trial.trial_id for one in steady]
    assert all(one.trial.after_longer_warm_up for one in seconds)
    assert all(one.trial.workload.min_warmup_s == 1.3 for one in seconds)
    assert len({one.trial.trial_id for one in results}) == len(results) == 2 * len(steady)
    found, expected = recommended(results).trial, recommended(steady).trial
    assert found.trial_id == f"{expected.trial_id.removesuffix('-r1')}-r4"


def test_what_is_not_steady_the_second_time_either_is_left_invalid():
    trials = len(drive(make_search()))

    def system(trial):
        return measure(trial) if trial.stage == "confirm" else unsteady(measure(trial))

    results = drive(make_search(), system)
    asked = [one.trial.trial_id for one in results]
    assert len(set(asked)) == len(asked)
    assert max(one.trial.repeat for one in results) == 3
    assert len(results) < 4 * trials


def test_repetitions_are_numbered_past_the_second_measurements() -> None:
    """The fourth test of a session on Locust's page is no second measurement of the first."""
    trials = [
        dataclasses.replace(make_result().trial, repeat=numbered_repeat(n)) for n in range(12)
    ]
    assert [one.repeat for one in trials] == [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]
    assert not any(one.after_longer_warm_up for one in trials)
