"""The kernel timer that an open loop's dispatcher sleeps on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.load.engine.clock import MONOTONIC
from harness.load.engine.open_loop import Timer


@pytest.fixture
def timer() -> Iterator[Timer]:
    one = Timer()
    yield one
    one.close()


@pytest.mark.parametrize("wait_s", [0.0001, 0.02])
def test_it_never_wakes_early(timer: Timer, wait_s: float) -> None:
    assert min(lateness_ns(timer, wait_s)) >= 0


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [0.0001, 0.02])
def test_it_hardly_wakes_late(timer: Timer, wait_s: float) -> None:
    """Of the machine as well: `make check-slow` runs it with nothing beside it."""
    assert sorted(lateness_ns(timer, wait_s))[15] < 2_000_000  # usually it is 0.1 ms


def lateness_ns(timer: Timer, wait_s: float) -> list[int]:
    late_ns = []
    for _ in range(30):
        instant_ns = time.monotonic_ns() + int(wait_s * 1e9)
        timer.sleep_until_nearly(instant_ns)
        MONOTONIC.let_come(instant_ns)
        late_ns.append(time.monotonic_ns() - instant_ns)
    return late_ns


def test_an_instant_that_is_past_is_no_reason_to_wait(timer: Timer) -> None:
    """A test that waits for what is past waits for ever, and times out."""
    for past_ns in (1, 3_600_000_000_000):
        timer.sleep_until_nearly(time.monotonic_ns() - past_ns)


def test_it_spends_next_to_nothing_on_waiting(timer: Timer) -> None:
    before_s = time.thread_time()
    instant_ns = time.monotonic_ns() + 300_000_000
    timer.sleep_until_nearly(instant_ns)
    MONOTONIC.let_come(instant_ns)
    assert time.thread_time() - before_s < 0.03


def test_closing_twice_is_fine() -> None:
    timer = Timer()
    timer.close()
    timer.close()
