"""Work that is done while a load runs: the load lasts until the work is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

from harness.analysis.steady_state import steady_from
from harness.errors import GeneratorError
from harness.types import TimeSlice

T = TypeVar("T")
LONGEST_WORK_S = 600.0
"""A load that work goes on beside ends after this time at the latest."""


class WorkWatch(Generic[T]):
    """A `TrialWatcher` that ends a load as soon as some work is done; a context manager.

    Args:
        work: begun in a thread of its own when the load is steady, or its warm-up over.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="beside-load")
        self._future: Future[T] | None = None
        self._was_done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()

    def steady(self, slices: Sequence[TimeSlice]) -> bool:
        """Whether the warm-up has passed."""
        return steady_from(slices) is not None

    def on_window_start(self) -> None:
        """Begin the work."""
        self._future = self._executor.submit(self._work)

    def decided(self, _window: Sequence[TimeSlice]) -> bool:
        """Whether the work is done."""
        return self._future is not None and self._future.done()

    def on_window_end(self) -> None:
        """Take note of whether the work was done by then."""
        self._was_done = self.decided(())

    def result(self, longest: str) -> T:
        """What the work gave.

        Args:
            longest: how long the load could last, in seconds, for a message.

        Raises:
            GeneratorError: the load ended before it.
        """
        if self._future is None or not self._was_done:
            raise GeneratorError(
                f"the load ended after {longest} s, before all that was to be done beside it"
            )
        return self._future.result()
