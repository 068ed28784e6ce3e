"""A rollout, ready for the report's page and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.plots.base import (
    STUDENT_COLOURS,
    Json,
    Plot,
    axis,
    base_layout,
    bound_line,
    safe,
)
from harness.report.rollout.words import outcome_words, sizes_words
from harness.report.tables.model import Cell, Column, Table, decision_cell, numeric, words
from harness.types import Decision
from harness.types.rollout import RolloutLook, RolloutRecord, RolloutStep
from harness.words.numbers import asked, asked_percent, count, number, things

_HEIGHT_PX = 260
_SHOWN_EVIDENCE = 1.5
"""Evidence beyond it is drawn there: 1 is enough to decide."""
_DECISIONS = {
    RolloutStep.PROMOTE: Decision.PASS,
    RolloutStep.ROLL_BACK: Decision.FAIL,
    RolloutStep.HOLD: Decision.UNDECIDED,
}


@dataclass(frozen=True)
class RolloutSection:
    """What is shown of a rollout, in order."""

    outcome: str
    changes: Table
    plots: tuple[Plot, ...]
    notes: tuple[str, ...]


def rollout_section(record: RolloutRecord) -> RolloutSection:
    """Choose and word a rollout."""
    return RolloutSection(
        outcome=outcome_words(record),
        changes=changes_table(record),
        plots=(_weight_plot(record), _evidence_plot(record)) if record.looks else (),
        notes=(*sizes_words(record), *record.notes),
    )


def changes_table(record: RolloutRecord) -> Table:
    """The looks that promoted or rolled back, and the last one."""
    shown = dict.fromkeys([*record.state.changes, *([record.looks[-1]] if record.looks else [])])
    return Table(
        "Decisions",
        (
            Column("Look"),
            Column("Student's share"),
            Column("Decision", numeric=False),
            Column("Why", numeric=False),
        ),
        tuple(_row(record, one) for one in shown),
        note=f"{things(len(record.looks), 'look')}; whatever their number, a student beyond a "
        f"limit is promoted, and one within all limits rolled back, with a probability of at most "
        f"{asked_percent(record.plan.error)} each.",
    )


def _row(record: RolloutRecord, one: RolloutLook) -> tuple[Cell, ...]:
    share = record.plan.stages[one.stage].share
    sign = decision_cell(_DECISIONS[one.step])
    return (
        numeric(count(one.number), one.number),
        numeric(asked_percent(share), share),
        Cell(str(one.step), tone=sign.tone, symbol=sign.symbol),
        words(one.reason),
    )


def _weight_plot(record: RolloutRecord) -> Plot:
    """The student's share during each look, and after the last."""
    looks = [one.number for one in record.looks]
    shares = [100 * record.share_at(place) for place in range(len(looks))]
    end = 100 * record.state.share
    return Plot(
        key="rollout-weight",
        title="The student's share of the traffic",
        summary=f"Share over {things(len(looks), 'look')}; after the last one it is {asked(end)}%. "
        "Each decision is in the table.",
        height_px=_HEIGHT_PX,
        traces=(
            {
                "type": "scatter",
                "name": "share",
                "mode": "lines+markers" if len(looks) < 60 else "lines",  # noqa: PLR2004
                "x": [*looks, looks[-1] + 1],
                "y": [*shares, end],
                "line": {"shape": "hv", "color": "--c-blue", "width": 1.8},
                "marker": {"color": "--c-blue", "size": 5},
                "hovertext": [
                    *(
                        f"look {one.number}<br>{asked(share)}%<br>{one.step}"
                        for one, share in zip(record.looks, shares, strict=True)
                    ),
                    f"from then on<br>{asked(end)}%",
                ],
                "hoverinfo": "text",
            },
        ),
        layout=base_layout(
            showlegend=False,
            xaxis=axis("look"),
            yaxis=axis("share (%)", range=[-3, 105]),
            margin={"l": 48, "r": 10, "t": 8, "b": 42},
        ),
    )


def _evidence_plot(record: RolloutRecord) -> Plot:
    """Each guardrail's evidence for a promotion, upward, and for a rollback, downward."""
    traces: list[Json] = []
    for place, guardrail in enumerate(record.guardrails):
        colour = STUDENT_COLOURS[place % len(STUDENT_COLOURS)]
        for sign, dash in ((1, "solid"), (-1, "dot")):
            traces.append(_evidence_trace(record, guardrail.name, colour, sign, dash))
    last = record.looks[-1].number
    lines = [
        bound_line(xref="x", yref="y", x0=1, x1=max(2, last), y0=height, y1=height)
        for height in (1, -1)
    ]
    return Plot(
        key="rollout-evidence",
        title="Evidence by guardrail",
        summary="Upward (solid) the evidence that the student is within the limit, downward "
        "(dotted) that it is beyond; at a dashed line it suffices. It begins anew at each stage.",
        height_px=_HEIGHT_PX,
        traces=tuple(traces),
        layout=base_layout(
            showlegend=len(record.guardrails) > 1,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            xaxis=axis("look"),
            yaxis=axis(
                "roll back below, promote above",
                range=[-_SHOWN_EVIDENCE - 0.1, _SHOWN_EVIDENCE + 0.1],
            ),
            margin={"l": 48, "r": 10, "t": 34, "b": 42},
            shapes=lines,
        ),
    )


def _evidence_trace(record: RolloutRecord, name: str, colour: str, sign: int, dash: str) -> Json:
    seen = [
        (look.number, finding.within if sign > 0 else finding.beyond)
        for look in record.looks
        for finding in look.findings
        if finding.guardrail == name
    ]
    towards = "within" if sign > 0 else "beyond"
    return {
        "type": "scatter",
        "name": safe(name),
        "legendgroup": name,
        "showlegend": sign > 0,
        "mode": "lines+markers" if len(seen) < 60 else "lines",  # noqa: PLR2004
        "x": [look for look, _ in seen],
        "y": [sign * min(max(0.0, value), _SHOWN_EVIDENCE) for _, value in seen],
        "line": {"color": colour, "width": 1.6, "dash": dash},
        "marker": {"color": colour, "size": 4},
        "hovertext": [
            f"<b>{safe(name)}</b><br>look {look}<br>{number(value)} of what shows it {towards} "
            "the limit"
            for look, value in seen
        ],
        "hoverinfo": "text",
    }
