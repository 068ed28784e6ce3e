"""When a failure is the machine's: decided by how late a sleeper was woken, nothing else."""

import pytest

from tests.held_up import LATE_S, LOST_S, STEP_S, HeldUp, Sleeper, told_apart


@pytest.mark.parametrize(
    ("woken_s", "lost_s"),
    [
        ([STEP_S, 2 * STEP_S + LATE_S], 0.0),
        ([STEP_S, STEP_S + 1.2], 1.2 - STEP_S - LATE_S),
        ([STEP_S + 0.3, STEP_S + 0.6], 0.3 - LATE_S + 0.3 - STEP_S - LATE_S),
    ],
)
def test_what_a_sleeper_lost_is_all_beyond_its_step_and_an_ordinary_waking(woken_s, lost_s):
    times = iter([0.0, *woken_s, woken_s[-1]])
    sleeper = Sleeper(lambda: next(times))
    for _ in woken_s:
        sleeper.woken()
    assert sleeper.lost_s == pytest.approx(lost_s, abs=1e-9)


class Lost:
    """A sleeper that loses what a test says each time that it is asked; it had lost some before."""

    def __init__(self, lost_s):
        self._lost_s = iter([7.0, 7.0 + lost_s])

    @property
    def lost_s(self):
        return next(self._lost_s)


@pytest.mark.parametrize(
    ("lost_s", "kind"), [(0.0, ValueError), (LOST_S * 0.99, ValueError), (LOST_S, HeldUp)]
)
def test_only_a_machine_that_lost_its_time_excuses_a_failure(lost_s, kind):
    with pytest.raises((ValueError, HeldUp)) as caught, told_apart(Lost(lost_s)):
        raise ValueError("wrong")
    assert type(caught.value) is kind
    with told_apart(Lost(lost_s)):
        pass  # a test that passes has nothing to be excused


def test_a_test_that_hung_is_no_machines_fault():
    with pytest.raises(pytest.fail.Exception, match="Timeout"), told_apart(Lost(60.0)):
        pytest.fail("Timeout (>300.0s) from pytest-timeout.")


def test_a_standstill_counts_whose_end_the_test_sees_before_the_sleeper():
    times = iter([0.0, 1.2])
    sleeper = Sleeper(lambda: next(times))  # it has not been woken since
    assert sleeper.lost_s == pytest.approx(1.2 - STEP_S - LATE_S)
