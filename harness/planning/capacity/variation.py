"""How executions vary and a machine stalls, chosen by what the trials' latencies look like.

A trial with one request in flight shows the spread of executions directly, but its second may have
been a quiet or a disturbed one. So several spreads are tried, that trial's own among them: narrow
and wide ones, with and without executions that were held up (a collection of garbage). Where open
loops were measured, stalls of the whole machine are tried beside them. Each is simulated under the
loads of some trials, and the one whose latencies have the trials' *shape* (quantiles over their
mean) is taken. Every draw of the fit chooses anew, by its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from harness.planning.capacity.checks import TrialReplay
from harness.planning.capacity.draws import Draw, Floats
from harness.planning.capacity.service import Spread, normal_quantiles, unit_mean
from harness.planning.capacity.stalls import NO_STALLS, Stalls
from harness.types import LoadMode, TrialResult

_WIDTHS = (0.05, 0.15, 0.3)
_HELD_UP = (
    (1.0, 1.0, 1.0),
    (1.0, 1.4, 3.0),
    (1.0, 4.0, 6.0),
    (1.2, 2.5, 8.0),
    (1.4, 6.0, 10.0),
)
"""How much longer the executions at the quantiles 0.95, 0.99 and 1 take."""
_MILD = 2
"""So many of them are tried beside stalls: an execution in a hundred that takes ten times as long
looks like a stall, but then every loaded loop, open or closed, would have its queue full of it."""
_STALL_WIDTHS = (0.15, 0.3)
"""Widths of the executions beside which stalls are tried: what is held up there is the stalls'."""
_STALLS_PER_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_STALL_S = (0.01, 0.02, 0.04, 0.08)
_MOST_STALLED = 0.15
"""Most of the time that stalls may take: a machine that stands still longer is no place to
measure."""
_SHAPE = {"p50": 1.0, "p90": 1.0, "p95": 1.0, "p99": 0.5}
"""Statistics whose ratio to the mean is compared, and how much each counts."""
_TRIALS, _REQUESTS = 4, 500
_OPEN_S, _MOST_REQUESTS = 4.0, 5000
"""An open loop is simulated for so long, so that it meets stalls; and at most so many requests."""


@dataclass(frozen=True)
class Variation:
    """What makes one request slower than the next, beside the queue."""

    spread: Spread
    stalls: Stalls = NO_STALLS

    def of(self, draw: Draw) -> Draw:
        """The draw with this variation."""
        return replace(draw, spread=self.spread, stalls=self.stalls)


@dataclass(frozen=True)
class VariationChoice:
    """Variations, and how far each is from every trial."""

    variations: tuple[Variation, ...]
    trials: tuple[str, ...]
    """Names of the trials that it rests on."""
    losses: Floats
    """Mean absolute deviation of the logarithms, shape (variations, trials), so that a trial which
    was disturbed counts no more than it is off."""

    def best(self, weights: Floats | None = None) -> Variation:
        """The one that is closest over all trials; each counts as its weight says."""
        if not self.trials:
            return self.variations[0]
        weighted = self.losses @ (np.ones(len(self.trials)) if weights is None else weights)
        return self.variations[int(np.argmin(weighted))]


def choose_variation(
    guess: Draw, observed: Spread, trials: Sequence[TrialResult], replay: TrialReplay
) -> VariationChoice:
    """Hold every variation against the trials: the open loops, or all where there is none.

    Args:
        guess: what is known of the executions otherwise.
        observed: of the trials with one request in flight, or the assumed one.
        trials: in order of their weight; the first few that can be simulated are.
        replay: simulates a trial's load.
    """
    opens = [one for one in trials if one.trial.workload.load_mode is LoadMode.OPEN]
    held_up = _HELD_UP[:_MILD] if opens else _HELD_UP
    variations = [Variation(one) for one in (observed, *_spreads(held_up))]
    if opens:
        variations += _stalling()
    names: list[str] = []
    losses: list[list[float]] = []
    for trial in opens or trials:
        if len(names) == _TRIALS:
            break
        found = [_loss(replay, trial, one.of(guess)) for one in variations]
        own = [one for one in found if one is not None]
        if len(own) == len(variations):
            names.append(trial.trial.trial_id)
            losses.append(own)
    return VariationChoice(tuple(variations), tuple(names), np.array(losses).T)


def _spreads(held_up: Sequence[tuple[float, float, float]]) -> list[Spread]:
    found = []
    for width, (at95, at99, last) in product(_WIDTHS, held_up):
        values = normal_quantiles(width) * np.array([1.0, 1.0, 1.0, at95, at99, last])
        found.append(Spread(unit_mean(values), known=True))
    return found


def _stalling() -> list[Variation]:
    return [
        Variation(Spread(unit_mean(normal_quantiles(width)), known=True), Stalls(per_s, mean_s))
        for width, per_s, mean_s in product(_STALL_WIDTHS, _STALLS_PER_S, _STALL_S)
        if per_s * mean_s <= _MOST_STALLED
    ]


def _loss(replay: TrialReplay, trial: TrialResult, draw: Draw) -> float | None:
    """How badly the parameters fit one trial; None where the trial cannot be simulated."""
    check = replay.check(trial, draw, _requests_of(trial))
    if "mean" not in check or not all(name in check for name in _SHAPE):
        return None
    measured, simulated = check["mean"]
    apart = [np.log(check[name][0] / measured * simulated / check[name][1]) for name in _SHAPE]
    return float(np.average(np.abs(apart), weights=list(_SHAPE.values())))


def _requests_of(trial: TrialResult) -> int:
    if trial.trial.workload.load_mode is LoadMode.CLOSED:
        return _REQUESTS
    return int(np.clip(_OPEN_S * trial.throughput_requests_per_s, _REQUESTS, _MOST_REQUESTS))
