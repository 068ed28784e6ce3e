"""Measured latency over the rate of an open loop: the winner and the teacher, after the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.family_results import FamilyResults
from harness.report.plots.base import (
    Json,
    Plot,
    VariantStyle,
    axis,
    base_layout,
    bound_line,
    drawn_ends,
    error_bars,
    hover,
    log_axis,
    marker,
    safe,
)
from harness.report.selection import percentile_of
from harness.types import Percentile, TrialResult
from harness.types.latency import UNBOUNDED_MS
from harness.words.numbers import things


def saturation_plot(family: FamilyResults, styles: dict[str, VariantStyle]) -> Plot | None:
    """A line per variant; None where no open loop followed the verdict, or none has a latency."""
    drawn = [one for one in family.saturation if _latency(family, one) is not None]
    if not drawn:
        return None
    names = dict.fromkeys(one.trial.variant for one in drawn)
    lines = [[one for one in drawn if one.trial.variant == name] for name in names]
    invalid = [one for one in drawn if not one.valid]
    words = f", {len(invalid)} of them invalid" if invalid else ""
    return Plot(
        key=f"{family.name}-saturation",
        title=f"{family.latency_title} over rate",
        summary=f"{family.latency_title} latency over requests per second in open loops: "
        f"{things(len(drawn), 'trial')} of {things(len(names), 'variant')}{words}, with "
        "intervals. The same numbers are in the table below.",
        height_px=300,
        traces=(
            *(_line(family, styles[line[0].trial.variant], line) for line in lines),
            *([_crosses(family, invalid)] if invalid else []),
        ),
        layout=_layout(family, drawn),
    )


def _latency(family: FamilyResults, result: TrialResult) -> Percentile | None:
    found = percentile_of(result, family.percentile)
    # A logarithmic axis has no zero.
    return found if found is not None and 0 < found.value_ms < UNBOUNDED_MS else None


def _ends(found: Percentile) -> tuple[float, float, float]:
    return drawn_ends(found.value_ms, found.low_ms, found.high_ms)


def _values(family: FamilyResults, results: Sequence[TrialResult]) -> list[Percentile]:
    return [found for one in results if (found := _latency(family, one)) is not None]


def _line(family: FamilyResults, style: VariantStyle, results: Sequence[TrialResult]) -> Json:
    found = _values(family, results)
    return {
        "type": "scatter",
        "name": safe(style.name),
        "meta": style.name,
        "mode": "lines+markers",
        "x": [one.offered_requests_per_s for one in results],
        "y": [one.value_ms for one in found],
        "line": {"color": style.colour, "width": 1.8, "dash": style.dash},
        "marker": marker(style, 9),
        "error_y": error_bars(
            [one.value_ms - one.low_ms for one in found],
            [_ends(one)[2] - one.value_ms for one in found],
            style.colour,
        ),
        "cliponaxis": False,
        "hovertext": [hover(family, one, *_why(one)) for one in results],
        "hoverinfo": "text",
    }


def _why(result: TrialResult) -> tuple[str, ...]:
    return () if result.valid else ("invalid",)


def _crosses(family: FamilyResults, invalid: Sequence[TrialResult]) -> Json:
    """A cross over each point that decides nothing."""
    return {
        "type": "scatter",
        "name": "invalid",
        "mode": "markers",
        "x": [one.offered_requests_per_s for one in invalid],
        "y": [one.value_ms for one in _values(family, invalid)],
        "marker": {
            "symbol": "x-thin-open",
            "size": 15,
            "color": "--ink",
            "line": {"width": 2, "color": "--ink"},
        },
        "hoverinfo": "skip",
    }


def _layout(family: FamilyResults, drawn: Sequence[TrialResult]) -> Json:
    found, clause = _values(family, drawn), family.latency_constraint
    shown = [end for one in found for end in _ends(one)]
    shown += [clause.value] if clause else []
    layout = base_layout(
        xaxis=axis(
            "offered requests/s (Poisson arrivals)",
            range=[0, 1.05 * max(one.offered_requests_per_s for one in drawn)],
        ),
        yaxis=log_axis(f"{family.latency_title} (ms)", shown),
        margin={"l": 48, "r": 10, "t": 8, "b": 42},
    )
    if clause:
        at = clause.value
        layout["shapes"] = [bound_line(xref="paper", yref="y", x0=0, x1=1, y0=at, y1=at)]
    return layout
