"""What a Locust-driven test has to say: as text, as rows for the web page, as a JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness import hdr
from harness.metrics import SHOWN_PERCENTILES
from harness.system.storage import storage_errors
from harness.types import SPANS, Latencies, SparseHistogram
from harness.types.metrics import PERCENTILES
from harness.words.numbers import milliseconds, number, percent, seconds
from harness_locust.judgement import remark_on, warnings_of
from harness_locust.plan import Plan
from harness_locust.results import PhaseResult, Results

SCHEMA_VERSION = 1
QUANTILES = {**PERCENTILES, "p99.9": 0.999, "max": 1.0}
WHOLE_TEST = "whole test"
NOT_SEEN = "-"
_MEBI = 2**20

Row = dict[str, str | int]


def latency_rows(results: Results, now_s: float) -> list[Row]:
    """Percentiles of each span, of the successes: the whole test and its last seconds."""
    windows = {
        WHOLE_TEST: results.whole(now_s).total.ok,
        "last 10 s": results.recent.ok,
    }
    return [
        {"latency": span.title, "window": window, **_percentiles(latencies.of(span.name))}
        for window, latencies in windows.items()
        for span in SPANS.values()
        if span.is_between_moments or span.name in latencies.spans
    ]


def outcome_rows(results: Results, now_s: float) -> list[Row]:
    """How many requests ended how."""
    whole = results.whole(now_s)
    counts = {"ok": hdr.total(whole.total.ok.response)}
    counts |= {f"failed: {kind}": count for kind, count in sorted(whole.total.failures.items())}
    counts["dropped: never sent"] = whole.total.dropped
    together = sum(counts.values())
    return [
        {
            "outcome": outcome,
            "requests": count,
            "share": percent(count / together) if together else NOT_SEEN,
            "per_second": number(count / whole.duration_s) if whole.duration_s else NOT_SEEN,
        }
        for outcome, count in counts.items()
    ]


def phase_rows(results: Results, now_s: float) -> list[Row]:
    """One row per phase, or a step of a sweep."""
    return [_phase_row(one) for one in results.phases(now_s) if one.duration_s]


def worker_rows(results: Results, now_s: float) -> list[Row]:
    """How each load-generating process fares."""
    return [
        {
            "process": state.name,
            "cpu": percent(state.health.cpu_cores),
            "lag_p99": _ms(hdr.value_at(state.loop_lag, 0.99)),
            "memory": f"{state.memory_bytes / _MEBI:,.0f} MiB",
            "remark": remark_on(state, results, now_s),
        }
        for state in results.workers
    ]


def as_text(results: Results, now_s: float) -> str:
    """A few small tables and the warnings, for a terminal."""
    parts = ["HDR latency of successes, in ms (from schedule: response; exact to 0.1 %)"]
    rows = latency_rows(results, now_s)
    parts += [_table([row for row in rows if row["window"] == WHOLE_TEST])]
    parts += ["Phases", _table(phase_rows(results, now_s))]
    parts += ["Outcomes", _table(outcome_rows(results, now_s))]
    states = [{**row, "remark": ""} for row in worker_rows(results, now_s)]  # see the warnings
    parts += ["Load generators", _table(states)]
    parts += [f"WARNING: {one}" for one in warnings_of(results, now_s)]
    if results.attendance.first_failure:
        parts += [f"The first failure: {results.attendance.first_failure}"]
    return "\n".join(parts)


def as_document(plan: Plan, results: Results, now_s: float) -> dict[str, Any]:
    """Totals and encoded histograms (HDR V2, base64, microseconds) of each phase."""
    return {
        "schema_version": SCHEMA_VERSION,
        "test": results.test,
        "start_monotonic_ns": results.start_ns,
        "host": plan.host,
        "model": plan.model,
        "load": plan.workload.label if plan.is_open_loop else "closed loop",
        "warnings": warnings_of(results, now_s),
        "first_failure": results.attendance.first_failure,
        "workers": [
            {
                "name": state.name,
                "cpu_cores": state.health.cpu_cores,
                "loop_lag_p99_ms": hdr.value_at(state.loop_lag, 0.99),
                "memory_bytes": state.memory_bytes,
                "lost": state.lost,
                "reports_missing": results.attendance.missing(state.name),
                "stood_still_s": state.stood_still_s,
                "clock_error_s": state.clock_error_s,
            }
            for state in results.workers
        ],
        "phases": [_phase_document(one) for one in results.phases(now_s) if one.duration_s],
    }


def write_document(path: Path, document: dict[str, Any]) -> Path:
    """Write it beside what is there already: nothing measured is overwritten.

    Returns:
        The file: the path, or the path with the test's name in it.

    Raises:
        StorageError: it cannot be written.
    """
    if path.exists():
        path = path.with_name(f"{path.stem}-{document['test']}{path.suffix}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _phase_row(phase: PhaseResult) -> Row:
    latencies = _percentiles(phase.total.ok.response)
    shown = {name: latencies[name] for name in SHOWN_PERCENTILES}
    return {
        "phase": phase.name,
        "seconds": seconds(phase.duration_s),
        "requests_per_s": number(phase.requests_per_s),
        "inferences_per_s": number(phase.inferences_per_s),
        **shown,
        "failed": sum(phase.total.failures.values()),
        "dropped": phase.total.dropped,
    }


def _phase_document(phase: PhaseResult) -> dict[str, Any]:
    total = phase.total
    return {
        "name": phase.name,
        "start_s": phase.start_s,
        "duration_s": phase.duration_s,
        "completed": total.completed,
        "inferences": total.inferences,
        "requests_per_s": phase.requests_per_s,
        "inferences_per_s": phase.inferences_per_s,
        "failures": dict(total.failures),
        "dropped": total.dropped,
        "ok": _latencies_document(total.ok),
        "failed": _latencies_document(total.failed),
    }


def _latencies_document(latencies: Latencies) -> dict[str, Any]:
    return {
        span.name: {
            "count": hdr.total(histogram),
            **{f"{name}_ms": hdr.value_at(histogram, at) for name, at in QUANTILES.items()},
            "encoded": hdr.encode(histogram),
        }
        for span in SPANS.values()
        if (histogram := latencies.of(span.name)).buckets or span.is_between_moments
    }


def _percentiles(histogram: SparseHistogram) -> dict[str, str | int]:
    shown = {name: _ms(hdr.value_at(histogram, at)) for name, at in QUANTILES.items()}
    return {"count": hdr.total(histogram), **shown}


def _ms(value: float | None) -> str:
    return NOT_SEEN if value is None else milliseconds(value)


def _table(rows: Sequence[Row]) -> str:
    """Columns as wide as what is in them; text to the left, numbers to the right."""
    if not rows:
        return "  (nothing)"
    titles = list(rows[0])
    lines = [[one.replace("_", " ") for one in titles]]
    lines += [[_cell(row[title]) for title in titles] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _cell(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    parts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "  " + "  ".join(parts).rstrip()
