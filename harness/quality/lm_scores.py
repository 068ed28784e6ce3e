"""lm-eval's samples as rows of our tables, with intervals and paired with the teacher's.

The metric is lm-eval's own (its aggregation over its per-document values). Where it is a mean, or a
ratio of sums (perplexities, bits per byte), documents are resampled as everywhere in the harness;
other aggregations (F1, Matthews, BLEU) are computed anew on fewer resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.quality.statistics import mcnemar_p_value, percentile_interval, resampled_sums
from harness.types import ModelVariant, QualityScore

MAX_LEFT_OUT_SHARE = 0.01
"""Of a metric's documents. What has no wrong answer is left out when it is unanswered; beyond this
the rest is no longer the same text, and the metric is not told."""
COSTLY_RESAMPLES = 200
"""Of an aggregation that is not a function of sums."""

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
        seed: of the bootstrap.
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
        low, high = percentile_interval(aggregate.resampled(items, seed))
        scores.append(
            QualityScore(
                variant=variant.name,
                family=variant.family,
                role=variant.role,
                metric=name,
                value=aggregate.value(items),
                low=low,
                high=high,
                samples=len(items),
                sha256=variant.sha256,
                outcomes_file=outcomes_file,
                **_relation(aggregate, values, teacher, seed),
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
    """From per-document values to the metric."""

    of_items: Callable[[Sequence[Any]], float]
    of_sums: Callable[[Floats], Floats] | None = None
    """Of (value, weight) summed, (..., 2) -> (...); None where it is no function of sums."""

    def value(self, items: Sequence[Any]) -> float:
        return float(self.of_items(items))

    def resampled(self, items: Sequence[Any], seed: int) -> Floats:
        if self.of_sums is not None:
            return self.of_sums(resampled_sums(_table(items), seed=seed))
        rng = np.random.default_rng(seed)
        draws = rng.integers(len(items), size=(COSTLY_RESAMPLES, len(items)))
        return np.array([self.of_items([items[i] for i in draw]) for draw in draws], np.float64)


def _aggregate(task: Any, metric: str) -> _Aggregate:
    from lm_eval.api import metrics

    function = task.aggregation().get(metric, metrics.mean)
    ratio: dict[Any, Callable[[Floats], Floats]] = {
        metrics.mean: lambda mean: mean,
        metrics.perplexity: lambda mean: np.exp(-mean),
        metrics.weighted_perplexity: lambda mean: np.exp(-mean),
        metrics.bits_per_byte: lambda mean: -mean / np.log(2),
    }
    of_mean = ratio.get(function)
    if of_mean is None:
        return _Aggregate(function)
    return _Aggregate(function, lambda sums: of_mean(sums[..., 0] / sums[..., 1]))


def _table(items: Sequence[Any]) -> Floats:
    """(documents, 2): value and weight; a plain number weighs 1."""
    pairs = [item if isinstance(item, tuple | list) else (item, 1) for item in items]
    return np.array(pairs, dtype=np.float64)


def _relation(
    aggregate: _Aggregate, own: Mapping[int, Any], teacher: Mapping[int, Any], seed: int
) -> dict[str, float | None]:
    pairs = list(_pairs(own, teacher))
    nothing = dict.fromkeys(("relative_to_teacher", "relative_low", "relative_high"))
    if not pairs:
        return nothing
    mine, theirs = zip(*pairs, strict=True)
    value, reference = aggregate.value(mine), aggregate.value(theirs)
    if reference <= 0:
        return nothing
    above, below = aggregate.resampled(mine, seed), aggregate.resampled(theirs, seed)
    shares = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    low, high = percentile_interval(shares)
    return {
        "relative_to_teacher": value / reference,
        "relative_low": low,
        "relative_high": high,
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
