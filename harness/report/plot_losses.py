"""Pictures of where quality was lost: dots by slice, confusions by class."""

from __future__ import annotations

from harness.losses import LossEntry
from harness.report.labels import shortened
from harness.report.loss_words import is_accuracy, lost, lost_span, scaled
from harness.report.numbers import count
from harness.report.plots import Json, Plot, axis, base_layout, error_bars, safe
from harness.report.selection import FamilyResults

_MOST_SLICES = 16
_SLICE_PX, _CLASS_PX, _FRAME_PX = 24, 30, 80
_LIKELY, _UNSURE = "--c-vermillion", "--c-blue"


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
            "color": [_LIKELY if one else _UNSURE for one in further],
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
