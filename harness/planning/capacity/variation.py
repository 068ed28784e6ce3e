"""How single executions vary, chosen by what the trials' latencies look like.

A trial with one request in flight shows it directly, but its second may have been a quiet or a
disturbed one. So several spreads are tried, that trial's own among them: narrow and wide ones, with
and without executions that were held up (a core that was busy, a collection of garbage). Each is
simulated under the loads of some trials, and the one whose latencies have the trials' *shape*
(quantiles over their mean) is taken. Every draw of the fit chooses anew, by its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from harness.planning.capacity.checks import TrialReplay
from harness.planning.capacity.draws import Draw, Floats
from harness.planning.capacity.service import Spread, normal_quantiles, unit_mean
from harness.types import TrialResult

_WIDTHS = (0.05, 0.15, 0.3)
_HELD_UP = (
    (1.0, 1.0, 1.0),
    (1.0, 1.4, 3.0),
    (1.0, 4.0, 6.0),
    (1.2, 2.5, 8.0),
    (1.4, 6.0, 10.0),
)
"""How much longer the executions at the shares 0.95, 0.99 and 1 take."""
_SHAPE = {"p50": 1.0, "p90": 1.0, "p95": 1.0, "p99": 0.5}
"""Statistics whose ratio to the mean is compared, and how much each counts."""
_TRIALS, _REQUESTS = 4, 500


@dataclass(frozen=True)
class SpreadChoice:
    """Spreads, and how far each is from every trial."""

    spreads: tuple[Spread, ...]
    trials: tuple[str, ...]
    """Their names."""
    losses: Floats
    """Mean absolute deviation of the logarithms, shape (spreads, trials), so that a trial which was
    disturbed counts no more than it is off."""

    def best(self, weights: Floats | None = None) -> Spread:
        """The one that is closest over all trials; each counts as its weight says."""
        if not self.trials:
            return self.spreads[0]
        weighted = self.losses @ (np.ones(len(self.trials)) if weights is None else weights)
        return self.spreads[int(np.argmin(weighted))]


def choose_spread(
    guess: Draw, observed: Spread, trials: Sequence[TrialResult], replay: TrialReplay
) -> SpreadChoice:
    """Hold every spread against the trials.

    Args:
        guess: what is known of the executions otherwise.
        observed: of the trials with one request in flight, or the assumed one.
        trials: in order of their weight; the first few that can be simulated are.
        replay: simulates a trial's load.
    """
    spreads = (observed, *_tried())
    names: list[str] = []
    losses: list[list[float]] = []
    for trial in trials:
        if len(names) == _TRIALS:
            break
        found = [_loss(replay, trial, replace(guess, spread=one)) for one in spreads]
        own = [one for one in found if one is not None]
        if len(own) == len(spreads):
            names.append(trial.trial.trial_id)
            losses.append(own)
    return SpreadChoice(spreads, tuple(names), np.array(losses).T)


def _tried() -> list[Spread]:
    found = []
    for width, (at95, at99, last) in product(_WIDTHS, _HELD_UP):
        values = normal_quantiles(width) * np.array([1.0, 1.0, 1.0, at95, at99, last])
        found.append(Spread(unit_mean(values), known=True))
    return found


def _loss(replay: TrialReplay, trial: TrialResult, draw: Draw) -> float | None:
    """None where the trial cannot be simulated."""
    check = replay.check(trial, draw, _REQUESTS)
    if "mean" not in check or not all(name in check for name in _SHAPE):
        return None
    measured, simulated = check["mean"]
    apart = [np.log(check[name][0] / measured * simulated / check[name][1]) for name in _SHAPE]
    return float(np.average(np.abs(apart), weights=list(_SHAPE.values())))
