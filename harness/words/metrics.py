"""The page that lists every metric of an objective: docs/metrics.md."""

from __future__ import annotations

import math

from harness.metrics import METRICS
from harness.types.metrics import Metric
from harness.words.numbers import asked, asked_percent

_MARKDOWN = """# What an objective may ask

{what}

| metric | what it is | range | better | for example | of the task |
|---|---|---|---|---|---|
{rows}

A bound that no model can meet (`perplexity < 1`), or that every model meets (`error_rate <=
100%`), is an error. A quality may be bounded by the teacher's own, taken on the same samples:
`accuracy >= 90% of teacher`, `perplexity <= 1.1x teacher`. All clauses must hold. This page is
printed by `harness schema --metrics` from `harness/metrics.py`.
"""
_WHAT = (
    "An objective is a list of clauses, such as `p95 < 50 ms, accuracy >= 90% of teacher`: a "
    "metric, a comparison, an amount with its unit."
)


def as_markdown() -> str:
    """Every metric that an objective can name, as a page of Markdown with a table."""
    rows = (
        f"| `{one.name}` | {one.of} | {_range(one)} "
        f"| {'lower' if one.lower_is_better else 'higher'} | `{one.clause}` "
        f"| {_whose(one)} |"
        for one in METRICS.values()
    )
    return _MARKDOWN.format(what=_WHAT, rows="\n".join(rows))


def _whose(metric: Metric) -> str:
    if metric.is_quality:
        return ", ".join(metric.tasks)
    return "models that write" if metric.of_streams else "any"


def _range(metric: Metric) -> str:
    low, high = metric.possible
    shown = asked_percent if metric.unit.is_share else asked
    return f"from {shown(low)}" if math.isinf(high) else f"{shown(low)} to {shown(high)}"
