"""Slices of the samples, and on which of them a variant falls further behind than elsewhere.

Slices of different divisions overlap: a sample has a class *and* a length.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.statistics.paired import PairedRows, holm
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Outcomes
from harness.tasks.registry import family_of
from harness.types.losses import Estimate, SliceLoss

MOST_VALUES = 20
"""Of a column; the rarer ones are taken together."""
OTHER, EMPTY = "(other values)", "(empty)"
_QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Rows:
    """What is known of each sample apart from any model's answer."""

    texts: Sequence[str]
    labels: Sequence[str] = ()
    """Class names; empty for a language model."""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Slicing:
    """One division: every sample is in one of its slices."""

    name: str
    slices: tuple[str, ...]
    member: NDArray[np.int64]
    """Which slice each sample is in, (rows,)."""
    training: tuple[int, ...] | None
    """Training samples of each slice; None where they are not known."""


def slicings(rows: Rows, teacher: Outcomes, training: Rows | None) -> list[Slicing]:
    """Every division that has at least two slices.

    Numbers are divided at the quartiles of the samples (not of the training data), so that every
    band has enough samples to say something.

    Args:
        rows: of the samples, in the data's order.
        teacher: its outcomes, for its confidence.
        training: of the training data, if that is known.
    """
    found: list[Slicing | None] = []
    if rows.labels:
        found.append(_by_value("class", rows.labels, training.labels if training else None))
    for name, values in rows.columns.items():
        known = training.columns.get(name) if training else None
        found.append(_by_column(name, values, known))
    task, lengths = family_of(teacher.kind), _lengths(rows.texts)
    known_lengths = _lengths(training.texts) if training and task.whole_texts else None
    found.append(_by_band("characters", lengths, known_lengths, lambda x: f"{x:,.0f}"))
    if sure := task.confidence(teacher):
        found.append(_by_band(sure.name, sure.values, None, sure.words))
    return [slicing for slicing in found if slicing is not None and len(slicing.slices) > 1]


def _lengths(texts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([len(text) for text in texts], dtype=np.float64)


def _by_column(name: str, values: Sequence[str], training: Sequence[str] | None) -> Slicing | None:
    """By value, or by quartile where the values are many numbers."""
    numbers = _numbers(values)
    if numbers is not None and len(set(values)) > MOST_VALUES:
        known = _numbers(training) if training else None
        return _by_band(name, numbers, known, lambda x: f"{x:,.4g}")
    return _by_value(name, values, training)


def _numbers(values: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _by_value(name: str, values: Sequence[str], training: Sequence[str] | None) -> Slicing:
    named = [value.strip() or EMPTY for value in values]
    common = [value for value, _ in Counter(named).most_common()]
    kept = sorted(common) if len(common) <= MOST_VALUES else [*sorted(common[: MOST_VALUES - 1])]
    slices = kept if len(kept) == len(common) else [*kept, OTHER]
    place = {value: index for index, value in enumerate(kept)}
    member = np.array([place.get(value, len(kept)) for value in named], dtype=np.int64)
    counts = None
    if training is not None:
        seen = Counter(value.strip() or EMPTY for value in training)
        counts = [seen[value] for value in kept]
        counts += [sum(seen.values()) - sum(counts)] if len(slices) > len(kept) else []
    return Slicing(name, tuple(slices), member, tuple(counts) if counts is not None else None)


def _by_band(
    name: str,
    values: NDArray[np.float64],
    training: NDArray[np.float64] | None,
    words: Callable[[float], str],
) -> Slicing | None:
    """Four bands of about equally many samples; fewer where many share a value."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    edges = np.unique(np.quantile(known, _QUARTILES))
    edges = edges[edges < known.max()]
    bands = [f"up to {words(edge)}" for edge in edges[:1]]
    bands += [f"{words(a)} to {words(b)}" for a, b in itertools.pairwise(edges)]
    bands += [f"above {words(edges[-1])}"] if len(edges) else []
    # Where the teacher gave no answer the number is none: the first band, its least sure.
    member = np.searchsorted(edges, np.nan_to_num(values, nan=-np.inf), side="left")
    counts = None
    if training is not None:
        places = np.searchsorted(edges, training, side="left")
        counts = tuple(np.bincount(places, minlength=len(bands)).tolist())
    return Slicing(name, tuple(bands), member.astype(np.int64), counts)


FEWEST_SAMPLES = 30
"""From here on a mean of so few kinds of values is near enough to normal for Welch's test."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def slice_losses(
    outcomes: Outcomes,
    teacher: Outcomes,
    divisions: Sequence[Slicing],
    *,
    seed: int,
    dataset: EncodedDataset | None = None,
) -> tuple[SliceLoss, ...]:
    """Every slice that holds a sample, the greatest loss first, too small ones last.

    Unanswered rows count as wrong for a classifier; a language model's unanswered windows are left
    out. Nothing where the two were not asked the same samples.

    Args:
        outcomes: the variant's.
        teacher: the teacher's.
        divisions: of these samples.
        seed: of the intervals.
        dataset: the test split as the teacher takes it, where it is at hand.
    """
    task = family_of(outcomes.kind)
    own = task.slice_losses(outcomes, teacher, divisions, seed, dataset)
    if own is not None:
        return own
    rows = task.paired_rows(outcomes, teacher, seed)
    if rows is None:
        return ()
    found = [
        _slice_loss(rows, slicing, index)
        for slicing in divisions
        for index in range(len(slicing.slices))
        if (rows.answered & (slicing.member == index)).any()
    ]
    return tuple(sorted(_corrected(found), key=lambda one: (one.loss.low is None, -one.loss.value)))


def _slice_loss(rows: PairedRows, slicing: Slicing, index: int) -> SliceLoss:
    inside = rows.answered & (slicing.member == index)
    outside = rows.answered & (slicing.member != index)
    excess, p_value = None, None
    if min(inside.sum(), outside.sum()) >= FEWEST_SAMPLES:
        excess, p_value = _excess(rows.loss[inside], rows.loss[outside])
    weight = rows.weight[inside].sum()
    return SliceLoss(
        slicing=slicing.name,
        name=slicing.slices[index],
        samples=int(inside.sum()),
        teacher=float(rows.teacher[inside].sum() / weight),
        variant=float(rows.variant[inside].sum() / weight),
        loss=_estimate(rows, inside),
        excess=excess,
        p_value=p_value,
        training_samples=slicing.training[index] if slicing.training else None,
    )


def _estimate(rows: PairedRows, inside: Mask) -> Estimate:
    """The loss over some rows, with its interval where they are enough for one."""
    if inside.sum() < FEWEST_SAMPLES:
        return Estimate(rows.value(inside))
    value, found = rows.over(inside)
    return Estimate(value, found.low, found.high)


def _excess(inside: Floats, outside: Floats) -> tuple[float, float]:
    excess = float(inside.mean() - outside.mean())
    if not inside.std() and not outside.std():  # all rows alike: there is nothing to tell apart
        return excess, 1.0
    test = stats.ttest_ind(inside, outside, equal_var=False, alternative="greater")
    return excess, float(test.pvalue)


def _corrected(found: Sequence[SliceLoss]) -> list[SliceLoss]:
    tested = [one for one in found if one.p_value is not None]
    corrected = holm(np.array([one.p_value for one in tested], dtype=np.float64))
    by_place = iter(corrected.tolist())
    return [
        replace(one, p_value=next(by_place)) if one.p_value is not None else one for one in found
    ]
