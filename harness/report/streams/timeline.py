"""Single requests over time: waits here and in the server, reading the prompt, every token."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.plots.base import Json, Plot, axis, base_layout, safe
from harness.runs.records import RecordedStream
from harness.words.numbers import count, latency, things

_ROW_PX = 15
_EDGES_PX = 60
_WAITING, _QUEUED, _READING, _WRITING = (
    ("waiting to be sent", "--c-orange"),
    ("waiting in the server", "--c-purple"),
    ("to the first token", "--c-sky"),
    ("writing", "--c-blue"),
)
"""What a request's time is drawn as, and in which colour."""
_THIN_PX, _THICK_PX = 2, 7


def parts_of(sample: Sequence[RecordedStream]) -> list[tuple[str, str]]:
    """Names and colours of what is drawn: a server may not tell how long a request waited in it."""
    told = any(one.queue_ms is not None for one in sample)
    return [_WAITING, *([_QUEUED] if told else []), _READING, _WRITING]


def timeline_plot(name: str, trial: str, sample: Sequence[RecordedStream]) -> Plot:
    """A row per request, the first that fell due on top.

    Args:
        name: of the family, for the plot's key.
        trial: in words.
        sample: at least one request.
    """
    rows = [(len(sample) - place, one) for place, one in enumerate(sample)]
    waits = [(row, one.due_ms, one.sent_ms) for row, one in rows]
    queues = [(row, one.sent_ms, one.begun_ms) for row, one in rows if one.begun_ms is not None]
    reads = [
        (row, one.sent_ms if one.begun_ms is None else one.begun_ms, one.first_ms)
        for row, one in rows
        if one.first_ms is not None
    ]
    writes = [(row, one.token_ms[0], one.token_ms[-1]) for row, one in rows if one.token_ms]
    segments = (
        (_WAITING, waits, _THICK_PX),
        (_QUEUED, queues, _THICK_PX),
        (_READING, reads, _THICK_PX),
        (_WRITING, writes, _THIN_PX),
    )
    return Plot(
        key=f"{name}-timeline",
        title="Sampled requests",
        summary=f"{things(len(sample), 'request')} of {trial}, one per row: from when each fell "
        "due over its first token to its last, with a mark for every token.",
        height_px=_EDGES_PX + _ROW_PX * len(sample),
        traces=(
            *(_segments(part, ends, width) for part, ends, width in segments if ends),
            _tokens(rows),
        ),
        layout=base_layout(
            xaxis=axis("milliseconds since the first of these requests fell due"),
            yaxis=axis("", showticklabels=False, showgrid=False, range=[0, len(sample) + 1]),
            margin={"l": 10, "r": 10, "t": 8, "b": 42},
        ),
    )


def _segments(
    part: tuple[str, str], ends: Sequence[tuple[int, float, float]], width_px: int
) -> Json:
    name, colour = part
    x: list[float | None] = []
    y: list[float | None] = []
    for row, start, end in ends:
        x += [start, end, None]
        y += [row, row, None]
    return {
        "type": "scatter",
        "name": name,
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": colour, "width": width_px},
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
