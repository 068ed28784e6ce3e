"""The measurements that are carried out in a model's own process, by `time.perf_counter`."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.profiling.subjects import Inputs, Opened

SETTLING_CALLS = 3
"""Untimed, whenever a model takes its turn: another one had the caches before."""
FEWEST_CALLS = 2
"""Of one measurement of throughput, however long they take."""


def time_calls(opened: Opened, batches: Sequence[Inputs], settling: int) -> list[int]:
    """Nanoseconds of each call, one batch after another.

    Args:
        opened: the model.
        batches: a call each.
        settling: untimed calls before them, on the first of the batches.
    """
    prepared = [opened.ready(one) for one in batches]
    with _no_collection():
        for _ in range(settling):
            opened.run(prepared[0])
        spans_ns = []
        for one in prepared:
            start = time.perf_counter_ns()
            opened.run(one)
            spans_ns.append(time.perf_counter_ns() - start)
    return spans_ns


def time_rates(opened: Opened, batches: Sequence[Inputs], window_s: float) -> list[float]:
    """Rows a second of each batch, called over and over for a window of time."""
    return [_rate(opened, batch, window_s) for batch in batches]


def _rate(opened: Opened, batch: Inputs, window_s: float) -> float:
    prepared = opened.ready(batch)
    rows = len(next(iter(batch.values())))
    with _no_collection():
        opened.run(prepared)
        calls = 0
        start = time.perf_counter()
        while (elapsed_s := time.perf_counter() - start) < window_s or calls < FEWEST_CALLS:
            opened.run(prepared)
            calls += 1
    return rows * calls / elapsed_s


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage is not collected inside a measurement, but before it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
