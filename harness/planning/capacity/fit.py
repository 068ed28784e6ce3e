"""A capacity model fitted to the trials of one variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.errors import UsageError
from harness.planning.capacity.checks import TrialReplay, trials_to_check
from harness.planning.capacity.draws import ArrivalSource, Draw
from harness.planning.capacity.model import CapacityModel
from harness.planning.capacity.service import (
    ClientTime,
    fit_client,
    fit_service,
    fit_spread,
    observations_of,
)
from harness.planning.capacity.variation import SpreadChoice, choose_spread
from harness.types import ServingConfig, TrialResult, WireProtocol

DRAWS = 16
_TURNAROUNDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
"""Tried as an instance's time between two executions, in shares of an execution of one row."""


def fit_capacity(
    trials: Sequence[TrialResult],
    *,
    arrivals: ArrivalSource,
    serving: ServingConfig | None = None,
    protocol: WireProtocol | None = None,
    queue_limit: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> CapacityModel:
    """Fit the model of one variant to its trials; invalid ones and those of caches are left out.

    Trials in other serving configurations tell of execution times too, if one execution has the
    same threads and the same kind of instance in them.

    Args:
        trials: of one variant, in any configurations and over any protocols.
        arrivals: where simulated arrivals come from.
        serving: the configuration to predict; None: that of the trial with most inferences/s.
        protocol: None: that of the same trial.
        queue_limit: requests that may wait in a replica; None: any number, as the harness serves.
        confidence: of every interval, between 0 and 1.
        seed: of everything that is drawn.

    Raises:
        UsageError: no valid trial tells of execution times.
    """
    best, alike, own = _trials_of(trials, serving)
    protocol = protocol or best.trial.workload.protocol
    spread, clients = fit_spread(alike), fit_client(alike)
    client = clients.get(protocol) or next(iter(clients.values()), ClientTime(0.0, 0.0))
    replay, checked = TrialReplay(arrivals, seed), trials_to_check(own, alike)
    guess = Draw(fit_service(observations_of(alike)), 1.0, client, 0.0, spread)
    guess = _with_turnaround(guess, checked, replay)
    choice = choose_spread(guess, spread, checked, replay)
    guess = replace(guess, spread=choice.best())
    checks = {one.trial.trial_id: replay.check(one, guess) for one in checked}
    return CapacityModel(
        variant=best.trial.variant,
        serving=own[0].trial.serving,
        protocol=protocol,
        best_guess=guess,
        draws=_draws(alike, guess, choice, protocol, seed),
        highest_measured_inferences_per_s=max(one.throughput_inferences_per_s for one in own),
        confidence=confidence,
        seed=seed,
        arrivals=arrivals,
        queue_limit=queue_limit,
        limits=_limits(guess, alike, clients, protocol),
        checks={trial_id: check for trial_id, check in checks.items() if check},
    )


def is_usable(result: TrialResult) -> bool:
    """Whether a trial tells how long executions take: valid, from the model and not a cache."""
    computed = bool(result.server.batch_compute_ms) or bool(result.server.compute_ms)
    whole = not result.server.parts and not result.server.cache_hits
    return bool(
        result.valid
        and computed
        and whole
        and result.server.executions
        and result.throughput_inferences_per_s > 0
        and result.trial.serving.max_batch_size > 0
    )


def _trials_of(
    trials: Sequence[TrialResult], serving: ServingConfig | None
) -> tuple[TrialResult, list[TrialResult], list[TrialResult]]:
    """The fastest usable trial; those that execute as the configuration does; those in it."""
    usable = [one for one in trials if is_usable(one)]
    if not usable:
        raise UsageError(
            "no valid trial tells how long executions take (Triton's statistics of the model)",
            next_step="measure: harness load STUDY --variant NAME --concurrency 8 --out FOLDER",
        )
    best = max(usable, key=lambda one: one.throughput_inferences_per_s)
    serving = serving or best.trial.serving
    alike = [one for one in usable if _executes_alike(one.trial.serving, serving)]
    own = [one for one in alike if one.trial.serving == serving]
    if not own:
        raise UsageError(
            f"no valid trial of {best.trial.variant} in {serving.label}",
            next_step=f"plan for one that was measured: {best.trial.serving.label}",
        )
    return best, alike, own


def _executes_alike(one: ServingConfig, other: ServingConfig) -> bool:
    same = ("instance_kind", "intra_op_threads", "accelerator")
    return all(getattr(one, name) == getattr(other, name) for name in same)


def _with_turnaround(guess: Draw, trials: Sequence[TrialResult], replay: TrialReplay) -> Draw:
    """The guess with the turnaround that explains the trials' mean latencies best.

    None, unless one leaves at most half of what stays unexplained without.
    """
    waiting = [one for one in trials if one.server.queue_ms][:4]
    if not waiting:
        return guess
    alone_ms = guess.curve.table_ms(1)[0]
    losses = []
    for share in _TURNAROUNDS:
        candidate = replace(guess, turnaround_ms=share * alone_ms)
        checks = [replay.check(one, candidate, 500) for one in waiting]
        losses.append(sum(np.log(c["mean"][0] / c["mean"][1]) ** 2 for c in checks if c))
    best = int(np.argmin(losses))
    if losses[best] > losses[0] / 2:
        return guess
    return replace(guess, turnaround_ms=_TURNAROUNDS[best] * alone_ms)


def _draws(
    trials: Sequence[TrialResult],
    guess: Draw,
    choice: SpreadChoice,
    protocol: WireProtocol,
    seed: int,
) -> tuple[Draw, ...]:
    generator = np.random.default_rng([seed, 7])
    observations = observations_of(trials)
    draws = []
    for _ in range(DRAWS):
        weights = generator.standard_exponential(len(trials)) + 1e-3
        drawn = [
            trials[one]
            for one in generator.choice(len(trials), len(trials), p=weights / weights.sum())
        ]
        client = fit_client(drawn).get(protocol, guess.client)
        curve = replace(fit_service(observations, weights), sharing=guess.curve.sharing)
        level = float(np.exp(generator.normal(0.0, guess.curve.trial_spread)))
        weight_of = {
            one.trial.trial_id: weight for one, weight in zip(trials, weights, strict=True)
        }
        own = np.array([weight_of[name] for name in choice.trials])
        draws.append(Draw(curve, level, client, guess.turnaround_ms, choice.best(own)))
    return tuple(draws)


def _limits(
    guess: Draw,
    trials: Sequence[TrialResult],
    clients: Mapping[WireProtocol, ClientTime],
    protocol: WireProtocol,
) -> tuple[str, ...]:
    """What no trial shows, so that a stated assumption stands in for it."""
    found = []
    if not guess.spread.known:
        found.append("the spread of single executions is assumed: no trial shows it")
    if not any(one.server.batch_compute_ms for one in trials):
        found.append("execution times by size are inferred from means per request")
    if protocol not in clients:
        found.append(f"the client's time over {protocol} was not measured")
    return tuple(found)
