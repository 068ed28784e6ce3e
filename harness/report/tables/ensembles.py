"""What pre- and post-processing cost: the served ensemble beside the model alone."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.selection import FamilyResults, alone_of, latency_split
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types import ModelVariant, TrialResult
from harness.words.labels import workload_words
from harness.words.numbers import (
    MISSING,
    factor,
    metric_title,
    metric_value,
    milliseconds,
    percent,
    signed,
)

_NOTE = (
    "Means per request, from Triton's statistics of each composing model over the trial's window. "
    "The part named client, network and ensemble is what no composing model accounts for."
)


def pipeline_table(family: FamilyResults) -> Table | None:
    """One row per part of each measured ensemble; None where none was measured."""
    measured = [result for result in family.pipeline_trials if result.latency]
    if not measured:
        return None
    rows = [row for result in measured for row in _rows(family, result)]
    return Table(
        caption="Pre- and post-processing",
        columns=(
            Column("Part", numeric=False),
            Column("Queue", "ms"),
            Column("Compute", "ms"),
            Column("Mean latency", "ms"),
            Column("Share of it"),
        ),
        rows=tuple(rows),
        note=" ".join((_NOTE, *(f"{_load(one)}." for one in measured))),
    )


def pipeline_quality(family: FamilyResults) -> str:
    """A sentence on what the ensembles answered; empty where none was scored."""
    said = []
    for pipeline in family.pipelines:
        own = [score for score in family.pipeline_scores if score.variant == pipeline.name]
        for score in own[:1]:
            alone = family.score(pipeline.pipeline_of, score.metric)
            beside = metric_value(score.metric, alone.value) if alone else MISSING
            said.append(
                f"{pipeline.pipeline_of} {metric_value(score.metric, score.value)} (alone {beside})"
            )
    if not said:
        return ""
    metric = family.pipeline_scores[0].metric
    return f"{metric_title(metric).capitalize()}, text in and label out: {', '.join(said)}."


def part_title(pipeline: ModelVariant, part: str) -> str:
    """A composing model by what it does: `tokenize`, `model`, `label`."""
    return (
        part.removeprefix(f"{pipeline.pipeline_of}-") if part != pipeline.pipeline_of else "model"
    )


def _load(result: TrialResult) -> str:
    return f"{result.trial.variant}: {workload_words(result.trial.workload)}"


def _rows(family: FamilyResults, result: TrialResult) -> Iterator[tuple[Cell, ...]]:
    pipeline = next(one for one in family.pipelines if one.name == result.trial.variant)
    split, latency = latency_split(result), result.latency
    mean_ms = latency.mean_ms if latency else 0.0
    for part in result.server.parts:
        spent_ms = part.accounted_ms
        yield (
            words(part_title(pipeline, part.model), part.model),
            numeric(milliseconds(part.queue_ms), part.queue_ms),
            numeric(milliseconds(part.compute_ms), part.compute_ms),
            numeric(milliseconds(spent_ms), spent_ms),
            numeric(percent(spent_ms / mean_ms), spent_ms / mean_ms),
        )
    if split:
        share = split.client_ms / mean_ms
        yield (
            words("client, network and ensemble"),
            Cell(MISSING),
            Cell(MISSING),
            numeric(milliseconds(split.client_ms), split.client_ms),
            numeric(percent(share), share),
        )
    alone = alone_of(family, result)
    yield _whole_row("whole ensemble", result, _against(result, alone))
    if alone is not None:
        yield _whole_row("model alone, same load", alone, "")


def _whole_row(name: str, result: TrialResult, detail: str) -> tuple[Cell, ...]:
    queue_ms, compute_ms = result.server.queue_ms, result.server.compute_ms
    mean_ms = result.latency.mean_ms if result.latency else None
    return (
        words(name, result.trial.variant),
        numeric(milliseconds(queue_ms), queue_ms),
        numeric(milliseconds(compute_ms), compute_ms),
        numeric(milliseconds(mean_ms), mean_ms, detail),
        Cell("100%", sort=1.0),
    )


def _against(result: TrialResult, alone: TrialResult | None) -> str:
    if alone is None or alone.latency is None or result.latency is None:
        return ""
    own_ms, alone_ms = result.latency.mean_ms, alone.latency.mean_ms
    return f"{signed(own_ms - alone_ms, ' ms')}, {factor(own_ms / alone_ms)} the model alone"
