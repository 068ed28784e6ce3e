"""The kernel timer that an open loop's dispatcher sleeps on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.load.engine.open_loop import Timer, let_come


@pytest.fixture
def timer() -> Iterator[Timer]:
    one = Timer()
    yield one
    one.close()


@pytest.mark.parametrize("wait_s", [0.0001, 0.02])
def test_it_never_wakes_early_and_hardly_late(timer: Timer, wait_s: float) -> None:
    late_ns = []
    for _ in range(30):
        instant_ns = time.monotonic_ns() + int(wait_s * 1e9)
        timer.sleep_until_nearly(instant_ns)
        let_come(instant_ns)
        late_ns.append(time.monotonic_ns() - instant_ns)
    assert min(late_ns) >= 0
    assert sorted(late_ns)[15] < 2_000_000  # the machine may be busy; usually it is 0.1 ms


def test_an_instant_that_is_past_is_no_reason_to_wait(timer: Timer) -> None:
    before_s = time.monotonic()
    for _ in range(100):
        timer.sleep_until_nearly(time.monotonic_ns() - 1)
    assert time.monotonic() - before_s < 0.5


def test_it_spends_next_to_nothing_on_waiting(timer: Timer) -> None:
    before_s = time.process_time()
    instant_ns = time.monotonic_ns() + 300_000_000
    timer.sleep_until_nearly(instant_ns)
    let_come(instant_ns)
    assert time.process_time() - before_s < 0.03


def test_closing_twice_is_fine() -> None:
    timer = Timer()
    timer.close()
    timer.close()
