"""Quality while the load of the verdict ran, beside the same rows without a load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.report.family_results import FamilyResults
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types import QualityScore
from harness.types.loaded_quality import LoadedQuality
from harness.words.numbers import (
    MISSING,
    heading,
    metric_span,
    metric_value,
    number,
    relative_span,
    relative_value,
    things,
)


def loaded_quality_table(family: FamilyResults, scored: Sequence[LoadedQuality]) -> Table | None:
    """A row per metric; None where nothing was scored under a load."""
    names = {variant.name for variant in family.variants}
    own = [one for one in scored if one.variant in names]
    if not own:
        return None
    return Table(
        caption="Does the load cost quality?",
        columns=(
            Column("Variant", numeric=False),
            Column("Metric", numeric=False),
            Column("Without a load"),
            Column("Under the load"),
            Column("vs teacher", "under the load"),
        ),
        rows=tuple(row for one in own for row in _rows(one)),
        note=" ".join(map(_note, own)),
    )


def _rows(one: LoadedQuality) -> Iterator[tuple[Cell, ...]]:
    if one.problem:
        yield (words(one.variant), words(one.problem), *(Cell(MISSING) for _ in range(3)))
    before = {score.metric: score for score in one.alone}
    for score in one.scores:
        relative = score.relative_to_teacher
        yield (
            words(one.variant),
            words(heading(score.metric)),
            _value(before.get(score.metric)),
            _value(score),
            Cell(MISSING)
            if relative is None
            else numeric(
                relative_value(score.metric, relative),
                relative,
                relative_span(score.metric, score.relative_low, score.relative_high),
            ),
        )


def _value(score: QualityScore | None) -> Cell:
    if score is None:
        return Cell(MISSING)
    interval = metric_span(score.metric, score.low, score.high)
    return numeric(metric_value(score.metric, score.value), score.value, interval)


def _note(one: LoadedQuality) -> str:
    if one.problem:
        return ""
    rows = f"{things(one.samples, 'row')} of the test split were asked of {one.variant}"
    load = f"while the load of {one.trial_id} completed {number(one.requests_per_s)} requests/s"
    if one.changed is None:
        return f"{rows} {load}."
    changed = "no answer" if not one.changed else things(one.changed, "answer")
    return f"{rows} {load}: {changed} changed. The teacher's answers are those without a load."
