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


def test_users_that_come_and_go_are_not_judged_as_a_loop_that_keeps_so_many_in_flight() -> None:
    told = said(
        "from harness.types.workloads import parse_shape\n"
        "from harness_locust.serving_watch import _judged_workload\n"
        "trial = _trial(Watched(1, plan, None, 8, poll), phase, 1.0)\n"
        "for plan.users_shape in (None, parse_shape('sine:0..1/60s')):\n"
        "    print(_judged_workload(plan, trial).keeps_in_flight)"
    )
    assert told == ["True", "False"]


def test_a_row_of_the_series_has_a_column_for_each_number_of_a_stream() -> None:
    told = said(
        "from harness.load.records.series import HistoryPoint, StreamPoint\n"
        "from harness_locust.session_log import _series_rows\n"
        "stream = StreamPoint(9.0, 2.0, {'ttft': {'p50': 5.0, 'p95': None}})\n"
        "points = [HistoryPoint(0.0, 1.0, 2.0, 2.0, 7.0, 6.0, 8.0, 9.0, {'timeout': 3}, 0, one)\n"
        "          for one in (None, stream)]\n"
        "history = Made(points=lambda until_s: points)\n"
        "results = Made(test='t', history=history, phase_at=lambda at_s: 'measured')\n"
        "plain, streamed = _series_rows(Watched(1, plan, results, 1, poll))\n"
        "print('stream' in plain, plain['failed'], set(streamed) == {*plain,\n"
        "      'output_tokens_per_s', 'good_per_s', 'ttft_p50_ms', 'ttft_p95_ms'})\n"
        "print(streamed['output_tokens_per_s'], streamed['ttft_p50_ms'], streamed['ttft_p95_ms'])"
    )
    assert told == ["False", "3", "True", "9.0", "5.0", "None"]
