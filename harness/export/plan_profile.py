"""The shapes a TensorRT plan is built for: smallest, likeliest and largest batch and length.

One profile holds all. Several would let TensorRT choose kernels by length, but Triton binds an
instance to profiles by configuration, and the harness sends every length to every instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_BATCH = 1
"""The batcher may find one request alone."""


@dataclass(frozen=True)
class PlanProfile:
    """(batch, tokens) that a plan accepts, and those it is tuned for."""

    smallest: tuple[int, int]
    likeliest: tuple[int, int]
    largest: tuple[int, int]

    def holds(self, batch: int, length: int) -> bool:
        """Whether a request of this shape is accepted."""
        low, high = self.smallest, self.largest
        return low[0] <= batch <= high[0] and low[1] <= length <= high[1]


def plan_profile(max_batch_sizes: Sequence[int], lengths: Sequence[int]) -> PlanProfile:
    """The profile of a study's serving space and padded lengths.

    Tuned for the largest batch, which is what a loaded server executes, at the longest length,
    whose requests decide the latency's tail.

    Args:
        max_batch_sizes: of every serving configuration; at least one.
        lengths: padded tokens a request may have; at least one.
    """
    largest = (max(max_batch_sizes), max(lengths))
    # A probe of the parity gate may be shorter than any bucket.
    return PlanProfile((MIN_BATCH, min(2, *lengths)), largest, largest)
