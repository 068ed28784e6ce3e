"""What must not get worse while a student takes over: each a share of bad requests and its limit.

An error rate is a share of requests that failed, a latency objective one of requests that were
slower than its bound (`p95 < 50 ms` is 'at most 5% over 50 ms'), agreement one of answers that are
another than the teacher's, a metric of the user's two counters of a Prometheus (bad and all). So
one kind of evidence serves all of them, and none rests on a mean without a distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import UsageError
from harness.planning.rollout.evidence import bound, log_e_mean, log_e_share, log_e_two_shares
from harness.types.estimates import Interval
from harness.types.rollout import BadOutcome, Comparison, Guardrail, GuardrailFinding, Tally
from harness.words.numbers import asked

Floats = NDArray[np.float64]
_MOST_EVIDENCE = 1000.0


def find(
    guardrail: Guardrail, tally: Tally, *, pass_error: float, breach_error: float
) -> GuardrailFinding:
    """Judge one guardrail on all that was counted since its stage began.

    Args:
        guardrail: what is judged.
        tally: counts, of any number of looks together.
        pass_error: probability that a student beyond the limit ever passes.
        breach_error: probability that a student within it is ever found beyond.

    Raises:
        DataError: the counts cannot be.
    """
    tally.check(guardrail.name)
    requests = tally.seen(guardrail)
    if not requests:
        return GuardrailFinding(guardrail.name, 0, None, passes=False, breaches=False)
    at_least, at_most = (
        partial(log_evidence, guardrail, counts_of(tally), above=above) for above in (True, False)
    )
    limits = guardrail.limits
    within = _evidence(at_least, guardrail.limit, pass_error)
    beyond = _evidence(at_most, guardrail.alarm, breach_error)
    return GuardrailFinding(
        guardrail.name,
        requests,
        Interval(
            _value(guardrail, tally),
            bound(at_most, limits, error=breach_error, upper=False),
            bound(at_least, limits, error=pass_error, upper=True),
        ),
        passes=within >= 1,
        breaches=beyond >= 1,
        within=within,
        beyond=beyond,
    )


def log_evidence(
    guardrail: Guardrail, counts: ArrayLike, limit: ArrayLike, *, above: bool
) -> Floats:
    """Logarithm of the e-process against 'beyond the limit' (`above`), or against 'within it'.

    Args:
        guardrail: whose comparison it is; its own limits are not used.
        counts: as `counts_of` has them, (..., 8).
        limit: what to hold the student against, (...).
        above: the hypothesis: at least the limit; if false, at most.
    """
    numbers = np.asarray(counts)
    if guardrail.comparison is Comparison.LIMIT:
        return log_e_share(numbers[..., 0], numbers[..., 1], limit, above=above)
    if guardrail.comparison is Comparison.TEACHER:
        arms = np.moveaxis(numbers[..., :4], -1, 0)
        return log_e_two_shares(*arms, factor=guardrail.factor, margin=limit, above=above)
    return log_e_mean(numbers[..., 4:], pair_values(guardrail.factor), limit, above=above)


def counts_of(tally: Tally) -> NDArray[np.int64]:
    """All counts of a tally in the order of its fields, (8,)."""
    return np.array([getattr(tally, one.name) for one in fields(Tally)])


def pair_values(factor: float) -> tuple[float, float, float, float]:
    """Student's less factor x teacher's bad answers to one request, in the order of the pairs."""
    return 0.0, 1.0, -factor, 1.0 - factor


def check_guardrails(guardrails: Sequence[Guardrail], *, mirrored: bool) -> None:
    """Refuse guardrails that are no limits, or that contradict each other.

    Args:
        guardrails: of one rollout.
        mirrored: whether some requests go to both models.

    Raises:
        UsageError: with every problem.
    """
    problems = [
        *(problem for one in guardrails for problem in _own_problems(one, mirrored=mirrored)),
        *_contradictions(guardrails),
    ]
    if not guardrails:
        problems.append("there is no guardrail: nothing would ever stop a bad student")
    if problems:
        raise UsageError(
            "the guardrails cannot be kept to:\n" + "\n".join(f"  - {one}" for one in problems),
            next_step="change or take out one of those that are named",
        )


def _evidence(evidence: Callable[[Floats], Floats], limit: float, error: float) -> float:
    """Over what suffices; at most `_MOST_EVIDENCE` either way, as JSON has no infinity."""
    share = float(evidence(np.asarray(limit))) / -np.log(error)
    return float(np.clip(share, -_MOST_EVIDENCE, _MOST_EVIDENCE))


def _value(guardrail: Guardrail, tally: Tally) -> float:
    if guardrail.comparison is Comparison.PAIRED:
        worth = np.asarray(pair_values(guardrail.factor))
        return float(np.average(worth, weights=tally.pairs))
    share = tally.student_bad / tally.student_total
    if guardrail.comparison is Comparison.LIMIT:
        return share
    return share - guardrail.factor * tally.teacher_bad / tally.teacher_total


def _own_problems(one: Guardrail, *, mirrored: bool) -> Iterator[str]:
    low, high = one.limits
    if not one.factor > 0:
        yield f"'{one.name}': a factor of {asked(one.factor)} of the teacher's share is none"
    elif not (low < one.limit < high and low < one.alarm < high):
        yield (
            f"'{one.name}': a limit of {asked(one.limit)} is always kept or never; it must lie "
            f"between {asked(low)} and {asked(high)}"
        )
    if one.alarm < one.limit:
        yield (
            f"'{one.name}': it would promote up to {asked(one.limit)} and roll back from "
            f"{asked(one.alarm)} on, so between them both"
        )
    if one.outcome is BadOutcome.SLOW and not (one.bound_ms and one.bound_ms > 0):
        yield f"'{one.name}': a request is slow beyond some milliseconds, and none are given"
    if one.outcome is BadOutcome.DISAGREES and one.comparison is not Comparison.LIMIT:
        yield f"'{one.name}': the teacher always agrees with itself; give a limit alone"
    if one.needs_pairs and not mirrored:
        yield (
            f"'{one.name}': it compares two answers to one request, and no request goes to both "
            "models (the modes mirror and shadow do that)"
        )


def _contradictions(guardrails: Sequence[Guardrail]) -> Iterator[str]:
    names = [one.name for one in guardrails]
    for name in sorted({one for one in names if names.count(one) > 1}):
        yield f"'{name}' is the name of {names.count(name)} guardrails"
    for place, one in enumerate(guardrails):
        for other in guardrails[place + 1 :]:
            if one.outcome is not BadOutcome.OWN and _same_question(one, other):
                yield (
                    f"'{one.name}' ({asked(one.limit)}) and '{other.name}' ({asked(other.limit)}) "
                    "are two limits of the same"
                )
    for one in guardrails:
        for other in guardrails:
            if _asks_too_much(one, other):
                yield (
                    f"'{one.name}' wants {asked(-one.limit)} fewer wrong answers per request than "
                    f"the teacher's, and '{other.name}' lets only {asked(other.limit)} of them "
                    "differ"
                )


def _same_question(one: Guardrail, other: Guardrail) -> bool:
    return (one.outcome, one.comparison, one.factor, one.bound_ms) == (
        other.outcome,
        other.comparison,
        other.factor,
        other.bound_ms,
    )


def _asks_too_much(one: Guardrail, other: Guardrail) -> bool:
    """Better than the teacher by more than it may differ from the teacher."""
    return (
        one.outcome is BadOutcome.WRONG
        and one.comparison is not Comparison.LIMIT
        and one.factor == 1
        and other.outcome is BadOutcome.DISAGREES
        and other.comparison is Comparison.LIMIT
        and -one.limit > other.limit
    )
