"""How a figure reads, and where it is to be found: a link into the report of its run."""

from __future__ import annotations

import math
import os
from pathlib import Path
from urllib.parse import quote

from harness.metrics import metric_named
from harness.report.tables.model import Cell, model_anchor, trial_anchor
from harness.types.losses import Estimate
from harness.types.review import Figure, FigureBasis
from harness.words.numbers import (
    MISSING,
    TIMES,
    UNBOUNDED,
    factor,
    metric_span,
    metric_value,
    points,
    relative_span,
    relative_value,
    signed,
    span,
)

_MOST_DECIMALS = 6


def figure_value(figure: Figure) -> str:
    """The value without its unit, but for a share's."""
    if figure.relative:
        return relative_value(figure.metric, figure.estimate.value)
    return metric_value(figure.metric, figure.estimate.value)


def figure_span(figure: Figure) -> str:
    """The figure's interval in words; empty where it has none or is exact."""
    low, high = figure.estimate.low, figure.estimate.high
    if (low is None and high is None) or low == high:
        return ""
    ends = (low if low is not None else -math.inf, high if high is not None else math.inf)
    if low is None or high is None:
        shown = [UNBOUNDED if math.isinf(end) else _end(figure, end) for end in ends]
        return span(*shown)
    spelled = relative_span if figure.relative else metric_span
    return spelled(figure.metric, low, high)


def _end(figure: Figure, end: float) -> str:
    spelled = relative_value if figure.relative else metric_value
    return spelled(figure.metric, end)


def figure_cell(figure: Figure | None, page_folder: Path) -> Cell:
    """A figure with its interval, linked to where it was measured."""
    if figure is None:
        return Cell(MISSING)
    marks = [figure_span(figure)]
    if figure.basis is not FigureBasis.MEASURED:
        marks.append(figure.basis.value)
    if figure.note:
        marks += figure.note.split(", ")  # a line each: the matrix has many columns
    return Cell(
        figure_value(figure),
        detail="\n".join(mark for mark in marks if mark),
        sort=figure.estimate.value,
        link=report_link(figure.run, trial_anchor(figure.trial_id), page_folder)
        if figure.trial_id
        else "",
    )


def model_link(run: str, variant: str, page_folder: Path) -> str:
    """Where a report has a variant's quality, size and best trial."""
    return report_link(run, model_anchor(variant), page_folder)


def report_link(run: str, anchor: str, page_folder: Path) -> str:
    """The address of a part of a run's report, relative to the page's folder."""
    relative = os.path.relpath(Path(run).resolve() / "report.html", page_folder.resolve())
    return f"{quote(Path(relative).as_posix())}#{quote(anchor)}"


def difference_words(metric: str, difference: Estimate | None) -> tuple[str, str]:
    """A difference with its sign and unit, and its interval; a share's in points."""
    if difference is None:
        return MISSING, ""
    value = _signed(metric, difference.value)
    low, high = difference.low, difference.high
    if low is None or high is None:
        return value, "no interval"
    if low == high:
        return value, ""
    return value, span(_signed(metric, low), _signed(metric, high))


def _signed(metric: str, value: float) -> str:
    known = metric_named(metric)
    if known.unit.is_share:
        return points(value)
    decimals = 2
    if value:
        decimals = min(_MOST_DECIMALS, max(0, 2 - math.floor(math.log10(abs(value)))))
    return signed(value, known.unit.suffix, decimals=decimals)


def ratio_words(before: Figure | None, after: Figure | None) -> str:
    """After over before; nothing where that is no number."""
    if before is None or after is None or before.estimate.value <= 0:
        return ""
    return factor(after.estimate.value / before.estimate.value).replace(TIMES, f"{TIMES} as much")
