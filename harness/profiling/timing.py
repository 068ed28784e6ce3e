"""Samples drawn with the seed in the data's shapes, and the timing of a model on them."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from harness.profiling.subjects import Inputs, Opened
from harness.tasks.encoding import EncodedDataset

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


Shape = tuple[int, int]
"""(batch, length)."""
SHORTEST = 4


def draw_samples(
    encoded: EncodedDataset, samples: int, generator: np.random.Generator
) -> tuple[list[Inputs], int]:
    """Rows of one each, at random, each padded to its own bucket.

    A data set that has fewer is gone through again in another order.

    Returns:
        The batches, and how many distinct samples are among them.
    """
    places = [(group, row) for group in encoded.groups for row in range(len(group.rows))]
    order = np.concatenate(
        [generator.permutation(len(places)) for _ in range(-(-samples // len(places)))]
    )[:samples]
    batches: list[Inputs] = []
    for place in order.tolist():
        group, row = places[place]
        batches.append({name: values[row : row + 1] for name, values in group.inputs.items()})
    return batches, len(set(order.tolist()))


def lengths_of(encoded: EncodedDataset) -> tuple[int, ...]:
    """The data's buckets, ascending; of a single one also its half and its quarter."""
    own = sorted({group.length for group in encoded.groups})
    if len(own) > 1:
        return tuple(own)
    return tuple(sorted({max(SHORTEST, own[0] // 4), max(SHORTEST, own[0] // 2), own[0]}))


def throughput_shapes(encoded: EncodedDataset, batch_sizes: Sequence[int]) -> tuple[Shape, ...]:
    """Every batch at the longest length; at the others the smallest and the largest batch."""
    *shorter, longest = lengths_of(encoded)
    ends = sorted({min(batch_sizes), max(batch_sizes)})
    return (
        *((batch, longest) for batch in batch_sizes),
        *((batch, length) for length in shorter for batch in ends),
    )


def batch_of(encoded: EncodedDataset, shape: Shape, generator: np.random.Generator) -> Inputs:
    """Real rows in a shape, from the group of that length, or cut from the next longer one.

    Rows repeat only where a group has too few.
    """
    batch, length = shape
    group = next((one for one in encoded.groups if one.length >= length), encoded.groups[-1])
    there = len(group.rows)
    rows = generator.choice(there, size=batch, replace=there < batch)
    return {name: values[rows, :length] for name, values in group.inputs.items()}
