"""A variant beside its teacher: along the steps of its making, by batch size, and by slice.

Slices of different divisions overlap: a sample has a class *and* a length.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.quality.collection import Predictor, ask, batches
from harness.statistics.paired import PairedRows, holm
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.losses import Step
from harness.tasks.outcomes import Outcomes, RowAnswer
from harness.tasks.registry import family_of
from harness.tasks.rowwise import take
from harness.types import BatchConsistency, ModelVariant
from harness.types.losses import Estimate, LossChain, PairedMeasure, SliceLoss
from harness.words.numbers import number, whole


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


def compare_with_teacher(
    outcomes: Outcomes, teacher: Outcomes, *, family: str, seed: int
) -> tuple[PairedMeasure, ...]:
    """All measures that the two allow; none of the teacher beside itself.

    Args:
        outcomes: the variant's.
        teacher: the teacher's, on the same rows.
        family: they belong to.
        seed: of the intervals.
    """
    if outcomes.variant == teacher.variant or outcomes.size != teacher.size:
        return ()
    measures = family_of(outcomes.kind).paired_measures(outcomes, teacher, seed)
    return tuple(PairedMeasure(outcomes.variant, family, *one) for one in measures)


def measure_alone(
    outcomes: Outcomes, dataset: EncodedDataset, *, family: str, seed: int
) -> tuple[PairedMeasure, ...]:
    """What is measured of one model beside its metrics: a classifier's calibration.

    Args:
        outcomes: the variant's.
        dataset: the split that they were collected on.
        family: it belongs to.
        seed: of what is drawn.
    """
    measures = family_of(outcomes.kind).own_measures(outcomes, dataset, seed)
    return tuple(PairedMeasure(outcomes.variant, family, *one) for one in measures)


def batch_consistency(
    variant: ModelVariant,
    dataset: EncodedDataset,
    predictor: Predictor,
    *,
    batch_sizes: Sequence[int],
    samples: int,
) -> list[BatchConsistency]:
    """Ask the first `samples` rows at each batch size and compare with batch size 1.

    Requests go one at a time, so no dynamic batcher joins them: what is executed is what is asked.
    Batch size 1, where it is among the sizes, is asked a second time and shows whether answers
    repeat at all. Differences near float32's rounding are ordinary (another matrix kernel runs);
    a model with dynamic int8 activations differs more, because its scales are taken over the whole
    batch: other rows in the batch change a row's answer.

    `changed_predictions` counts rows whose class or span, or any of whose next tokens, changed;
    `max_abs_difference` is of logits or of log probabilities, over the numbers finite in both.

    Raises:
        ServerError: a request failed; a batch size above the model's `max_batch_size` does.
        DataError: the data set does not fit the model.
    """
    subset = _first_rows(dataset, samples)
    reference = _answers(variant, subset, predictor, 1)
    return [
        compare_answers(variant, size, reference, _answers(variant, subset, predictor, size))
        for size in batch_sizes
    ]


def _first_rows(dataset: EncodedDataset, samples: int) -> list[EncodedGroup]:
    return [take(group, group.rows < samples) for group in dataset.groups]


def _answers(
    variant: ModelVariant, groups: Sequence[EncodedGroup], predictor: Predictor, batch_size: int
) -> dict[int, RowAnswer]:
    family = family_of(variant.task)
    answers: dict[int, RowAnswer] = {}
    for batch in batches(variant, groups, batch_size):
        rows = family.row_answers(batch, ask(variant, batch, predictor))
        answers.update(zip(batch.rows.tolist(), rows, strict=True))
    return answers


def compare_answers(
    variant: ModelVariant,
    batch_size: int,
    reference: Mapping[int, RowAnswer],
    answers: Mapping[int, RowAnswer],
) -> BatchConsistency:
    """How far answers are from those of a batch size (or a number of streams) of 1.

    Args:
        variant: what answered.
        batch_size: rows of a request, or streams at once, that the answers were given in.
        reference: the answer to each row when it was alone.
        answers: likewise, at that size.
    """
    changed = 0
    largest = 0.0
    for row, expected in reference.items():
        found = answers[row]
        changed += not np.array_equal(expected.prediction, found.prediction)
        finite = np.isfinite(expected.numbers) & np.isfinite(found.numbers)
        differences = np.abs(expected.numbers - found.numbers)[finite]
        largest = max(largest, float(differences.max(initial=0.0)))
    return BatchConsistency(
        variant=variant.name,
        batch_size=batch_size,
        samples=len(reference),
        changed_predictions=changed,
        max_abs_difference=largest,
    )


MOST_VALUES = 20
"""Most values of a column that are shown; the rarer ones are taken together."""
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
    """(rows,) the slice that each sample is in."""
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
    found.append(_by_band("characters", lengths, known_lengths, whole))
    if sure := task.confidence(teacher):
        found.append(_by_band(sure.name, sure.values, None, sure.words))
    return [slicing for slicing in found if slicing is not None and len(slicing.slices) > 1]


def _lengths(texts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([len(text) for text in texts], dtype=np.float64)


def _by_column(name: str, values: Sequence[str], training: Sequence[str] | None) -> Slicing | None:
    """Rows grouped by value, or by quartile where the values are many numbers."""
    numbers = _numbers(values)
    if numbers is not None and len(set(values)) > MOST_VALUES:
        known = _numbers(training) if training else None
        return _by_band(name, numbers, known, number)
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
    # A value that is there, and not one between two: what rounding makes of that is in no band.
    edges = np.unique(np.quantile(known, _QUARTILES, method="lower"))
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
    test = scipy.stats.ttest_ind(inside, outside, equal_var=False, alternative="greater")
    return excess, float(test.pvalue)


def _corrected(found: Sequence[SliceLoss]) -> list[SliceLoss]:
    tested = [one for one in found if one.p_value is not None]
    corrected = holm(np.array([one.p_value for one in tested], dtype=np.float64))
    by_place = iter(corrected.tolist())
    return [
        replace(one, p_value=next(by_place)) if one.p_value is not None else one for one in found
    ]
