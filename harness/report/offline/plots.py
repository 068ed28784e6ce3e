"""Throughput over batch size, and the chance to be in time over the number of machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

from harness.report.cost.words import bounded
from harness.report.plots.base import (
    STUDENT_COLOURS,
    STUDENT_SHAPES,
    TEACHER_COLOUR,
    Json,
    Plot,
    axis,
    base_layout,
    error_bars,
    log_axis,
    ring,
    safe,
)
from harness.types import Role
from harness.types.offline import BatchCurve, OfflinePlan, OfflineVariant
from harness.words.numbers import asked_percent, count, percent, things, whole

_ROW_PX, _FRAME_PX = 54, 130
_KINDS = (
    ("even", "all equally fast", "circle-open"),
    ("with_stragglers", "with stragglers", "triangle-up"),
    ("with_loss", "one of them lost", "square"),
)


def offline_plots(plan: OfflinePlan) -> tuple[Plot, ...]:
    """A plot of batch sizes per family, then one of machines."""
    families = dict.fromkeys(one.family for one in plan.variants)
    curves = tuple(
        _batches(name, [one for one in plan.variants if one.family == name], place)
        for place, name in enumerate(families, start=1)
    )
    return (*curves, _machines(plan))


def _batches(family: str, variants: Sequence[OfflineVariant], place: int) -> Plot:
    traces = [trace for one, look in _looks(variants) for trace in _curves(one, *look)]
    traces += [
        {**ring(one.batch_size, point.inferences_per_s.value, 18), "name": "batch taken",
         "showlegend": number == 0}
        for number, one in enumerate(variants)
        if (point := one.served.at(one.batch_size)) is not None
    ]  # fmt: skip
    curves = [curve for one in variants for curve in (one.served, one.in_process) if curve]
    points = [point for curve in curves for point in curve.points]
    sizes = sorted({point.batch_size for point in points})
    ends = [end for one in points for end in (one.inferences_per_s.low, one.inferences_per_s.high)]
    knees = "; ".join(
        f"{one.variant} at batch {count(one.served.knee)}" for one in variants if one.served.knee
    )
    return Plot(
        key=f"offline-batches-{place}",
        title=f"{family}: throughput over batch size",
        summary=f"Inferences per second of {things(len(variants), 'variant')} at batch sizes "
        f"{count(sizes[0])} to {count(sizes[-1])}, with intervals; diminishing returns: "
        f"{knees or 'none found'}. The same numbers are in the table.",
        height_px=360,
        traces=tuple(traces),
        layout=base_layout(
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            margin={"l": 64, "r": 12, "t": 60, "b": 46},
            xaxis=log_axis("rows per batch", [float(sizes[0]), float(sizes[-1])])
            | {"tickvals": sizes, "ticktext": [count(size) for size in sizes]},
            yaxis=log_axis("inferences/s", ends),
        ),
    )


def _looks(
    variants: Sequence[OfflineVariant],
) -> Iterator[tuple[OfflineVariant, tuple[str, str]]]:
    """Each variant with a colour and a shape."""
    students = zip(cycle(STUDENT_COLOURS), cycle(STUDENT_SHAPES), strict=False)
    teachers = zip(
        cycle((TEACHER_COLOUR, "--ink-soft")), cycle(("square", "diamond")), strict=False
    )
    for one in variants:
        yield one, next(teachers if one.role is Role.TEACHER else students)


def _curves(one: OfflineVariant, colour: str, shape: str) -> Iterator[Json]:
    yield _line(f"{one.variant}, served", one.served, colour, shape)
    if one.in_process is not None:
        line = _line(f"{one.variant}, in process", one.in_process, colour, f"{shape}-open")
        yield line | {"line": {"color": colour, "width": 1.4, "dash": "dot"}}


def _line(name: str, curve: BatchCurve, colour: str, shape: str) -> Json:
    rates = [point.inferences_per_s for point in curve.points]
    return {
        "type": "scatter",
        "name": safe(name),
        "mode": "lines+markers",
        "x": [point.batch_size for point in curve.points],
        "y": [rate.value for rate in rates],
        "line": {"color": colour, "width": 1.8},
        "marker": {"symbol": shape, "size": 8, "color": colour},
        "error_y": error_bars(
            [rate.value - rate.low for rate in rates],
            [rate.high - rate.value for rate in rates],
            colour,
        ),
        "hovertext": [
            f"<b>{safe(name)}</b><br>batch {count(point.batch_size)}<br>"
            f"{safe(bounded(point.inferences_per_s))} inferences/s"
            + (f"<br>a doubling brings {percent(point.growth.value)}" if point.growth else "")
            for point in curve.points
        ],
        "hoverinfo": "text",
    }


def _machines(plan: OfflinePlan) -> Plot:
    rows = [(one, need) for one in plan.variants for need in one.needs][::-1]
    names = [one.variant + (f"<br>{need.instance}" if need.instance else "") for one, need in rows]
    traces = []
    for place, (field, title, shape) in enumerate(_KINDS):
        amounts = [getattr(need, field) for _, need in rows]
        colour = STUDENT_COLOURS[place]
        traces.append(
            {
                "type": "scatter",
                "name": title,
                "mode": "markers",
                "x": [amount.value for amount in amounts],
                "y": [row + 0.22 * (1 - place) for row in range(len(rows))],
                "marker": {"symbol": shape, "size": 9, "color": colour},
                "error_x": error_bars(
                    [amount.value - amount.low for amount in amounts],
                    [amount.high - amount.value for amount in amounts],
                    colour,
                ),
                "hovertext": [
                    f"<b>{safe(one.variant)}</b><br>{title}: {safe(bounded(amount, whole))}"
                    for (one, _), amount in zip(rows, amounts, strict=True)
                ],
                "hoverinfo": "text",
            }
        )
    kinds = [getattr(need, field) for _, need in rows for field, *_ in _KINDS]
    ends = [end for one in kinds for end in (one.low, one.high)]
    return Plot(
        key="offline-machines",
        title=f"Machines for a chance of {asked_percent(plan.terms.chance)} to be in time",
        summary=f"Machines for {things(len(rows), 'row')} of the table: all equally fast, with "
        "stragglers, and with one of them lost, each with its interval.",
        height_px=_FRAME_PX + _ROW_PX * len(rows),
        traces=tuple(traces),
        layout=base_layout(
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            margin={"l": 170, "r": 12, "t": 50, "b": 46},
            xaxis=log_axis("machines", ends),
            yaxis=axis(
                "",
                tickvals=list(range(len(rows))),
                ticktext=[safe(name).replace("&lt;br&gt;", "<br>") for name in names],
                range=[-0.6, len(rows) - 0.4],
            ),
        ),
    )
