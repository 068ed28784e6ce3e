"""What the page's watch makes of a session; in a process of its own, as Locust patches it."""

from __future__ import annotations

import subprocess
import sys

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


def test_after_a_reset_the_trial_is_of_as_many_users_as_there_are_now() -> None:
    told = said(
        "conductor = Made(options=Made(num_users=1), elapsed_s=3.0, watchers=[])\n"
        "watch = ServingWatch(conductor)\n"
        "watch.current = Watched(1, plan, None, 1, poll)\n"
        "conductor.options.num_users = 16\n"
        "watch.results_replaced(None)\n"
        "print(_trial(watch.current, phase, 1.0).workload.concurrency)"
    )
    assert told == ["16"]
