"""Outcomes in, scores out: each metric with its interval, and beside the teacher's.

Everything is paired: a student and its teacher are resampled on the same rows, so what both find
hard cancels, and the retained share has a far narrower interval than two scores apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.quality.metrics import Statistic, classification_statistics, language_statistics
from harness.quality.outcomes import Outcomes
from harness.quality.question_answering import question_statistics
from harness.quality.statistics import mcnemar_p_value, percentile_interval
from harness.tasks.encoding import EncodedDataset
from harness.types import ModelVariant, QualityScore, Role

_PAIRED_TESTED = ("accuracy", "exact_match")

MAX_UNANSWERED_SHARE = 0.01
"""Of a language model's windows. What is missing cannot be counted as wrong, as a classifier's
rows are; beyond this the rest is no longer the same text, and nothing is scored."""


@dataclass(frozen=True)
class _Relation:
    """A metric as a share of the teacher's, with its interval."""

    share: float | None = None
    low: float | None = None
    high: float | None = None


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
    more than `MAX_UNANSWERED_SHARE` are missing there is no score at all.

    `relative_to_teacher` is the metric over the teacher's: a retained share for accuracy, exact
    match and F1, a factor of loss for perplexities and bits per byte. It is None without a teacher,
    and for the perplexity by token when the two models' tokens differ. By word and by byte they
    still compare; paired where the windows hold the same bytes, else resampled apart.

    Args:
        outcomes: the variant's.
        dataset: the split they were collected on.
        variant: what answered.
        teacher: the reference's outcomes; the teacher's own may be given or left out.
        seed: of the bootstrap.

    Raises:
        DataError: the outcomes are of another task or another split than the data set.
        MissingExtraError: scikit-learn is not installed.
    """
    if teacher is None and variant.role is Role.TEACHER:
        teacher = outcomes
    return _scores(outcomes, dataset, variant.family, variant.role, teacher, seed)


def baseline_scores(
    name: str,
    family: str,
    predictions: NDArray[np.int64],
    dataset: EncodedDataset,
    *,
    teacher: Outcomes,
    seed: int,
) -> list[QualityScore]:
    """Score a yardstick that is not served, from the classes it predicted.

    Args:
        name: of the baseline, in the place of a variant's.
        family: the family it is a yardstick for.
        predictions: class indices as in `dataset.labels`, (size,).
        dataset: the split.
        teacher: the teacher's outcomes.
        seed: of the bootstrap.

    Raises:
        DataError: not one prediction a row, or a data set without labels.
        MissingExtraError: scikit-learn is not installed.
    """
    _check_rows(name, len(predictions), dataset)
    outcomes = Outcomes(
        variant=name,
        sha256="",
        predictions=predictions,
        correct=predictions == dataset.labels,
        log_likelihood=None,
        tokens=None,
        bytes=None,
        unanswered=np.zeros(len(predictions), dtype=np.bool_),
    )
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
    kept = _scorable(outcomes)
    if kept is None:
        return []
    relations = _relations(outcomes, teacher, dataset, seed)
    scores = []
    for statistic in _statistics(outcomes, dataset, kept):
        low, high = percentile_interval(statistic.resampled(seed))
        relation = relations.get(statistic.metric, _Relation())
        scores.append(
            QualityScore(
                variant=outcomes.variant,
                family=family,
                role=role,
                metric=statistic.metric,
                value=statistic.value,
                low=low,
                high=high,
                samples=int(kept.sum()),
                sha256=outcomes.sha256,
                relative_to_teacher=relation.share,
                relative_low=relation.low,
                relative_high=relation.high,
                p_value=_p_value(statistic.metric, outcomes, teacher),
            )
        )
    return scores


def _check_rows(name: str, rows: int, dataset: EncodedDataset) -> None:
    if rows != dataset.samples:
        raise DataError(
            f"{name} has outcomes of {rows} rows, the test split has {dataset.samples}",
            next_step="the split changed since they were collected: score it again in a new run",
        )


def _scorable(outcomes: Outcomes) -> NDArray[np.bool_] | None:
    """The rows that count, (rows,); None when too few of a language model's were answered."""
    if outcomes.log_likelihood is None:
        return np.ones(outcomes.size, dtype=np.bool_)
    if outcomes.unanswered.mean() > MAX_UNANSWERED_SHARE:
        return None
    return ~outcomes.unanswered


def _statistics(
    outcomes: Outcomes, dataset: EncodedDataset, kept: NDArray[np.bool_]
) -> tuple[Statistic, ...]:
    if outcomes.predictions is not None and dataset.labels is not None:
        return classification_statistics(dataset.labels[kept], outcomes.predictions[kept])
    if outcomes.f1 is not None and outcomes.correct is not None:
        return question_statistics(outcomes.correct[kept], outcomes.f1[kept])
    if (
        outcomes.log_likelihood is not None
        and outcomes.tokens is not None
        and outcomes.bytes is not None
    ):
        words = outcomes.words[kept] if outcomes.words is not None else None
        return language_statistics(
            outcomes.log_likelihood[kept], outcomes.tokens[kept], outcomes.bytes[kept], words
        )
    raise DataError(f"the outcomes of {outcomes.variant} are not of the test split's task")


def _relations(
    outcomes: Outcomes, teacher: Outcomes | None, dataset: EncodedDataset, seed: int
) -> Mapping[str, _Relation]:
    """By metric; a metric that does not compare is left out."""
    if teacher is None:
        return {}
    own_rows, teacher_rows = _scorable(outcomes), _scorable(teacher)
    if own_rows is None or teacher_rows is None:
        return {}
    teacher_seed = seed
    if _same_rows(outcomes, teacher):
        own_rows = teacher_rows = own_rows & teacher_rows
    else:
        teacher_seed = seed + 1  # other windows: nothing to pair, so drawn independently
    own = _statistics(outcomes, dataset, own_rows)
    reference = {one.metric: one for one in _statistics(teacher, dataset, teacher_rows)}
    return {
        mine.metric: _relation(mine, reference[mine.metric], seed, teacher_seed)
        for mine in own
        if mine.metric in reference
        and (mine.metric != "perplexity" or _same_tokens(outcomes, teacher))
    }


def _relation(own: Statistic, teacher: Statistic, seed: int, teacher_seed: int) -> _Relation:
    if teacher.value <= 0:
        return _Relation()
    shares = _share(own.resampled(seed), teacher.resampled(teacher_seed))
    return _Relation(own.value / teacher.value, *percentile_interval(shares))


def _share(own: NDArray[np.float64], teacher: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where a resample leaves the teacher nothing to be a share of."""
    return np.divide(own, teacher, out=np.full_like(own, np.nan), where=teacher > 0)


def _same_rows(outcomes: Outcomes, teacher: Outcomes) -> bool:
    """Whether row i of both is the same sample, which is what pairs them."""
    if outcomes.bytes is None or teacher.bytes is None:
        if outcomes.size != teacher.size:
            raise DataError(
                f"{outcomes.variant} was scored on {outcomes.size} rows and its teacher "
                f"{teacher.variant} on {teacher.size}: they must be of one test split"
            )
        return True
    return np.array_equal(outcomes.bytes, teacher.bytes)


def _same_tokens(outcomes: Outcomes, teacher: Outcomes) -> bool:
    """Whether both cut the text into the same tokens, as far as their numbers tell."""
    if outcomes.tokens is None or teacher.tokens is None:
        return False
    return np.array_equal(outcomes.tokens, teacher.tokens)


def _p_value(metric: str, outcomes: Outcomes, teacher: Outcomes | None) -> float | None:
    if teacher is None or teacher.variant == outcomes.variant or metric not in _PAIRED_TESTED:
        return None
    if outcomes.correct is None or teacher.correct is None:
        return None
    return mcnemar_p_value(outcomes.correct, teacher.correct)
