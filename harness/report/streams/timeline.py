"""Single requests over time: the wait to be sent, the way to the first token, then every token."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.plots.base import Json, Plot, axis, base_layout, safe
from harness.runs.records import RecordedStream
from harness.words.numbers import count, latency

_ROW_PX = 15
_EDGES_PX = 60
PARTS = (
    ("waiting to be sent", "--c-orange"),
    ("to the first token", "--c-sky"),
    ("writing", "--c-blue"),
)
"""What a request's time is drawn as, and in which colour."""


def timeline_plot(name: str, trial: str, sample: Sequence[RecordedStream]) -> Plot:
    """A row per request, the first that fell due on top.

    Args:
        name: of the family, for the plot's key.
        trial: in words.
        sample: at least one request.
    """
    rows = [(len(sample) - place, one) for place, one in enumerate(sample)]
    waits = [(row, one.due_ms, one.sent_ms) for row, one in rows]
    reads = [(row, one.sent_ms, one.first_ms) for row, one in rows if one.first_ms is not None]
    writes = [(row, one.token_ms[0], one.token_ms[-1]) for row, one in rows if one.token_ms]
    segments = zip(PARTS, (waits, reads, writes), (7, 7, 2), strict=True)
    return Plot(
        key=f"{name}-timeline",
        title="Sampled requests",
        summary=f"{len(sample)} requests of {trial}, one per row: from when each fell due over its "
        "first token to its last, with a mark for every token.",
        height_px=_EDGES_PX + _ROW_PX * len(sample),
        traces=(
            *(_segments(part, colour, ends, width) for (part, colour), ends, width in segments),
            _tokens(rows),
        ),
        layout=base_layout(
            xaxis=axis("milliseconds since the first of these requests fell due"),
            yaxis=axis("", showticklabels=False, showgrid=False, range=[0, len(sample) + 1]),
            margin={"l": 10, "r": 10, "t": 8, "b": 42},
        ),
    )


def _segments(
    part: str, colour: str, ends: Sequence[tuple[int, float, float]], width: float
) -> Json:
    x: list[float | None] = []
    y: list[float | None] = []
    for row, start, end in ends:
        x += [start, end, None]
        y += [row, row, None]
    return {
        "type": "scatter",
        "name": part,
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": colour, "width": width},
        "hoverinfo": "skip",
    }


def _tokens(rows: Sequence[tuple[int, RecordedStream]]) -> Json:
    marks = [(row, at, place, one) for row, one in rows for place, at in enumerate(one.token_ms)]
    return {
        "type": "scatter",
        "name": "token",
        "mode": "markers",
        "x": [at for _, at, _, _ in marks],
        "y": [row for row, _, _, _ in marks],
        "marker": {
            "symbol": "line-ns-open",
            "size": 8,
            "color": "--c-vermillion",
            "line": {"width": 1.6, "color": "--c-vermillion"},
        },
        "hovertext": [_words(place, at, one) for _, at, place, one in marks],
        "hoverinfo": "text",
    }


def _words(place: int, at_ms: float, one: RecordedStream) -> str:
    of = f" of {count(one.output_tokens)}" if one.output_tokens else ""
    since = at_ms - (one.token_ms[place - 1] if place else one.due_ms)
    behind = "after the one before" if place else "after the request fell due"
    return safe(f"token {place + 1}{of}: {latency(since)} {behind}")
