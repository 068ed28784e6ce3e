"""Work on several variants at once, while nothing is timed; results come in the study's order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from harness.flow.options import ProgressSink
from harness.types import ModelVariant, Progress

T = TypeVar("T")

AT_ONCE = 2
"""Variants that are loaded and asked at once: one's loading fills the other's pauses."""
LARGEST_AT_ONCE_BYTES = 2**29
"""Larger artefacts are asked one by one, so that no two of them need memory at the same time."""


def at_once(variants: Sequence[ModelVariant]) -> int:
    """How many of some variants may be loaded and asked at the same time."""
    if any((one.size_bytes or 0) > LARGEST_AT_ONCE_BYTES for one in variants):
        return 1
    return min(AT_ONCE, len(os.sched_getaffinity(0)))


@contextmanager
def side_by_side(tasks: Sequence[Callable[[], T]], most: int) -> Iterator[list[Callable[[], T]]]:
    """Carry out tasks, at most `most` of them at a time; one at a time in this very thread.

    Gives, in the order of the tasks, what waits for each one's result or raises its error. On
    leaving, tasks that have not begun do not begin, and one at work is not waited for: after
    Ctrl-C its server goes away under it.
    """
    if most <= 1:
        yield list(tasks)
        return
    executor = ThreadPoolExecutor(most, thread_name_prefix="side-by-side")
    try:
        yield [executor.submit(task).result for task in tasks]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


class SharedProgress:
    """The progress of a stage whose steps are worked on at the same time, told as one."""

    def __init__(self, sink: ProgressSink, stage: str, total: int, done: int = 0) -> None:
        self._sink, self._stage, self._total, self._done = sink, stage, total, done
        self._shares: dict[str, float] = {}
        self._lock = Lock()

    def told(self, step: str, share: float, note: str = "") -> None:
        """Say how much of a step is done (0 to 1); the note is the step's name by default."""
        with self._lock:
            self._shares[step] = share
            done = self._done + sum(self._shares.values())
            self._sink(Progress(self._stage, done, self._total, note or step))

    def of(self, step: str) -> ProgressSink:
        """A sink for the progress inside one step."""
        return lambda within: self.told(step, within.done / within.total, within.note)
