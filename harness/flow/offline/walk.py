"""Trials at growing batch sizes, each size beside its double, from the journal or measured.

What was measured before is found by the trials' names, so that a walk which was cut short goes on,
and a stored one is read again without a server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping

from harness.planning.offline.curve import rate_of
from harness.profiling.scaling import WalkTerms, find_knee
from harness.types import BATCHES, STEADIER_REPEAT, Trial, TrialResult
from harness.types.estimates import Interval
from harness.types.offline import BatchCurve, BatchPoint, CurveSource
from harness.types.profiles import ScalingStep

SERVED = WalkTerms(looks=(3, 6), largest_batch=256, longest_call_s=0.5)
"""Rounds through a server take seconds each."""
WINDOW_S = 2.0
"""Shortest window of a trial."""
LEAST_REQUESTS = 20
"""Requests that a window should hold: one more or less at its edge is then 5%."""
MOST_SPOILED = 3
"""Pairs one after another with an invalid trial, after which something is wrong that stays."""
CUT_SHORT = "the walk was cut short: --measure goes on with it"
_REPEATS = 2 * STEADIER_REPEAT

Take = Callable[[Trial], TrialResult | None]
"""Gives a trial's result; None where it is not stored and nothing is to be measured."""


class NotMeasuredError(Exception):
    """The walk cannot go on, and why."""


class BatchWalk:
    """The pairs of trials that a walk asks for.

    Args:
        base: a closed-loop trial of the variant; its batch sizes and stage are replaced.
        take: gives results.
        known: names of the trials that were stored before; an invalid one of these does not end
            the walk, for the machine may be quiet now.
    """

    def __init__(self, base: Trial, take: Take, known: Container[str] = ()) -> None:
        self._base = base
        self._take = take
        self._known = known
        self._rounds: dict[int, int] = {}
        self.found: dict[int, list[TrialResult]] = {}
        """Valid results by batch size."""

    def rates(self, smaller: int, larger: int) -> tuple[float, float]:
        """Inferences per second of a batch size and its double, measured one after the other.

        Raises:
            NotMeasuredError: a trial is not there, or pair after pair is invalid.
        """
        why, spoiled_pairs = CUT_SHORT, 0
        while spoiled_pairs < MOST_SPOILED:
            number = self._rounds[larger] = self._rounds.get(larger, -1) + 1
            pair = (
                self.trial(smaller, larger, 2 * number + 1),
                self.trial(larger, larger, 2 * number),
            )
            results: list[TrialResult] = []
            for trial in pair:
                found = self._take(trial)
                if found is None:
                    raise NotMeasuredError(why)
                results.append(found)
            spoiled = [one for one in results if not _counts(one)]
            for one in results:
                if _counts(one):
                    self.found.setdefault(one.trial.workload.client_batch_size, []).append(one)
            if not spoiled:
                first, second = (one.throughput_inferences_per_s for one in results)
                return first, second
            size = spoiled[0].trial.workload.client_batch_size
            reason = spoiled[0].invalid_reason or "nothing was answered"
            why = f"trials at batch {size} are invalid: {reason}"
            spoiled_pairs += any(trial.trial_id not in self._known for trial in pair)
        raise NotMeasuredError(why)

    def trial(self, batch: int, larger: int, number: int) -> Trial:
        """The trial of a batch size in a step up to `larger`, by its number among repetitions."""
        base = self._base
        serving = dataclasses.replace(base.serving, max_batch_size=batch, response_cache=False)
        workload = dataclasses.replace(
            base.workload,
            client_batch_size=batch,
            batch_mix=(),
            cached_answers=False,
            concurrency=2 * max(1, serving.instance_count),
            duration_s=max(WINDOW_S, LEAST_REQUESTS * larger / self._known_per_s(batch, larger)),
            min_duration_s=None,
        )
        return dataclasses.replace(
            base, serving=serving, workload=workload, stage=BATCHES, repeat=number * _REPEATS
        )

    def _known_per_s(self, batch: int, larger: int) -> float:
        """The rate that a step begins with; of the first step none is known."""
        known = self.found.get(batch) or self.found.get(larger // 2)
        return known[0].throughput_inferences_per_s if known else float(LEAST_REQUESTS * larger)


def _counts(result: TrialResult) -> bool:
    return result.valid and result.throughput_inferences_per_s > 0


def walk_up(
    base: Trial,
    take: Take,
    least_growth: float,
    told: Callable[[int], None] = lambda _: None,
    known: Container[str] = (),
) -> BatchCurve | None:
    """Throughput over batch sizes through the server; None where nothing is known at all.

    Args:
        base: a closed-loop trial of the variant.
        take: gives results.
        least_growth: what a doubling has to bring.
        told: of each batch size that the walk comes to.
        known: names of the trials that were stored before.

    Raises:
        ServerError: the server died, where trials are measured.
    """
    walked = BatchWalk(base, take, known)
    growths: Mapping[int, Interval] = {}
    knee: int | None = None
    try:
        steps, knee, ended = find_knee(walked.rates, least_growth, told, SERVED)
        growths = growths_of(steps)
    except NotMeasuredError as error:
        ended = str(error)
    points = [
        BatchPoint(size, rate, growths.get(size), len(results))
        for size, results in sorted(walked.found.items())
        if (rate := rate_of(results)) is not None
    ]
    if not points:
        return None
    return BatchCurve(CurveSource.WALK, tuple(points), least_growth, knee, ended)


def growths_of(steps: tuple[ScalingStep, ...]) -> dict[int, Interval]:
    """By batch size, the gain from doubling it, from the walk's own paired rounds."""
    return {
        one.batch_size: Interval(one.growth, one.growth_low, one.growth_high)
        for one in steps
        if one.growth is not None and one.growth_low is not None and one.growth_high is not None
    }
