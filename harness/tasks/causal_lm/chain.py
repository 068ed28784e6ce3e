"""A language model's loss split along its making, in bits per byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.statistics.intervals import RowSums, bounds, on_units, side_by_side
from harness.statistics.metrics import bit_sums
from harness.tasks.causal_lm.outcomes import WindowOutcomes
from harness.tasks.losses import Step
from harness.tasks.rowwise import take
from harness.types.losses import ChainLink, Estimate, LossChain

VISIBLE_NATS = 1e-3
"""A token's change of log likelihood; kernels that sum in another order stay far below."""


@dataclass(frozen=True)
class _Windows:
    """A language model's windows that count."""

    nats: NDArray[np.float64]
    bytes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    documents: NDArray[np.int64] | None

    @property
    def bits_per_byte(self) -> float:
        return float(-self.nats.sum() / (self.bytes.sum() * np.log(2)))

    @property
    def sums(self) -> RowSums:
        return bit_sums(self.nats, self.bytes)


def likelihood_chain(steps: Sequence[Step[WindowOutcomes]], seed: int) -> LossChain | None:
    """The loss in bits per byte from step to step, over the windows that every step answered.

    Where the teacher's tokenizer cuts other windows than the variant's, that one difference is
    paired by document; it is the same text in both. None where no window is left.
    """
    usable = _usable_windows([step.outcomes for step in steps])
    windows = [_windows(step.outcomes, usable[_size_and_bytes(step.outcomes)]) for step in steps]
    if any(not one.bytes.sum() for one in windows):
        return None

    loss = partial(_lost_bits, seed=seed)
    links = [ChainLink(steps[0].name, windows[0].bits_per_byte, Estimate(0.0), 0)]
    for step, before, after in zip(steps[1:], windows[:-1], windows[1:], strict=True):
        changed = _visibly_changed(before, after)
        links.append(ChainLink(step.name, after.bits_per_byte, loss(before, after), changed))
    samples = len(windows[-1].nats)
    left_out = steps[-1].outcomes.size - samples
    total = loss(windows[0], windows[-1])
    return LossChain("bits_per_byte", samples, left_out, tuple(links), total)


def _lost_bits(before: _Windows, after: _Windows, *, seed: int) -> Estimate:
    first, second, groups = after.sums, before.sums, after.documents
    if not np.array_equal(before.bytes, after.bytes):
        first, second = on_units(first, after.documents, second, before.documents)
        groups = None
    found = bounds(side_by_side(first, second, difference=True), seed=seed, groups=groups)
    return Estimate(after.bits_per_byte - before.bits_per_byte, found.low, found.high)


def _size_and_bytes(outcomes: WindowOutcomes) -> bytes:
    """What tells one way of cutting the text from another."""
    return outcomes.bytes.tobytes()


def _usable_windows(outcomes: Sequence[WindowOutcomes]) -> dict[bytes, NDArray[np.bool_]]:
    """By the way of cutting, which windows every step of it answered."""
    usable: dict[bytes, NDArray[np.bool_]] = {}
    for one in outcomes:
        key = _size_and_bytes(one)
        usable[key] = usable.get(key, np.ones(one.size, dtype=np.bool_)) & ~one.unanswered
    return usable


def _windows(outcomes: WindowOutcomes, kept: NDArray[np.bool_]) -> _Windows:
    rows = take(outcomes, kept)
    return _Windows(
        rows.log_likelihood,
        rows.bytes,
        rows.tokens,
        rows.groups,
    )


def _visibly_changed(before: _Windows, after: _Windows) -> int:
    if not np.array_equal(before.bytes, after.bytes):
        return len(after.nats)
    return int((np.abs(after.nats - before.nats) > VISIBLE_NATS * after.tokens).sum())
