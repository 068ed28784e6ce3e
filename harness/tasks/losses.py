"""Where quality was lost, in the terms that every family shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.statistics.paired import PairedRows
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Outcomes
from harness.types.losses import ChainLink, ConfusionShift, Estimate, LossChain, WorstExample

_ROUNDING = 1e-5
"""A row's number that moves by no more, absolute or relative, has not changed: two libraries add in
another order."""
MOST_EXAMPLES = 10
MOST_CHARACTERS = 280

O_co = TypeVar("O_co", bound=Outcomes, covariant=True)


@dataclass(frozen=True)
class Step(Generic[O_co]):
    """What one stage of a variant's making answered."""

    name: str
    outcomes: O_co
    dataset: EncodedDataset | None = None
    """The rows that were asked, where they are at hand: what vectors are judged by lies there."""


@dataclass(frozen=True)
class Confidence:
    """A number of each row that says how sure the teacher is, to divide the samples by."""

    name: str
    values: NDArray[np.float64]
    """(rows,); NaN where the teacher gave no answer."""
    words: Callable[[float], str]
    """Writes such a number."""


class Division(Protocol):
    """A division of the samples into slices."""

    @property
    def name(self) -> str:
        """The name of what rows are divided by."""
        ...

    @property
    def slices(self) -> tuple[str, ...]:
        """The names of the slices."""
        ...

    @property
    def member(self) -> NDArray[np.int64]:
        """Which slice each sample is in, (rows,)."""
        ...


@dataclass(frozen=True)
class LossDetails:
    """What can be shown of a variant's losses beside numbers of slices."""

    examples: tuple[WorstExample, ...] = ()
    shifts: tuple[ConfusionShift, ...] = ()
    classes: tuple[str, ...] = ()
    """Class names of `confusion_change`'s rows and columns."""
    confusion_change: tuple[tuple[int, ...], ...] = ()
    """Samples by class (rows) and answer (columns): the variant's less the teacher's."""
    examples_in: str = ""
    """What the examples' losses are counted in, where that is not how probable the right answer
    is."""


def chain_of_rows(
    metric: str,
    steps: Sequence[Step[Outcomes]],
    pair: Callable[[Any, Any], PairedRows],
) -> LossChain | None:
    """The loss from step to step where every step answers the same rows, each row alone.

    Args:
        metric: that the rows are in.
        steps: the teacher's checkpoint first, what is served last.
        pair: the rows of a step (second) beside those of an earlier one (first). Rows that no step
            left out count, so that the steps' losses add up to the whole.

    Returns:
        None where there is no such row.
    """
    outcomes = [step.outcomes for step in steps]
    kept = np.logical_and.reduce([pair(outcomes[0], one).answered for one in outcomes])
    if not kept.any():
        return None

    def lost(before: Outcomes, after: Outcomes) -> Estimate:
        value, found = pair(before, after).over(kept)
        return Estimate(value, found.low, found.high)

    links: list[ChainLink] = []
    for step, before in zip(steps, [outcomes[0], *outcomes[:-1]], strict=True):
        rows = pair(before, step.outcomes)
        quality = float(rows.variant[kept].sum() / rows.weight[kept].sum())
        loss = lost(before, step.outcomes) if links else Estimate(0.0)
        same = np.isclose(rows.variant, rows.teacher, rtol=_ROUNDING, atol=_ROUNDING)
        changed = int((~same)[kept].sum())
        links.append(ChainLink(step.name, quality, loss, changed))
    left_out = int((~kept).sum())
    total = lost(outcomes[0], outcomes[-1])
    return LossChain(metric, int(kept.sum()), left_out, tuple(links), total)


def shortened(text: str) -> str:
    """One line, cut at the end."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
