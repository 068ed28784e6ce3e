"""A variant's loss split along its making, from distillation to batching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.tasks.losses import Step
from harness.tasks.registry import family_of
from harness.types.losses import LossChain


def loss_chain(steps: Sequence[Step[Any]], *, seed: int) -> LossChain | None:
    """Split the loss from the first step to the last.

    Each step is asked the same samples; a step's loss is the difference from the step before, so
    the losses add up to the whole. Unanswered rows count as wrong for a classifier; a language
    model's windows that any step left unanswered are left out of all of them.

    Args:
        steps: the teacher's checkpoint first, what is served last.
        seed: of the intervals.

    Returns:
        None where the steps have no row in common, or the family has no such chain.
    """
    return family_of(steps[0].outcomes.kind).loss_chain(steps, seed)
