"""Pareto plots of a decision: every candidate with both its intervals, whatever its hard limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import cycle

from harness.metrics import metric_named
from harness.report.plots.base import (
    STUDENT_COLOURS,
    STUDENT_SHAPES,
    TEACHER_COLOUR,
    Json,
    Plot,
    VariantStyle,
    axis,
    base_layout,
    drawn_ends,
    error_bars,
    log_axis,
    marker,
    ring,
    safe,
)
from harness.report.review.figures import figure_span, figure_value
from harness.types import Role
from harness.types.metrics import MetricKind
from harness.types.review import DecisionCandidate, DecisionMatrix, Figure
from harness.words.labels import short_names
from harness.words.numbers import heading, metric_title

_HEIGHT_PX = 360
_ROUTER_COLOUR = "--c-purple"


def pareto_plots(matrix: DecisionMatrix, number: int) -> tuple[Plot, ...]:
    """Quality, latency, throughput and cost against each other, as far as they are known.

    Args:
        matrix: of a family.
        number: of the matrix on its page, for the plots' keys.
    """
    by_kind: dict[MetricKind, str] = {}
    for name in matrix.metrics:
        by_kind.setdefault(metric_named(name).kind, name)
    quality, cost = by_kind.get(MetricKind.QUALITY), by_kind.get(MetricKind.COST)
    latency, rate = by_kind.get(MetricKind.LATENCY), by_kind.get(MetricKind.RATE)
    pairs = ((latency, quality), (rate, quality), (cost, quality), (cost, latency))
    found = (_plot(matrix, x, y, number) for x, y in pairs if x and y)
    return tuple(plot for plot in found if plot is not None)


def _plot(matrix: DecisionMatrix, x: str, y: str, number: int) -> Plot | None:
    known = [
        (one, across, up)
        for one in matrix.candidates
        if (across := one.figure(x)) is not None and (up := one.figure(y)) is not None
    ]
    # A logarithmic axis has no zero.
    drawn = [one for one in known if _shown(one[1]) > 0]
    if not drawn:
        return None
    lost = len(known) - len(drawn)
    left_out = f"; not drawn: {lost} at 0, which this axis lacks" if lost else ""
    points = [(_shown(across), _shown(up)) for _, across, up in drawn]
    names = short_names([one.name for one, _, _ in drawn])
    styles = candidate_styles(matrix.candidates)
    traces = [_front(points, x, y)]
    traces += [
        _candidate(one, styles[one.name], names[one.name], across, up) for one, across, up in drawn
    ]
    recommended = [
        point for (one, _, _), point in zip(drawn, points, strict=True)
        if one.name == matrix.recommended
    ]  # fmt: skip
    traces += [ring(*point, 22) for point in recommended]
    of_teacher = drawn[0][2].relative
    title = f"{heading(y)} against {metric_title(x)}"
    return Plot(
        key=f"decision-{number}-{x}-{y}",
        title=title,
        summary=f"Scatter plot of {metric_title(y)} over {metric_title(x)} for {len(drawn)} "
        "candidates with their intervals, and the Pareto front of the values. The same numbers "
        f"are in the matrix{left_out}.",
        height_px=_HEIGHT_PX,
        traces=tuple(traces),
        layout=base_layout(
            xaxis=log_axis(
                f"{_axis_title(x, of_teacher=False)}{left_out}",
                [end for _, one, _ in drawn for end in _ends(one)],
            ),
            yaxis=axis(_axis_title(y, of_teacher=of_teacher)),
        ),
    )


def _axis_title(name: str, *, of_teacher: bool) -> str:
    unit = metric_named(name).unit
    if of_teacher:
        lower = metric_named(name).lower_is_better
        return f"{heading(name)}, {'multiple' if lower else '%'} of the teacher's"
    suffix = "%" if unit.is_share else unit.suffix.strip()
    return f"{heading(name)}, {suffix}" if suffix else heading(name)


def _scale(figure: Figure) -> float:
    metric = metric_named(figure.metric)
    percent = metric.unit.is_share or (figure.relative and not metric.lower_is_better)
    return 100.0 if percent else 1.0


def _shown(figure: Figure) -> float:
    return figure.estimate.value * _scale(figure)


def candidate_styles(candidates: Sequence[DecisionCandidate]) -> dict[str, VariantStyle]:
    """A look for each candidate: blue squares are teachers, diamonds routers."""
    looks = zip(cycle(STUDENT_COLOURS), cycle(STUDENT_SHAPES), strict=False)
    styles: dict[str, VariantStyle] = {}
    students = 0
    for one in candidates:
        if one.role is Role.TEACHER:
            others = any(style.role is Role.TEACHER for style in styles.values())
            colour, shape, hollow = TEACHER_COLOUR, "square", others
        elif one.role is None:
            colour, shape, hollow = _ROUTER_COLOUR, "diamond", False
        else:
            colour, shape = next(looks)
            hollow = students >= len(STUDENT_COLOURS)
            students += 1
        role = one.role or Role.CONTROL
        styles[one.name] = VariantStyle(one.name, role, colour, shape, open=hollow, dash="solid")
    return styles


def _candidate(
    one: DecisionCandidate, style: VariantStyle, name: str, across: Figure, up: Figure
) -> Json:
    hover = [
        f"<b>{safe(one.name)}</b>",
        *(
            safe(f"{heading(figure.metric)} {figure_value(figure)} ({figure_span(figure) or '-'})")
            for figure in (across, up)
        ),
        f"hard limits: {one.decision.value}",
    ]
    return {
        "type": "scatter",
        "name": safe(one.name),
        "mode": "markers+text",
        "x": [_shown(across)],
        "y": [_shown(up)],
        "text": [safe(name)],
        "textposition": "top center",
        "textfont": {"size": 11, "color": "--ink-soft"},
        "error_x": _bars_along_log(across, style.colour),
        "error_y": _bars(up, style.colour),
        "marker": marker(style, 12),
        "hovertext": ["<br>".join(hover)],
        "hoverinfo": "text",
    }


def _bars(figure: Figure, colour: str) -> Json:
    """Nothing on a side without a bound."""
    scale, estimate = _scale(figure), figure.estimate
    down = 0.0 if estimate.low is None else (estimate.value - estimate.low) * scale
    up = 0.0 if estimate.high is None else (estimate.high - estimate.value) * scale
    return error_bars([max(0.0, down)], [max(0.0, up)], colour)


def _ends(figure: Figure) -> tuple[float, float, float]:
    """A figure between its bounds, as far as a logarithmic axis draws them."""
    value, estimate, scale = _shown(figure), figure.estimate, _scale(figure)
    low = value if estimate.low is None else estimate.low * scale
    high = value if estimate.high is None else estimate.high * scale
    return drawn_ends(value, min(value, low), max(value, high))


def _bars_along_log(figure: Figure, colour: str) -> Json:
    low, value, high = _ends(figure)
    return error_bars([value - low], [high - value], colour)


def front_of(
    points: Sequence[tuple[float, float]], *, low_x: bool, low_y: bool
) -> list[tuple[float, float]]:
    """The points that no other beats in both, the best in x first.

    Args:
        points: all of them.
        low_x: whether less is better in x.
        low_y: likewise in y.
    """
    return list(_front_points(points, 1.0 if low_x else -1.0, 1.0 if low_y else -1.0))


def _front_points(
    points: Sequence[tuple[float, float]], x_sign: float, y_sign: float
) -> Iterator[tuple[float, float]]:
    best = math.inf
    for x, y in sorted(points, key=lambda point: (x_sign * point[0], y_sign * point[1])):
        if y_sign * y < best:
            best = y_sign * y
            yield x, y


def _front(points: Sequence[tuple[float, float]], x: str, y: str) -> Json:
    """The front of all that is drawn."""
    low_x, low_y = metric_named(x).lower_is_better, metric_named(y).lower_is_better
    front = front_of(points, low_x=low_x, low_y=low_y)
    return {
        "type": "scatter",
        "name": "Pareto front",
        "mode": "lines",
        "x": [point[0] for point in front],
        "y": [point[1] for point in front],
        "line": {"shape": "hv", "color": "--ink-soft", "width": 2, "dash": "dot"},
        "hoverinfo": "skip",
    }
