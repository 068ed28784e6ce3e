"""How metrics, their values and their bounds read, all from the registry in `harness.metrics`.

A metric is given by its name, as scores and clauses carry it. Of lm-eval's own metrics (whose
names are `TASK/METRIC`) those that the registry does not have are plain numbers.
"""

from __future__ import annotations

from harness.metrics import MILLISECONDS, TASK_SEPARATOR, described, metric_named
from harness.types import Constraint, QualityScore
from harness.words.numbers import (
    TIMES,
    asked,
    asked_percent,
    factor,
    milliseconds,
    number,
    percent,
    span,
)

_OPERATORS = {"<": "under", "<=": "at most", ">": "over", ">=": "at least"}


def metric_title(metric: str) -> str:
    """A metric's name as it is commonly written; of an lm-eval task as lm-eval has it."""
    return metric if TASK_SEPARATOR in metric else metric_named(metric).title


def heading(metric: str) -> str:
    """A metric's name at the head of a column or row."""
    title = metric_title(metric)
    return title if TASK_SEPARATOR in metric else title[:1].upper() + title[1:]


def metric_value(metric: str, value: float | None) -> str:
    """A value without its unit, but for a share's: `97.2%`, `41.3`."""
    known = described(metric)
    if known is not None and known.unit.is_share:
        return percent(value)
    return milliseconds(value) if known and known.unit is MILLISECONDS else number(value)


def metric_span(metric: str, low: float | None, high: float | None) -> str:
    """An interval of values, without a unit but for a share's percent sign."""
    return span(metric_value(metric, low), metric_value(metric, high))


def with_unit(metric: str, text: str) -> str:
    """A value or an interval with its unit behind it: `41.3 ms`; nothing behind `unbounded`."""
    return f"{text}{metric_named(metric).unit.suffix if text[-1:].isdigit() else ''}"


def relative_value(metric: str, value: float | None) -> str:
    """A value over the teacher's: a share of its accuracy, a factor of its perplexity."""
    known = described(metric)
    if known is None or known.lower_is_better:
        return factor(value)
    return percent(value)


def relative_span(metric: str, low: float | None, high: float | None) -> str:
    """An interval of such ratios."""
    return span(relative_value(metric, low), relative_value(metric, high))


def relative_title(score: QualityScore) -> str:
    """`of the teacher's accuracy`, as it follows a relative value."""
    return f"of the teacher's {metric_title(score.metric)}"


def amount(constraint: Constraint) -> str:
    """A clause's bound with its unit, as exact as it was asked: `50 ms`, `90%`."""
    metric, value = metric_named(constraint.metric), constraint.value
    if constraint.relative_to_teacher:
        return f"{asked(value)}{TIMES}" if metric.lower_is_better else asked_percent(value)
    return asked_percent(value) if metric.unit.is_share else f"{asked(value)}{metric.unit.suffix}"


def bound(constraint: Constraint) -> str:
    """What a clause asks for: `at least 90%`, `under 50 ms`."""
    return f"{_OPERATORS[constraint.operator]} {amount(constraint)}"
