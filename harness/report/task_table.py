"""What lm-evaluation-harness's tasks say of every variant, beside the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.labels import metric_value, relative_value
from harness.report.numbers import MISSING, span
from harness.report.selection import FamilyResults
from harness.report.tables import Cell, Column, Table, numeric, words
from harness.types import TaskEntry


def task_table(family: FamilyResults) -> Table | None:
    """A row a task and metric, a column a variant; None where no task was asked."""
    metrics = family.task_metrics
    if not metrics:
        return None
    names = [variant.name for variant in family.variants]
    return Table(
        caption="lm-evaluation-harness",
        columns=(Column("Task/metric", numeric=False), *(Column(name) for name in names)),
        rows=tuple(
            (words(metric), *(_cell(family, name, metric) for name in names)) for metric in metrics
        ),
        note="Asked through the endpoint. In small: 95% intervals, then the value over the "
        "teacher's, on the same documents."
        + "".join(f" {one}." for one in known_before(family.tasks)),
    )


def known_before(tasks: Sequence[TaskEntry]) -> tuple[str, ...]:
    """What was not asked anew, in words, a task and variant each; nothing where all was."""
    return tuple(
        f"{one.variant}, {one.task}: {one.from_cache} of {one.from_cache + one.asked} answers were "
        "known from an earlier run of the same model"
        for one in tasks
        if one.from_cache
    )


def _cell(family: FamilyResults, name: str, metric: str) -> Cell:
    score = family.score(name, metric)
    if score is None:
        return Cell(MISSING)
    detail = span(metric_value(metric, score.low), metric_value(metric, score.high))
    if score.relative_to_teacher is not None and name != family.names[0]:
        detail += f"\n{relative_value(metric, score.relative_to_teacher)} of teacher"
    return numeric(metric_value(metric, score.value), score.value, detail)
