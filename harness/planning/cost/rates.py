"""The highest load that meets the objective, by variant: what a machine can be paid for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness.planning.assessment import Assessment, assess, borne_out
from harness.types import (
    CONFIRM,
    Decision,
    ModelVariant,
    ServiceLevelObjective,
    Trial,
    TrialResult,
    Verdict,
    Workload,
)
from harness.types.estimates import Demand, Interval


class MeasuredRun(Protocol):
    """What is read of a stored run."""

    @property
    def manifest(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def variants(self) -> Sequence[ModelVariant]: ...  # noqa: D102
    @property
    def trials(self) -> Sequence[TrialResult]: ...  # noqa: D102
    @property
    def verdicts(self) -> Sequence[Verdict]: ...  # noqa: D102
    @property
    def objectives(self) -> Mapping[str, ServiceLevelObjective]: ...  # noqa: D102


@dataclass(frozen=True)
class SustainedRate:
    """What one machine gives of a variant while the objective holds."""

    variant: str
    trial_id: str
    inferences_per_s: Interval
    instance_kind: str
    """`cpu` or `gpu`, as the trial has it: of an external server not always what it is."""
    basis: Literal["measured", "predicted"] = "measured"
    confirmed: bool = True
    """Whether it was measured afresh after it had been found, so that its luck is not counted."""
    rows_per_request: float = 1.0
    output_tokens_per_s: Interval | None = None
    """Output tokens per second of streams; None where answers came whole or without an interval."""
    input_tokens_per_s: Interval | None = None
    """Input tokens per second of streams; None likewise, and where nobody counts a prompt's."""


@dataclass(frozen=True)
class WithoutRate:
    """A variant of which no sustained rate is known, and what would tell."""

    variant: str
    reason: str
    next_step: str


def sustained_rate(
    run: MeasuredRun,
    variant: ModelVariant,
    slo: ServiceLevelObjective,
    demand: Demand | None = None,
) -> SustainedRate | WithoutRate:
    """The highest throughput of a variant in a trial that meets the objective.

    Trials of the confirming stage count before all others, what they did not bear out does not
    count, and, where a demand is given, those
    with its rows per request before those with other ones.

    Args:
        run: a stored run.
        variant: one of its.
        slo: the objective; its clauses on quality are not judged here.
        demand: what the requests of the traffic are like; None: any.
    """
    trials = [one for one in run.trials if one.trial.variant == variant.name]
    judged = [assess(slo, one) for one in trials]
    passing = [one.result for one in borne_out(judged)]
    if not passing:
        return WithoutRate(variant.name, *_without_a_pass(judged, variant, run))
    bounded = [one for one in passing if _bounds(one) is not None]
    if not bounded:
        return WithoutRate(
            variant.name,
            "its trials that meet the objective have no interval of their throughput: their "
            "windows are too short for one",
            _longer(run),
        )
    rows = demand.rows_per_request if demand else None
    alike = [one for one in bounded if _rows(one.trial.workload) == rows]
    confirmed = [one for one in alike or bounded if one.trial.stage == CONFIRM]
    best = max(confirmed or alike or bounded, key=lambda one: one.throughput_inferences_per_s)
    return _rate(best, confirmed=bool(confirmed))


def _rate(result: TrialResult, *, confirmed: bool) -> SustainedRate:
    trial: Trial = result.trial
    low, high = _bounds(result) or (0.0, 0.0)
    return SustainedRate(
        trial.variant,
        trial.trial_id,
        Interval(result.throughput_inferences_per_s, low, high),
        trial.serving.instance_kind,
        confirmed=confirmed,
        rows_per_request=_rows(trial.workload),
        output_tokens_per_s=_output_tokens(result),
        input_tokens_per_s=_input_tokens(result),
    )


def _output_tokens(result: TrialResult) -> Interval | None:
    """Tokens that were written; None where the window was too short for a lower bound above 0."""
    known = result.streams.output_tokens_per_s_bounds if result.streams else None
    return known if known is not None and known.low > 0 else None


def _input_tokens(result: TrialResult) -> Interval | None:
    """Tokens of the prompts that were answered: as sure as the requests, at the mean of a prompt.

    None where answers came in one, or nobody counts the prompts' tokens.
    """
    found, bounds = result.streams, _bounds(result)
    per_s = result.throughput_inferences_per_s
    if found is None or bounds is None or not found.counts.input_tokens:
        return None
    rate = found.counts.input_tokens / result.duration_s
    return Interval(rate, rate * bounds[0] / per_s, rate * bounds[1] / per_s)


def _bounds(result: TrialResult) -> tuple[float, float] | None:
    """Bounds of the throughput; None where the window was too short for a lower bound above 0."""
    low, high = result.throughput_low_inferences_per_s, result.throughput_high_inferences_per_s
    return None if low is None or high is None or low <= 0 else (low, high)


def _rows(workload: Workload) -> float:
    mix = workload.batch_mix
    if not mix:
        return float(workload.client_batch_size)
    return sum(rows * weight for rows, weight in mix) / sum(weight for _, weight in mix)


def _without_a_pass(
    judged: Sequence[Assessment], variant: ModelVariant, run: MeasuredRun
) -> tuple[str, str]:
    """Why no trial passes, and what to do: of the decision that is nearest to a pass."""
    none, counted = "no trial of it meets the objective", judged
    if any(one.decision is Decision.PASS for one in judged):
        none += " when it is measured afresh"
        counted = [one for one in judged if one.trial.stage == CONFIRM]
    for decision in (Decision.UNDECIDED, Decision.INVALID, Decision.FAIL):
        reasons = [one.reason for one in counted if one.decision is decision]
        if reasons:
            return _unsettled(none, decision, reasons, run)
    return _never_measured(variant, run)


def _unsettled(
    none: str, decision: Decision, reasons: Sequence[str], run: MeasuredRun
) -> tuple[str, str]:
    if decision is Decision.FAIL:
        return f"{none}: {reasons[0]}", "ask for less with --slo"
    trials = "trial is" if len(reasons) == 1 else "trials are"
    again = f"mend what the reason names, then: harness run {_study_file(run)}"
    return (
        f"{none}, and {len(reasons)} {trials} {decision}: {reasons[0]}",
        again if decision is Decision.INVALID else _longer(run),
    )


def _never_measured(variant: ModelVariant, run: MeasuredRun) -> tuple[str, str]:
    rejected = [one for verdict in run.verdicts for one in verdict.rejected]
    why = next((one.reason for one in rejected if one.variant == variant.name), "")
    if why:
        return f"it was ruled out before any load: {why}", "serve another model"
    return "no trial of it was measured", f"harness run {_study_file(run)} --out RUN --resume"


def _longer(run: MeasuredRun) -> str:
    return f"raise duration_s in the study's traffic, then: harness run {_study_file(run)}"


def _study_file(run: MeasuredRun) -> str:
    """The file that the run's command named, or one called as the study is."""
    command = str(run.manifest.get("command", ""))
    named = (part for part in shlex.split(command) if part.endswith((".yaml", ".yml")))
    called = run.manifest.get("study", {}).get("name", "STUDY")
    return shlex.quote(next(named, f"{called}.yaml"))
