"""lm-eval's samples as rows of our tables, with intervals and paired with the teacher's.

The metric is lm-eval's own (its aggregation over its per-document values). Where it is a mean, or a
ratio of sums (perplexities, bits per byte), its interval is as everywhere in the harness: exact for
what is 0 or 1 per document. Other aggregations (F1, Matthews, BLEU) are computed again on resamples
of the documents, with about one document more whose answer is another document's: so that a model
without an error has an interval too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.quality.lm_eval.classifier import LABEL_PERPLEXITY, label_perplexity
from harness.statistics.intervals import (
    CONFIDENCE,
    Bounds,
    RowSums,
    Scale,
    bounds,
    share_bounds,
    side_by_side,
)
from harness.statistics.paired import mcnemar_p_value
from harness.types import ModelVariant, QualityScore

MAX_LEFT_OUT_SHARE = 0.01
"""Share of a metric's documents. What has no wrong answer is left out when it is unanswered; beyond
this the rest is no longer the same text, and the metric is not told."""
COSTLY_RESAMPLES = 200
"""Resamples of an aggregation that is not a function of sums."""

Floats = NDArray[np.float64]
Samples = Sequence[Mapping[str, Any]]
"""lm-eval's, of one task: an object a document and filter."""


def task_scores(
    task: Any,
    samples: Samples,
    *,
    variant: ModelVariant,
    teacher_samples: Samples,
    outcomes_file: str,
    seed: int,
) -> list[QualityScore]:
    """A row a metric and filter, named `TASK/METRIC` (`TASK/METRIC,FILTER` of a filter by name).

    `relative_to_teacher` is the metric over the teacher's on the documents that both answered; None
    where the teacher's is not above 0, or was not asked. `p_value` is McNemar's exact test, for
    metrics that are 0 or 1 a document.

    Args:
        task: lm-eval's task object.
        samples: of the variant.
        variant: what answered.
        teacher_samples: of its teacher; the variant's own where it is the teacher.
        outcomes_file: where the samples lie, in the run folder.
        seed: of the intervals.
    """
    own, reference = _by_metric(samples), _by_metric(teacher_samples)
    documents = len({sample["doc_id"] for sample in samples})
    scores = []
    for (metric, filter_name), values in own.items():
        if len(values) < (1 - MAX_LEFT_OUT_SHARE) * documents:
            continue
        aggregate = _aggregate(task, metric)
        name = f"{task.task_name}/{metric}"
        if filter_name != "none":
            name += f",{filter_name}"
        teacher = reference.get((metric, filter_name), {})
        items = list(values.values())
        found = aggregate.bounds(items, seed)
        scores.append(
            QualityScore(
                variant=variant.name,
                family=variant.family,
                role=variant.role,
                metric=name,
                value=aggregate.value(items),
                low=found.low,
                high=found.high,
                samples=len(items),
                sha256=variant.sha256,
                outcomes_file=outcomes_file,
                **_relation(aggregate, values, teacher, seed, itself=samples is teacher_samples),
                units=found.units,
                standard_error=found.standard_error,
                p_value=_p_value(values, teacher) if samples is not teacher_samples else None,
            )
        )
    return scores


def _by_metric(samples: Samples) -> dict[tuple[str, str], dict[int, Any]]:
    """Per-document values, by metric and filter, then by document."""
    found: dict[tuple[str, str], dict[int, Any]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            values = found.setdefault((metric, sample["filter"]), {})
            values[sample["doc_id"]] = sample[metric]
    return found


@dataclass(frozen=True)
class _Aggregate:
    """How per-document values become the metric."""

    of_items: Callable[[Sequence[Any]], float]
    of_sums: Callable[[Floats], Floats] | None = None
    """The value from summed (value, weight), (..., 2) -> (...); None where it is not a function of
    sums."""
    plain_mean: bool = False

    def value(self, items: Sequence[Any]) -> float:
        return float(self.of_items(items))

    def sums(self, items: Sequence[Any], beside: Sequence[Any] = ()) -> RowSums | None:
        """How it follows from sums over documents; None where it does not."""
        if self.of_sums is None:
            return None
        table = _table(items)
        limits = _limits(_table([*items, *beside])) if self.plain_mean else None
        if limits is None:
            scale = Scale.PLAIN if self.plain_mean else Scale.LOGARITHM
            return RowSums(table, self.of_sums, scale=scale)
        possible = np.column_stack([limits, np.ones(2)])
        return RowSums(table, self.of_sums, possible, limits=limits)

    def bounds(self, items: Sequence[Any], seed: int) -> Bounds:
        """The confidence interval over documents."""
        if self.plain_mean and all(_is_plain(item) and item in (0, 1) for item in items):
            return share_bounds(int(sum(items)), len(items))
        sums = self.sums(items)
        if sums is not None:
            return bounds(sums, seed=seed)
        (drawn,) = self._resampled(seed, items)
        low, high = _expanded_interval(drawn, len(items))
        return Bounds(low, high, None, len(items))

    def relative_bounds(self, own: Sequence[Any], teacher: Sequence[Any], seed: int) -> Bounds:
        """The interval of the value relative to the teacher's, on the same documents."""
        first, second = self.sums(own, teacher), self.sums(teacher, own)
        if first is not None and second is not None:
            return bounds(side_by_side(first, second), seed=seed)
        drawn, others = self._resampled(seed, own, teacher)
        shares = np.divide(drawn, others, out=np.full_like(drawn, np.nan), where=others > 0)
        low, high = _expanded_interval(shares, len(own))
        return Bounds(low, high, None, len(own))

    def _resampled(self, seed: int, *models: Sequence[Any]) -> Floats:
        """The metric of one or more models on resamples of the documents that all have answered.

        Each resample has as many documents as there are, and about one more. Of resamples there are
        several kinds: one without a wrong answer more, and one a model in which it answers the
        further documents wrongly.

        Returns:
            (models, 1 + models, `COSTLY_RESAMPLES`): the metric by model, kind and resample.
        """
        rng = np.random.default_rng(seed)
        count = len(models[0])
        values = np.empty((len(models), 1 + len(models), COSTLY_RESAMPLES))
        for kind, resample in np.ndindex(values.shape[1:]):
            drawn = rng.integers(count, size=count)
            more = rng.integers(count, size=int(rng.exponential() + rng.random()))
            for model, items in enumerate(models):
                wrong = model == kind - 1
                extra = [_mistaken(items, i, rng) if wrong else items[i] for i in more]
                metric = self.of_items([*(items[i] for i in drawn), *extra])
                values[model, kind, resample] = float(metric)
        return values


def _is_plain(item: Any) -> bool:
    return not isinstance(item, tuple | list)


def _mistaken(items: Sequence[Any], place: int, rng: np.random.Generator) -> Any:
    """A document with an answer that another was given, where that is another answer."""
    item = items[place]
    if _is_plain(item) or len(item) != 2:  # noqa: PLR2004  (what is right, and the answer)
        return item
    others = [one[1] for one in items if one[1] != item[1]]
    if not others:
        return item
    return type(item)([item[0], others[int(rng.integers(len(others)))]])


def _limits(table: Floats) -> tuple[float, float] | None:
    """What a plain mean's documents can hold: shares or percentages; else it is not known."""
    least, most = float(table[:, 0].min()), float(table[:, 0].max())
    if least < 0 or most > 100 or (table[:, 1] != 1).any():  # noqa: PLR2004  (per cent)
        return None
    return (0.0, 1.0) if most <= 1 else (0.0, 100.0)


def _expanded_interval(values: Floats, count: int) -> tuple[float | None, float | None]:
    """The percentile interval with Student's t in the place of the normal (Hesterberg 2015).

    Args:
        values: several kinds of resamples, (kinds, resamples); the widest ends count.
        count: of documents.
    """
    if count == 1 or not np.isfinite(values).any() or not np.ptp(values[np.isfinite(values)]):
        return None, None
    student = float(scipy.special.stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    tail = float(scipy.special.ndtr(-student * np.sqrt(count / (count - 1))))
    low, high = np.nanquantile(values, [tail, 1 - tail], axis=1)
    return float(np.nanmin(low)), float(np.nanmax(high))


def _aggregate(task: Any, metric: str) -> _Aggregate:
    from lm_eval.api import metrics

    if metric == LABEL_PERPLEXITY:
        return _Aggregate(label_perplexity, lambda sums: _exponential(sums[..., 0] / sums[..., 1]))
    function = task.aggregation().get(metric, metrics.mean)
    ratio: dict[Any, Callable[[Floats], Floats]] = {
        metrics.mean: lambda mean: mean,
        metrics.perplexity: _exponential,
        metrics.weighted_perplexity: _exponential,
        metrics.bits_per_byte: lambda mean: -mean / np.log(2),
    }
    of_mean = ratio.get(function)
    if of_mean is None:
        return _Aggregate(function)
    return _Aggregate(
        function,
        lambda sums: np.asarray(of_mean(sums[..., 0] / sums[..., 1])),
        plain_mean=function is metrics.mean,
    )


def _exponential(mean: Floats) -> Floats:
    """A perplexity of a mean log likelihood, bounded near the largest number there is."""
    return np.asarray(np.exp(np.minimum(-mean, 700.0)))


def _table(items: Sequence[Any]) -> Floats:
    """(documents, 2): value and weight; a plain number weighs 1."""
    pairs = [item if isinstance(item, tuple | list) else (item, 1) for item in items]
    return np.array(pairs, dtype=np.float64)


def _relation(
    aggregate: _Aggregate,
    own: Mapping[int, Any],
    teacher: Mapping[int, Any],
    seed: int,
    *,
    itself: bool,
) -> dict[str, Any]:
    pairs = list(_pairs(own, teacher))
    if not pairs:
        return {}
    mine, theirs = zip(*pairs, strict=True)
    value, reference = aggregate.value(mine), aggregate.value(theirs)
    if reference <= 0:
        return {}
    found = Bounds(1.0, 1.0, 0.0, len(pairs))
    if not itself:
        found = aggregate.relative_bounds(mine, theirs, seed)
    return {
        "relative_to_teacher": value / reference,
        "relative_low": found.low,
        "relative_high": found.high,
        "relative_standard_error": found.standard_error,
    }


def _p_value(own: Mapping[int, Any], teacher: Mapping[int, Any]) -> float | None:
    pairs = list(_pairs(own, teacher))
    if not pairs or any(one not in (0, 1) for pair in pairs for one in pair):
        return None
    mine, theirs = np.array(pairs, dtype=np.bool_).T
    return mcnemar_p_value(mine, theirs)


def _pairs(own: Mapping[int, Any], teacher: Mapping[int, Any]) -> Iterator[tuple[Any, Any]]:
    for document, value in own.items():
        if document in teacher:
            yield value, teacher[document]
