"""A variant's loss split along its making: distillation, export, quantisation, serving, batching.

Each step is asked the same samples; a step's loss is the difference from the step before, so the
losses add up to the whole. A classifier's are differences of accuracy on the same rows
(`paired_loss`); a language model's are bits per byte, weighed together by document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.quality.intervals import RowSums, bounds, on_units, side_by_side
from harness.quality.metrics import bit_sums
from harness.quality.outcomes import Outcomes
from harness.quality.pairs import paired_loss
from harness.tasks.rowwise import take
from harness.types.losses import ChainLink, Estimate, LossChain

VISIBLE_NATS = 1e-3
"""A token's change of log likelihood; kernels that sum in another order stay far below."""


@dataclass(frozen=True)
class Step:
    """What one stage of a variant's making answered."""

    name: str
    outcomes: Outcomes


def loss_chain(steps: Sequence[Step], *, seed: int) -> LossChain | None:
    """Split the loss from the first step to the last.

    Unanswered rows count as wrong for a classifier. A language model's windows that any step left
    unanswered are left out of all of them. Where the teacher's tokenizer cuts other windows than
    the variant's, that one difference is paired by document; it is the same text in both.

    Args:
        steps: the teacher's checkpoint first, what is served last.
        seed: of the intervals.

    Returns:
        None where a language model's steps have no window in common.
    """
    if steps[0].outcomes.correct is not None:
        return _of_accuracy(steps, seed)
    return _of_likelihood(steps, seed)


def _of_accuracy(steps: Sequence[Step], seed: int) -> LossChain:
    right = [np.asarray(step.outcomes.correct) for step in steps]
    groups = steps[-1].outcomes.groups

    def loss(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Estimate:
        found = paired_loss(before, after, seed=seed, groups=groups)
        return Estimate(float(before.mean() - after.mean()), found.low, found.high)

    links = [ChainLink(steps[0].name, float(right[0].mean()), Estimate(0.0), 0)]
    for step, before, after in zip(steps[1:], right[:-1], right[1:], strict=True):
        changed = int((before != after).sum())
        links.append(ChainLink(step.name, float(after.mean()), loss(before, after), changed))
    return LossChain("accuracy", len(right[0]), 0, tuple(links), loss(right[0], right[-1]))


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


def _of_likelihood(steps: Sequence[Step], seed: int) -> LossChain | None:
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


def _size_and_bytes(outcomes: Outcomes) -> bytes:
    """What tells one way of cutting the text from another."""
    return np.asarray(outcomes.bytes).tobytes()


def _usable_windows(outcomes: Sequence[Outcomes]) -> dict[bytes, NDArray[np.bool_]]:
    """By the way of cutting, which windows every step of it answered."""
    usable: dict[bytes, NDArray[np.bool_]] = {}
    for one in outcomes:
        key = _size_and_bytes(one)
        usable[key] = usable.get(key, np.ones(one.size, dtype=np.bool_)) & ~one.unanswered
    return usable


def _windows(outcomes: Outcomes, kept: NDArray[np.bool_]) -> _Windows:
    rows = take(outcomes, kept)
    return _Windows(
        np.asarray(rows.log_likelihood),
        np.asarray(rows.bytes),
        np.asarray(rows.tokens),
        rows.groups,
    )


def _visibly_changed(before: _Windows, after: _Windows) -> int:
    if not np.array_equal(before.bytes, after.bytes):
        return len(after.nats)
    return int((np.abs(after.nats - before.nats) > VISIBLE_NATS * after.tokens).sum())
