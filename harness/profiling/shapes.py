"""Which samples are measured: drawn by the seed from the encoded data, in the shapes it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.profiling.subjects import Inputs
from harness.tasks.encoding import EncodedDataset

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
