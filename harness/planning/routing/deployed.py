"""A router as it is deployed: what the server answered, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.planning.assessment import Assessment, QualityJudgement, assess
from harness.study.clauses import judged_latency
from harness.types import Decision, ServiceLevelObjective, TrialResult
from harness.types.estimates import Interval
from harness.words.labels import trial_words
from harness.words.numbers import latency, number

ROUTER_STAGE = "router"
"""Stage of the trials that measure a router; the search never reads them."""


def keeps_promise(kept: Interval | None, keep: float) -> Decision:
    """Whether a measured share of the teacher's accuracy is within the promised one."""
    if kept is None:
        return Decision.UNDECIDED
    if kept.low >= keep:
        return Decision.PASS
    return Decision.FAIL if kept.high < keep else Decision.UNDECIDED


def judge_router(
    slo: ServiceLevelObjective,
    quality: QualityJudgement,
    results: Sequence[TrialResult],
) -> tuple[Decision, str]:
    """The verdict on a router by itself.

    Args:
        slo: its family's objective.
        quality: what `judge_quality` said of its scores.
        results: its trials, from the highest load down; the last decides.

    Returns:
        The decision, and what it rests on in one sentence.
    """
    decided, why, _ = quality
    if decided is Decision.FAIL:
        return Decision.FAIL, f"The router fails on quality: it {why}."
    if not results:
        return Decision.UNDECIDED, f"The router was not load-tested; it {why}."
    last = assess(slo, results[-1])
    load = _load_words(slo, last)
    if last.decision is Decision.PASS and decided is Decision.PASS:
        return Decision.PASS, f"The router meets the objective: {load}; it {why}."
    if last.decision is Decision.PASS:
        return decided, f"The router's load passes ({load}), but its quality does not: it {why}."
    failed = last.decision is Decision.FAIL
    opening = "The router fails" if failed else "Whether the router passes is undecided"
    return last.decision, f"{opening}: {load}, {last.reason}; it {why}."


def _load_words(slo: ServiceLevelObjective, last: Assessment) -> str:
    return (
        f"{number(last.inferences_per_s)} inferences/s at {judged_latency(slo).name} "
        f"{latency(last.latency_ms)} ({trial_words(last.trial)})"
    )
