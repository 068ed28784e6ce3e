"""Pictures of a lost quality: a waterfall along the chain, dots by slice, confusions by class."""

from __future__ import annotations

from harness.losses import Estimate, LossChain, LossEntry
from harness.report.labels import short_names, shortened
from harness.report.loss_words import (
    is_accuracy,
    lost,
    lost_span,
    quality_words,
    scaled,
    step_title,
)
from harness.report.numbers import count
from harness.report.plots import Json, Plot, axis, base_layout, error_bars, safe
from harness.report.selection import FamilyResults

_MOST_WATERFALLS = 6
_MOST_SLICES = 16
_SLICE_PX, _CLASS_PX, _FRAME_PX = 24, 30, 80
_WORSE, _BETTER, _WHOLE = "--c-vermillion", "--c-green", "--c-blue"


def waterfall_plots(family: FamilyResults) -> tuple[Plot, ...]:
    """A waterfall a variant that is not the teacher in its first precision."""
    chains = [
        (entry, entry.chain)
        for entry in family.losses
        if entry.chain and (entry.slices or len(family.losses) == 1)
    ]
    if not chains:
        return ()
    names = short_names([variant.name for variant in family.variants])
    return tuple(
        _waterfall(family, entry, chain, names.get(entry.variant, entry.variant))
        for entry, chain in chains[:_MOST_WATERFALLS]
    )


def _direction(chain: LossChain) -> int:
    """Accuracy that is lost goes down; bits per byte that are lost go up, as the metric does."""
    return -1 if is_accuracy(chain.metric) else 1


def _reach(chain: LossChain) -> list[float]:
    """The axis of a waterfall: all bars and whiskers, with room for the values."""
    sign, level = _direction(chain), 0.0
    ends = [0.0, *_ends(chain, chain.total, 0.0)]
    for link in chain.links[1:]:
        ends += _ends(chain, link.loss, level)
        level += sign * scaled(chain.metric, link.loss.value)
        ends.append(level)
    room = (max(ends) - min(ends)) * 0.16 or 1.0
    return [min(ends) - room, max(ends) + room]


def _ends(chain: LossChain, loss: Estimate, base: float) -> list[float]:
    """Where the bounds of a loss lie that is drawn from a base."""
    bounds = [bound for bound in (loss.low, loss.high) if bound is not None]
    return [base + _direction(chain) * scaled(chain.metric, bound) for bound in bounds]


def _waterfall(family: FamilyResults, entry: LossEntry, chain: LossChain, name: str) -> Plot:
    sign, reach = _direction(chain), _reach(chain)
    apart = 0.03 * (reach[1] - reach[0])
    bars = [(link.step, link.loss) for link in chain.links[1:]]
    heights = [sign * scaled(chain.metric, loss.value) for _, loss in bars]
    bases = [sum(heights[:place]) for place in range(len(heights))]
    total = sign * scaled(chain.metric, chain.total.value)
    estimates = [*(loss for _, loss in bars), chain.total]
    heights, bases = [*heights, total], [*bases, 0.0]
    titles = [*(step_title(step) for step, _ in bars), "In all"]
    tops = [base + height for base, height in zip(bases, heights, strict=True)]
    ups, downs = [], []
    for base, top, loss in zip(bases, tops, estimates, strict=True):
        ends = _ends(chain, loss, base)
        ups.append(max([*ends, top]) - top)
        downs.append(top - min([*ends, top]))
    colours = [_WORSE if height * sign > 0 else _BETTER for height in heights[:-1]]
    hovers = [
        f"<b>{safe(title)}</b><br>{lost(chain.metric, loss.value)} "
        f"({lost_span(chain.metric, loss)})"
        for title, loss in zip(titles, estimates, strict=True)
    ]
    bar: Json = {
        "type": "bar",
        "name": "loss",
        "x": [title.replace(" and ", "<br>and ").replace(", ", ",<br>") for title in titles],
        "y": heights,
        "base": bases,
        "marker": {"color": [*colours, _WHOLE], "line": {"width": 1, "color": "--panel"}},
        "error_y": error_bars(downs, ups, "--ink-soft"),
        "text": [lost(chain.metric, loss.value) for loss in estimates],
        "textposition": "none",
        "hovertext": hovers,
        "hoverinfo": "text",
    }
    labels: Json = {
        "type": "scatter",
        "name": "values",
        "mode": "text",
        "x": bar["x"],
        "y": [
            (top - down - apart if sign < 0 else top + up + apart)
            for top, up, down in zip(tops, ups, downs, strict=True)
        ],
        "text": bar["text"],
        "textposition": "bottom center" if sign < 0 else "top center",
        "textfont": {"size": 11, "color": "--ink"},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    unit = "points" if is_accuracy(chain.metric) else "bits per byte"
    start = quality_words(chain.metric, chain.links[0].quality)
    return Plot(
        key=f"{family.name}-lost-{entry.variant}",
        title=name,
        summary=f"Waterfall of the quality of {entry.variant}, from the teacher's {start} by "
        f"{len(bars)} steps; the table below holds the numbers.",
        height_px=270,
        traces=(bar, labels),
        layout=base_layout(
            bargap=0.35,
            xaxis=axis("", type="category", showgrid=False, tickfont={"size": 10}),
            yaxis=axis(f"{unit}, from {start}", range=reach, zeroline=True,
                       zerolinecolor="--rule-strong"),
        ),
    )  # fmt: skip


def slices_plot(family: FamilyResults, entry: LossEntry) -> Plot | None:
    """The slices with the greatest loss, each with its interval; too small ones are left out."""
    known = [one for one in entry.slices if one.loss.low is not None][:_MOST_SLICES]
    if not known:
        return None
    metric = "accuracy" if entry.shifts or entry.classes else _metric(family, entry)
    sign = -1 if is_accuracy(metric) else 1
    values = [sign * scaled(metric, one.loss.value) for one in known]
    ends = [
        sorted(sign * scaled(metric, b or 0.0) for b in (one.loss.low, one.loss.high))
        for one in known
    ]
    further = [one.p_value is not None and one.p_value < 0.05 for one in known]  # noqa: PLR2004
    trace: Json = {
        "type": "scatter",
        "mode": "markers",
        "name": "slices",
        "x": values,
        "y": list(range(len(known))),
        "marker": {
            "size": 10,
            "symbol": ["triangle-down" if one else "circle" for one in further],
            "color": [_WORSE if one else _WHOLE for one in further],
        },
        "error_x": error_bars(
            [value - low for value, (low, _) in zip(values, ends, strict=True)],
            [high - value for value, (_, high) in zip(values, ends, strict=True)],
            "--ink-soft",
        ),
        "hovertext": [
            f"<b>{safe(one.slicing)}: {safe(one.name)}</b><br>{lost(metric, one.loss.value)} "
            f"({lost_span(metric, one.loss)})<br>{count(one.samples)} samples"
            for one in known
        ],
        "hoverinfo": "text",
    }
    unit = "accuracy points" if is_accuracy(metric) else "bits per byte"
    return Plot(
        key=f"{family.name}-slices-{entry.variant}",
        title=f"{entry.variant} against the teacher, by slice",
        summary=f"Loss of {entry.variant} on {len(known)} slices with intervals; the table below "
        "holds the numbers.",
        height_px=_FRAME_PX + _SLICE_PX * len(known),
        traces=(trace,),
        layout=base_layout(
            xaxis=axis(
                f"change from the teacher ({unit})", zeroline=True, zerolinecolor="--rule-strong"
            ),
            yaxis=axis(
                "",
                range=[len(known) - 0.5, -0.5],
                tickvals=list(range(len(known))),
                ticktext=[safe(shortened(f"{one.slicing}: {one.name}", 44)) for one in known],
                showgrid=False,
            ),
        ),
    )


def _metric(family: FamilyResults, entry: LossEntry) -> str:
    if entry.chain:
        return entry.chain.metric
    return "accuracy" if "accuracy" in family.metrics else "bits_per_byte"


def confusions_plot(family: FamilyResults, entry: LossEntry) -> Plot | None:
    """How many samples of each class are answered otherwise than by the teacher."""
    change = entry.confusion_change
    if not change or not any(any(row) for row in change):
        return None
    answers = [*entry.classes, "(no answer)"] if any(row[-1] for row in change) else entry.classes
    cells = [list(row[: len(answers)]) for row in change]
    most = max(abs(value) for row in cells for value in row)
    trace: Json = {
        "type": "heatmap",
        "name": "change",
        "x": list(range(len(answers))),
        "y": list(range(len(cells))),
        "z": cells,
        "zmin": -most,
        "zmax": most,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
        "colorscale": [[0, "--c-sky"], [0.5, "--heat-0"], [1, "--c-orange"]],
        "text": [[f"{value:+d}" if value else "" for value in row] for row in cells],
        "texttemplate": "%{text}",
        "hovertext": [
            [
                f"{safe(label)} taken for {safe(answer)}: {value:+d} samples"
                for answer, value in zip(answers, row, strict=True)
            ]
            for label, row in zip(entry.classes, cells, strict=True)
        ],
        "hoverinfo": "text",
    }
    return Plot(
        key=f"{family.name}-confusions-{entry.variant}",
        title=f"{entry.variant}: samples by class and answer, less the teacher's",
        summary=f"Heat map of how many more samples of each class {entry.variant} takes for each "
        "class than the teacher does.",
        height_px=_FRAME_PX + 20 + _CLASS_PX * len(cells),
        traces=(trace,),
        layout=base_layout(
            xaxis=_class_axis("answer", answers, tickangle=-35),
            yaxis=_class_axis("class", entry.classes, autorange="reversed"),
        ),
    )


def _class_axis(title: str, names: tuple[str, ...] | list[str], **own: object) -> Json:
    return axis(
        title,
        tickvals=list(range(len(names))),
        ticktext=[safe(shortened(name, 16)) for name in names],
        showgrid=False,
        **own,
    )
