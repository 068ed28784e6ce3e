"""What the recommended trial gains over the teacher: a table of both, with what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.metrics import metric_named
from harness.report.family_results import FamilyResults
from harness.report.selection import best_of_variant, percentile_of
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types import Role, TrialResult
from harness.types.latency import UNBOUNDED_MS
from harness.words.numbers import (
    MISSING,
    factor,
    heading,
    metric_value,
    milliseconds,
    number,
    percent,
    relative_value,
)

_Value = float | None
_SAME = 0.005
"""Differences that would read 0%."""


def gains_table(family: FamilyResults, trial: TrialResult) -> Table | None:
    """The recommended trial beside the best of each of the teacher's variants.

    A teacher that is itself recommended stands beside the measured students too. None where
    there is nothing to compare with.
    """
    own = trial.trial.variant
    others = _compared(family, own)
    if not others:
        return None
    names = (own, *others)
    percentile = f"Latency {family.latency_title}"
    rows = [
        _row("Throughput", family.throughput_unit, _rates(family, names), number, _times),
        _row(percentile, "ms", _latencies(family, names), milliseconds, _longer),
        *(_quality_row(family, metric, names) for metric in _judged_qualities(family)),
        _row("Size", "MB", _sizes(family, names), number, _smaller),
        _row("Parameters", "M", _parameters(family, names), number, _smaller),
    ]
    teacher = family.role(own) is Role.TEACHER
    return Table(
        caption="Compared with the other models" if teacher else "What it gains over the teacher",
        columns=(
            Column("", numeric=False),
            Column(own, "recommended"),
            *(Column(name, "its best trial") for name in others),
        ),
        rows=tuple(rows),
        note="Each at its own best configuration. In small type: the recommended one against it.",
    )


def _judged_qualities(family: FamilyResults) -> tuple[str, ...]:
    """The qualities that the objective bounds; every one stands in the table of models."""
    asked = {clause.metric for clause in family.constraints}
    return tuple(metric for metric in family.metrics if metric in asked) or family.metrics[:1]


def _compared(family: FamilyResults, own: str) -> list[str]:
    roles = {Role.TEACHER}
    if family.role(own) is Role.TEACHER:
        roles.add(Role.STUDENT)
    return [
        variant.name
        for variant in family.variants
        if variant.role in roles and variant.name != own and best_of_variant(family, variant.name)
    ]


def ratio(ours: _Value, theirs: _Value) -> _Value:
    """Ours over theirs; None where either is unknown or theirs is zero."""
    return ours / theirs if ours is not None and theirs else None


def _row(
    title: str,
    unit: str,
    values: Sequence[_Value],
    shown: Callable[[_Value], str],
    against: Callable[[float], str],
) -> tuple[Cell, ...]:
    ours, *others = values
    cells = [words(title, unit), numeric(shown(ours), ours)]
    for value in others:
        share = ratio(ours, value)
        cells.append(numeric(shown(value), value, against(share) if share else ""))
    return tuple(cells)


def _quality_row(family: FamilyResults, metric: str, names: Sequence[str]) -> tuple[Cell, ...]:
    def shown(value: _Value) -> str:
        return MISSING if value is None else metric_value(metric, value)

    def against(share: float) -> str:
        return f"{relative_value(metric, share)} of it"

    scores = [family.score(name, metric) for name in names]
    values = [score.value if score else None for score in scores]
    lower = metric_named(metric).lower_is_better
    better = "lower is better" if lower else "higher is better"
    return _row(heading(metric), better, values, shown, against)


def _rates(family: FamilyResults, names: Sequence[str]) -> list[_Value]:
    best = [best_of_variant(family, name) for name in names]
    return [result.throughput_inferences_per_s if result else None for result in best]


def _latencies(family: FamilyResults, names: Sequence[str]) -> list[_Value]:
    best = [best_of_variant(family, name) for name in names]
    found = [percentile_of(result, family.percentile) if result else None for result in best]
    return [
        percentile.value_ms if percentile and percentile.value_ms < UNBOUNDED_MS else None
        for percentile in found
    ]


def _sizes(family: FamilyResults, names: Sequence[str]) -> list[_Value]:
    found = [family.variant(name) for name in names]
    return [one.size_bytes / 1e6 if one and one.size_bytes is not None else None for one in found]


def _parameters(family: FamilyResults, names: Sequence[str]) -> list[_Value]:
    found = [family.variant(name) for name in names]
    return [variant.parameters / 1e6 if variant else None for variant in found]


def _times(share: float) -> str:
    return f"{factor(share)} as much"


def _longer(share: float) -> str:
    change = abs(share - 1)
    if change < _SAME:
        return "the same"
    return f"{percent(change)} {'longer' if share > 1 else 'shorter'}"


def _smaller(share: float) -> str:
    return size_words(share).removesuffix(" than").removesuffix(" as")


def size_words(share: float) -> str:
    """How a size that is so many times another's compares, before the other's name."""
    if abs(share - 1) < _SAME:
        return "the same as"
    return f"{factor(1 / share)} smaller than" if share < 1 else f"{factor(share)} larger than"
