"""What the page's watch makes of a session; in a process of its own, as Locust patches it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import harness_locust.patched
from types import SimpleNamespace as Made
from harness.types import ServingConfig, WireProtocol, Workload
from harness_locust.serving_watch import ServingWatch, Watched, _trial

workload = Workload(WireProtocol.HTTP, 1, 1, 1.0, 0.0, 0)
plan, poll = Made(model="m", workload=workload), Made(serving=ServingConfig())
phase = Made(name="measured")
"""


def said(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_no_test_of_a_session_is_taken_for_the_second_measurement_of_another() -> None:
    told = said(
        "for number in range(1, 8):\n"
        "    print(_trial(Watched(number, plan, None, 2, poll), phase, 1.0).after_longer_warm_up)"
    )
    assert told == ["False"] * 7


WATCH = """
from harness_locust.serving_watch import _mixed
plan = Made(model="m", workload=workload, is_open_loop=False, sweep=(), users_shape=None)
conductor = Made(options=Made(num_users=4), elapsed_s=3.0, watchers=[])
watch = ServingWatch(conductor)
watch.current = Watched(1, plan, None, 4, poll, asked_users=4)
watch.users_run(4, ramp_up=True)
"""


def test_after_a_reset_the_trial_is_of_as_many_users_as_there_are_now() -> None:
    told = said(
        WATCH + "conductor.options.num_users = 16\n"
        "watch.users_run(16, ramp_up=False)\n"
        "print(len(list(_mixed(watch.current))))\n"
        "watch.results_replaced(None)\n"
        "print(len(list(_mixed(watch.current))))\n"
        "print(_trial(watch.current, phase, 1.0).workload.concurrency)"
    )
    assert told == ["1", "0", "16"]


def test_users_that_change_while_they_ramp_up_are_one_load() -> None:
    told = said(
        WATCH + "conductor.options.num_users = 16\n"
        "watch.users_run(16, ramp_up=True)\n"
        "watch._note_edit(watch.current)\n"
        "print(len(list(_mixed(watch.current))))\n"
        "print(_trial(watch.current, phase, 1.0).workload.concurrency)"
    )
    assert told == ["0", "16"]


@pytest.mark.parametrize(
    "change", ["conductor.options.num_users = 5", "watch.users_run(5, ramp_up=False)"]
)
def test_users_that_change_within_the_measurement_make_two_loads_of_it(change: str) -> None:
    """Asked for on the page, where not all of them need to run yet; or brought by a key."""
    told = said(WATCH + change + "\nwatch._note_edit(watch.current)\nprint(*_mixed(watch.current))")
    assert " ".join(told).startswith("4 users became 5 while the test was measured")
