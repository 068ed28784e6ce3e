"""The decision: quality first, then each trial, then one verdict for the family.

Only a trial of the confirming stage is ever recommended. The best of many noisy measurements is
partly the luckiest (the winner's curse), so the search measures it again, and the fresh numbers
are what the verdict rests on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.metrics import latency_of, summary_of
from harness.planning.assessment import (
    THROUGHPUT_TIE,
    Assessment,
    QualityJudgement,
    assess,
    best,
    quality_findings,
)
from harness.planning.clauses import FARTHEST_FACTOR
from harness.planning.rejections import Candidates, rejections
from harness.study.clauses import judged_latencies
from harness.types import (
    Decision,
    QualityScore,
    ServiceLevelObjective,
    TrialResult,
    Verdict,
)
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import Metric
from harness.words.labels import throughput_words, trial_words
from harness.words.numbers import confidence, latency, number

LONGEST_ADVICE_S = 3600.0
"""No longer trial is advised: over an hour nobody waits for."""
_MORE_SAMPLES = "score more samples: raise `samples` of the task, or give it a larger test split"
_MOVE_THE_BOUND = "move the quality's bound, or take another student: its value lies at the bound"


def judge_quality(
    slo: ServiceLevelObjective,
    scores_of_variant: Sequence[QualityScore],
    teacher_scores: Sequence[QualityScore],
) -> QualityJudgement:
    """Judge a variant's scores by the quality clauses of an objective.

    Args:
        slo: the objective.
        scores_of_variant: all scores of one variant.
        teacher_scores: those of the model that relative clauses refer to.

    Returns:
        The decision and what it rests on. A metric that was not scored is undecided.
    """
    findings = quality_findings(slo, scores_of_variant, teacher_scores)
    if not findings:
        return QualityJudgement(Decision.PASS, "is asked for no quality")
    for decision in (Decision.FAIL, Decision.UNDECIDED):
        against = [finding for finding in findings if finding.decision is decision]
        if against:
            at_the_bound = any((one.evidence_factor or 0.0) > FARTHEST_FACTOR for one in against)
            words = " and ".join(finding.reason for finding in against)
            return QualityJudgement(decision, words, at_the_bound)
    words = " and ".join(dict.fromkeys(finding.reason for finding in findings))
    return QualityJudgement(Decision.PASS, words)


def decide(
    family: str,
    slo: ServiceLevelObjective,
    quality: Mapping[str, QualityJudgement],
    results: Sequence[TrialResult],
    *,
    teachers: Collection[str] = (),
    teacher_counts: bool = False,
) -> Verdict:
    """Join quality and load into the verdict on a family: may a student replace the teacher?

    Pass: a confirmed trial of a candidate whose quality passes meets the objective. Fail: every
    candidate fails on quality, or else in every configuration that was tried. Undecided: the rest,
    and where the teacher's best trial is invalid and may have been better than the candidate's.

    Args:
        family: name of the family.
        slo: the objective.
        quality: what `judge_quality` said of each model; a variant that is not in here (control,
            baseline) is not a candidate, whatever was measured of it.
        results: all trials, in the order they were measured.
        teachers: which of the models are the teacher.
        teacher_counts: the teacher is a candidate like the students: where it comes out best, the
            verdict is a pass that keeps it.
    """
    candidates = Candidates(
        slo,
        quality,
        [assess(slo, result) for result in results],
        yardsticks=() if teacher_counts else teachers,
    )
    winner = best(candidates.confirmed)
    spoiled = candidates.spoiled_rival(teachers, winner) if winner is not None else None
    if winner is not None and spoiled is None:
        summary = _recommendation(candidates, winner, teachers)
        trial_id, rejected = winner.trial.trial_id, tuple(rejections(candidates, winner))
        return Verdict(family, slo.text, Decision.PASS, trial_id, summary, rejected)
    rejected = tuple(rejections(candidates, None))
    if winner is None and candidates.hopeless:
        summary = _failure(family, candidates, teachers)
        return Verdict(family, slo.text, Decision.FAIL, None, summary, rejected)
    if winner is not None and spoiled is not None:
        open_point = _spoiled_point(winner, spoiled)
    else:
        open_point = _open_point(candidates)
    who = "student" if candidates.yardsticks else "model"
    summary = f"Not decided whether any {who} of {family} meets `{slo.text}`: {open_point.problem}"
    return Verdict(
        family, slo.text, Decision.UNDECIDED, None, summary, rejected, open_point.next_step
    )


def _recommendation(candidates: Candidates, winner: Assessment, teachers: Collection[str]) -> str:
    trial = winner.trial
    serve = f"Serve {trial.variant} ({trial_words(trial)})"
    if trial.variant in teachers and candidates.quality.keys() - set(teachers):
        # Confirmed: a student's one trial in the search may have come out higher by chance.
        better = "no student is confirmed to meet the objective with more throughput"
        serve = f"Keep the teacher, {better}: {serve}"
    quality = candidates.quality[trial.variant].reason
    return (
        f"{serve}: {throughput_words(winner.result)} at {_latencies(candidates.slo, winner)}; "
        f"it {quality}.{_faster_teacher(candidates, winner)}"
    )


def _faster_teacher(candidates: Candidates, winner: Assessment) -> str:
    """A sentence where the teacher that is to be replaced meets the objective with more."""
    teacher = candidates.best_of(candidates.yardsticks)
    if teacher is None or teacher.decision is not Decision.PASS:
        return ""
    if (1 - THROUGHPUT_TIE) * teacher.inferences_per_s <= winner.inferences_per_s:
        return ""
    return (
        f" The teacher gives more: {teacher.trial.variant} ({trial_words(teacher.trial)}) met the "
        f"load clauses with {throughput_words(teacher.result)}."
    )


def _latencies(slo: ServiceLevelObjective, winner: Assessment) -> str:
    """Every latency that the objective bounds, each with what it is at most."""
    metrics = judged_latencies(slo)
    sure = {summary.confidence for one in metrics if (summary := summary_of(one, winner.result))}
    with_confidence = f" with {confidence(min(sure))} confidence" if sure else ""
    return " and ".join(_latency(one, winner.result, with_confidence) for one in metrics)


def _latency(metric: Metric, result: TrialResult, with_confidence: str) -> str:
    found = latency_of(metric, result)
    value = f"{metric.title} {latency(found.value_ms if found else None)}"
    if found is None or found.high_ms >= UNBOUNDED_MS:
        return value
    return f"{value} (at most {latency(found.high_ms)}{with_confidence})"


def _failure(family: str, candidates: Candidates, teachers: Collection[str]) -> str:
    failing = [
        name for name, (decision, *_) in candidates.asked.items() if decision is Decision.FAIL
    ]
    asked, who = len(candidates.asked), "student" if candidates.yardsticks else "model"
    parts = [] if asked else [f"no {who} could be measured"]
    if failing:
        parts.append(f"{len(failing)} of {asked} {who} variants fall short in quality")
    causes = Counter(one.cause for one in candidates.current)
    if causes:
        tried = sum(causes.values())
        counted = ", ".join(f"{count} by {cause}" for cause, count in causes.most_common())
        parts.append(f"none of {tried} configurations meets the load clauses ({counted})")
    nearest = min(candidates.current, key=lambda one: one.strain, default=None)
    near = (
        f"; the nearest was {nearest.trial.variant} ({trial_words(nearest.trial)}): "
        f"{nearest.reason}"
        if nearest
        else ""
    )
    missed = f"{who} of {family} meets `{candidates.slo.text}`: {'; '.join(parts)}{near}."
    if not candidates.yardsticks:
        return f"No {missed}"
    return f"Keep the teacher: no {missed} {_teacher_alone(candidates, teachers)}"


def _teacher_alone(candidates: Candidates, teachers: Collection[str]) -> str:
    """What the objective says of the teacher that is kept."""
    top = candidates.best_of(teachers)
    if top is None:
        return "No valid trial was measured of the teacher itself."
    quality, why, _ = candidates.quality[top.trial.variant]
    name = f"{top.trial.variant} ({trial_words(top.trial)})"
    if Decision.FAIL in {top.decision, quality}:
        return f"The teacher does not meet it either: {name}: {top.reason or why}."
    if top.decision is Decision.PASS and quality is Decision.PASS:
        return (
            f"The teacher meets it: {name} gave {throughput_words(top.result)} at "
            f"{_latencies(candidates.slo, top)}."
        )
    return f"It is not decided whether the teacher meets it: {name}: {top.reason or why}."


@dataclass(frozen=True)
class _OpenPoint:
    """What stands between an undecided family and its decision."""

    problem: str
    next_step: str


def _open_point(candidates: Candidates) -> _OpenPoint:
    """The candidate to settle first: the best that is not settled, else an invalid measurement."""
    unsettled = [one for one in candidates.current if one.decision is not Decision.FAIL]
    if not unsettled:
        problem = f"no trial was measured of {', '.join(candidates.untried)}."
        return _OpenPoint(problem, "run the study again")
    first = best(one for one in unsettled if one.decision is not Decision.INVALID)
    if first is None:
        return _invalid_point(candidates, unsettled[0])
    name = f"{first.trial.variant} ({trial_words(first.trial)})"
    quality = candidates.quality[first.trial.variant]
    if quality.decision is not Decision.PASS:
        problem = f"the best candidate, {name}, {quality.reason}."
        return _OpenPoint(problem, _quality_step(quality))
    if first.decision is Decision.PASS:
        return _unconfirmed_point(name, candidates.fresh.get(first.trial.configuration))
    return _OpenPoint(f"the best candidate, {name}: {first.reason}.", _longer(first))


def _unconfirmed_point(name: str, fresh: Assessment | None) -> _OpenPoint:
    """The best candidate passed once; a fresh measurement is missing, or cannot be trusted."""
    problem = f"{name} met it when first measured, but no fresh measurement confirms that"
    if fresh is None:
        return _OpenPoint(f"{problem}.", "run the study again")
    return _OpenPoint(
        f"{problem}; {fresh.trial.trial_id} is {fresh.decision}: {fresh.reason}.",
        "fix what made the trial invalid, then run the study again",
    )


def _spoiled_point(winner: Assessment, spoiled: Assessment) -> _OpenPoint:
    """A candidate is confirmed, but what it is to replace may be better."""
    problem = (
        f"{winner.trial.variant} ({trial_words(winner.trial)}) does, with "
        f"{throughput_words(winner.result)}, but the teacher's best trial cannot be "
        f"trusted, so it may be the better one: {spoiled.trial.variant} "
        f"({trial_words(spoiled.trial)}): {spoiled.reason}."
    )
    return _OpenPoint(problem, "fix what made the trial invalid, then run the study again")


def _invalid_point(candidates: Candidates, invalid: Assessment) -> _OpenPoint:
    name = f"{invalid.trial.variant} ({trial_words(invalid.trial)})"
    problem = f"no measurement that counts is left open; {name} is invalid: {invalid.reason}."
    step = "fix what made trials invalid, then run the study again"
    quality = candidates.quality[invalid.trial.variant]
    if quality.decision is Decision.PASS:
        return _OpenPoint(problem, step)
    return _OpenPoint(
        f"{problem} And {invalid.trial.variant} {quality.reason}.",
        f"{step}; {_quality_step(quality)}",
    )


def _quality_step(quality: QualityJudgement) -> str:
    """What to do about a quality that decides nothing, and perhaps cannot."""
    return _MOVE_THE_BOUND if quality.at_the_bound else _MORE_SAMPLES


def _longer(undecided: Assessment) -> str:
    """Which duration to raise, and to what, as far as that can be predicted."""
    stage = undecided.trial.stage
    key = "confirm_duration_s" if stage == "confirm" else "duration_s"
    factors = [f.evidence_factor for f in undecided.findings if f.decision is Decision.UNDECIDED]
    known = [factor for factor in factors if factor is not None]
    if not known:
        return f"raise traffic.{key}"
    seconds = undecided.result.duration_s * max(2.0, *known)
    if seconds > LONGEST_ADVICE_S:
        return "it lies at the bound: move the bound, or take a configuration with more headroom"
    return f"raise traffic.{key} to about {number(seconds)} s"
