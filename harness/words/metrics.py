"""The page that lists every metric of an objective: docs/metrics.md."""

from __future__ import annotations

from harness.metrics import METRICS

_MARKDOWN = """# What an objective may ask

{what}

| metric | what it is | better | for example | of the task |
|---|---|---|---|---|
{rows}

A quality may be bounded by the teacher's own, taken on the same samples: `accuracy >= 90% of
teacher`, `perplexity <= 1.1x teacher`. All clauses must hold. This page is printed by
`harness schema --metrics` from `harness/metrics.py`.
"""
_WHAT = (
    "An objective is a list of clauses, such as `p95 < 50 ms, accuracy >= 90% of teacher`: a "
    "metric, a comparison, an amount with its unit."
)


def as_markdown() -> str:
    """Every metric that an objective can name, as a page of Markdown with a table."""
    rows = (
        f"| `{one.name}` | {one.of} | {'lower' if one.lower_is_better else 'higher'} "
        f"| `{one.clause}` | {', '.join(one.tasks) if one.is_quality else 'any'} |"
        for one in METRICS.values()
    )
    return _MARKDOWN.format(what=_WHAT, rows="\n".join(rows))
