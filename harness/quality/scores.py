"""Outcomes in, scores out: each metric with its interval, and beside the teacher's.

Everything is paired: a student and its teacher are weighed on the same rows, so what both find
hard cancels, and the retained share has a far narrower interval than two scores apart. Where the
two cut a text into other windows they are paired by document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.metrics import metric_named
from harness.statistics.intervals import Bounds, bounds, on_units, side_by_side
from harness.statistics.metrics import Statistic
from harness.statistics.paired import mcnemar_p_value
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Outcomes
from harness.tasks.registry import family_of
from harness.types import ModelVariant, QualityScore, Role


@dataclass(frozen=True)
class _Relation:
    """A metric as a share of the teacher's, with its interval."""

    share: float | None = None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


def score(
    outcomes: Outcomes,
    dataset: EncodedDataset,
    *,
    variant: ModelVariant,
    teacher: Outcomes | None,
    seed: int,
) -> list[QualityScore]:
    """Score a variant, and relate it to the teacher on the same rows.

    An unanswered row or question counts as wrong. A language model's unanswered windows are left
    out (of the teacher's side of the comparison too), and `samples` tells how many are left; when
    too many are missing there is no score at all.

    `relative_to_teacher` is the metric over the teacher's: a retained share for accuracy, exact
    match and F1, a factor of loss for perplexities and bits per byte. It is None without a teacher,
    and for the perplexity by token when the two models' tokens differ. By word and by byte they
    still compare: window by window where these hold the same bytes, else by document.

    Args:
        outcomes: the variant's.
        dataset: the split they were collected on.
        variant: what answered.
        teacher: the reference's outcomes; the teacher's own may be given or left out.
        seed: of the intervals.

    Raises:
        DataError: the outcomes are of another task or another split than the data set.
        MissingExtraError: scikit-learn is not installed.
    """
    if teacher is None and variant.role is Role.TEACHER:
        teacher = outcomes
    return _scores(outcomes, dataset, variant.family, variant.role, teacher, seed)


def baseline_scores(
    outcomes: Outcomes, dataset: EncodedDataset, *, family: str, teacher: Outcomes, seed: int
) -> list[QualityScore]:
    """Score a yardstick that is not served.

    Args:
        outcomes: the yardstick's, as its task's family makes them (`TaskFamily.told`).
        dataset: the split.
        family: the family that it is a yardstick for.
        teacher: the teacher's outcomes.
        seed: of the intervals.

    Raises:
        DataError: the outcomes are of another task or another split than the data set.
        MissingExtraError: scikit-learn is not installed.
    """
    return _scores(outcomes, dataset, family, Role.BASELINE, teacher, seed)


def _scores(
    outcomes: Outcomes,
    dataset: EncodedDataset,
    family: str,
    role: Role,
    teacher: Outcomes | None,
    seed: int,
) -> list[QualityScore]:
    _check_rows(outcomes.variant, outcomes.size, dataset)
    task = family_of(outcomes.kind)
    if not isinstance(dataset, task.dataset):
        raise DataError(f"the outcomes of {outcomes.variant} are not of the test split's task")
    kept = task.scorable(outcomes)
    if kept is None:
        return []
    relations = _relations(outcomes, teacher, dataset, seed)
    found = [
        (one, bounds_of, relations.get(one.metric, _Relation()))
        for one, bounds_of in _bounded(
            task.statistics(outcomes, dataset, kept), outcomes, kept, seed
        )
    ]
    found += _held_against_teacher(outcomes, teacher, seed)
    return [
        QualityScore(
            variant=outcomes.variant,
            family=family,
            role=role,
            metric=statistic.metric,
            value=statistic.value,
            low=interval.low,
            high=interval.high,
            samples=len(statistic.sums.table),
            sha256=outcomes.sha256,
            relative_to_teacher=relation.share,
            relative_low=relation.low,
            relative_high=relation.high,
            p_value=_p_value(statistic.metric, outcomes, teacher),
            units=interval.units,
            standard_error=interval.standard_error,
            relative_standard_error=relation.standard_error,
        )
        for statistic, interval, relation in found
    ]


def _bounded(
    statistics: Iterable[Statistic], outcomes: Outcomes, kept: NDArray[np.bool_], seed: int
) -> Iterator[tuple[Statistic, Bounds]]:
    groups = _groups(outcomes, kept)
    return ((one, one.bounds(seed=seed, groups=groups)) for one in statistics)


def _held_against_teacher(
    outcomes: Outcomes, teacher: Outcomes | None, seed: int
) -> list[tuple[Statistic, Bounds, _Relation]]:
    """Metrics of which the teacher's own value is 1, so that each is its own share of that."""
    if teacher is None:
        return []
    task = family_of(outcomes.kind)
    own_rows, teacher_rows = task.scorable(outcomes), task.scorable(teacher)
    if own_rows is None or teacher_rows is None or not task.same_rows(outcomes, teacher):
        return []
    kept = own_rows & teacher_rows
    if outcomes.variant == teacher.variant:
        found = task.teacher_statistics(outcomes, outcomes, kept)
        return [(one, Bounds(1.0, 1.0, 0.0, int(kept.sum())), _itself(one)) for one in found]
    found = task.teacher_statistics(outcomes, teacher, kept)
    return [
        (one, interval, _Relation(one.value, interval.low, interval.high, interval.standard_error))
        for one, interval in _bounded(found, outcomes, kept, seed)
    ]


def _check_rows(name: str, rows: int, dataset: EncodedDataset) -> None:
    if rows != dataset.samples:
        raise DataError(
            f"{name} has outcomes of {rows} rows, the test split has {dataset.samples}",
            next_step="the split changed since they were collected: score it again in a new run",
        )


def _relations(
    outcomes: Outcomes, teacher: Outcomes | None, dataset: EncodedDataset, seed: int
) -> Mapping[str, _Relation]:
    """By metric, the relation to the teacher; a metric that does not compare is left out."""
    if teacher is None:
        return {}
    task = family_of(outcomes.kind)
    own_rows, teacher_rows = task.scorable(outcomes), task.scorable(teacher)
    if own_rows is None or teacher_rows is None:
        return {}
    paired = task.same_rows(outcomes, teacher)
    if outcomes.variant == teacher.variant:
        return {one.metric: _itself(one) for one in task.statistics(outcomes, dataset, own_rows)}
    if paired:
        own_rows = teacher_rows = own_rows & teacher_rows
    own = task.statistics(outcomes, dataset, own_rows)
    reference = {one.metric: one for one in task.statistics(teacher, dataset, teacher_rows)}
    own_groups, teacher_groups = _groups(outcomes, own_rows), _groups(teacher, teacher_rows)
    found = {}
    for mine in own:
        theirs = reference.get(mine.metric)
        if theirs is None or theirs.value <= 0:
            continue
        if not task.comparable(mine.metric, outcomes, teacher):
            continue
        groups, first, second = own_groups, mine.sums, theirs.sums
        if not paired:
            groups = None
            first, second = on_units(first, own_groups, second, teacher_groups)
        beside = bounds(side_by_side(first, second), seed=seed, groups=groups)
        found[mine.metric] = _Relation(
            mine.value / theirs.value, beside.low, beside.high, beside.standard_error
        )
    return found


def _itself(statistic: Statistic) -> _Relation:
    """The teacher is all of itself, whatever it was asked."""
    return _Relation(1.0, 1.0, 1.0, 0.0) if statistic.value > 0 else _Relation()


def _groups(outcomes: Outcomes, rows: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    return None if outcomes.groups is None else outcomes.groups[rows]


def _p_value(metric: str, outcomes: Outcomes, teacher: Outcomes | None) -> float | None:
    if (
        teacher is None
        or teacher.variant == outcomes.variant
        or not metric_named(metric).right_or_wrong
    ):
        return None
    task = family_of(outcomes.kind)
    own, theirs = task.right(metric, outcomes), task.right(metric, teacher)
    if own is None or theirs is None or outcomes.groups is not None:
        return None  # it takes rows as independent: of those that belong together it tells nothing
    return mcnemar_p_value(own, theirs)
