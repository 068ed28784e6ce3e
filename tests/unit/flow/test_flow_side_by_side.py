"""Work at the same time: results in order, errors in their place, nothing begun after a stop."""

import threading
from dataclasses import replace

import pytest

from harness.flow.side_by_side import (
    LARGEST_AT_ONCE_BYTES,
    SharedProgress,
    at_once,
    side_by_side,
)
from harness.types import Progress
from tests.sample_run import sample_run


def test_results_come_in_the_order_of_the_tasks_though_they_end_in_another() -> None:
    second_is_done = threading.Event()

    def first() -> str:
        assert second_is_done.wait(30)
        return "first"

    def second() -> str:
        second_is_done.set()
        return "second"

    with side_by_side([first, second], most=2) as results:
        assert [result() for result in results] == ["first", "second"]


def test_one_at_a_time_is_done_here_and_only_when_it_is_asked_for() -> None:
    seen: list[threading.Thread] = []
    with side_by_side([lambda: seen.append(threading.current_thread())] * 2, most=1) as results:
        assert not seen
        results[0]()
        assert seen == [threading.current_thread()]


def test_an_error_stands_in_its_tasks_place() -> None:
    def fails() -> int:
        raise ValueError("of the second")

    with side_by_side([lambda: 1, fails, lambda: 3], most=2) as results:
        assert results[0]() == 1
        with pytest.raises(ValueError, match="of the second"):
            results[1]()
        assert results[2]() == 3


def test_what_has_not_begun_when_the_caller_stops_never_begins() -> None:
    begun, release = threading.Semaphore(0), threading.Event()
    started: list[int] = []

    def task(number: int) -> None:
        started.append(number)
        begun.release()
        assert release.wait(30)

    tasks = [lambda number=number: task(number) for number in range(4)]  # type: ignore[misc]
    with side_by_side(tasks, most=2):  # left while two are at work
        assert begun.acquire(timeout=30)
        assert begun.acquire(timeout=30)
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("side-by-side"):
            thread.join(30)
    assert sorted(started) == [0, 1]


def test_large_artefacts_are_not_loaded_beside_each_other() -> None:
    small = sample_run().variants[0]
    large = replace(small, size_bytes=LARGEST_AT_ONCE_BYTES + 1)
    assert at_once([small, large]) == 1


def test_progress_of_several_steps_is_told_as_one() -> None:
    told: list[Progress] = []
    shared = SharedProgress(told.append, "quality", total=4, done=1)
    shared.told("a", 0.5)
    shared.of("b")(Progress("inside", 1, 4, "note"))
    shared.told("a", 1.0)
    assert told == [
        Progress("quality", 1.5, 4, "a"),
        Progress("quality", 1.75, 4, "note"),
        Progress("quality", 2.25, 4, "a"),
    ]
