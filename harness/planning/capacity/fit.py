"""A capacity model fitted to the trials of one variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.errors import UsageError
from harness.planning.capacity.checks import TrialReplay, trials_to_check
from harness.planning.capacity.discrepancy import discrepancies
from harness.planning.capacity.draws import REQUESTS, ArrivalSource, Draw, saturation_per_s
from harness.planning.capacity.model import CapacityModel
from harness.planning.capacity.service import (
    ClientTime,
    fit_client,
    fit_service,
    fit_spread,
    observations_of,
)
from harness.planning.capacity.turnaround import turnaround_ms
from harness.planning.capacity.variation import VariationChoice, choose_variation
from harness.types import LoadMode, ServingConfig, TrialResult, WireProtocol

DRAWS = 16
FOLLOWED, MOST_FOLLOWED = 6000, 24_000
"""Requests of an open loop as the best guess has it, at least and at most: what the model misses of
it is followed, so chance is to add little."""
_FOLLOWED_S = 10.0


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
    guess = replace(guess, turnaround_ms=turnaround_ms(guess, own, seed))
    choice = choose_variation(guess, spread, checked, replay)
    guess = choice.best().of(guess)
    opens = [one for one in checked if one.trial.workload.load_mode is LoadMode.OPEN]
    checks = {
        one.trial.trial_id: replay.check(one, guess, _followed(one) if one in opens else REQUESTS)
        for one in checked
    }
    return CapacityModel(
        variant=best.trial.variant,
        serving=own[0].trial.serving,
        protocol=protocol,
        best_guess=guess,
        draws=_draws(alike, guess, choice, protocol, seed),
        measured_per_s=tuple(
            (one.throughput_requests_per_s, one.throughput_inferences_per_s) for one in own
        ),
        confidence=confidence,
        seed=seed,
        arrivals=arrivals,
        queue_limit=queue_limit,
        limits=_limits(guess, alike, clients, protocol),
        checks={trial_id: check for trial_id, check in checks.items() if check},
        discrepancy=discrepancies(
            [(_share(one, guess), checks[one.trial.trial_id]) for one in opens]
        ),
    )


def _followed(result: TrialResult) -> int:
    """Requests of an open loop that are simulated: some seconds' worth, stalls and all."""
    asked = _FOLLOWED_S * result.throughput_requests_per_s
    return round(min(MOST_FOLLOWED, max(FOLLOWED, asked)))


def _share(result: TrialResult, guess: Draw) -> float:
    """The load of an open loop as a share of saturation."""
    workload = result.trial.workload
    rate = result.offered_requests_per_s or workload.rate_per_s or 0.0
    mix = ((workload.client_batch_size, 1.0),)
    return rate / saturation_per_s(guess.replica(result.trial.serving), mix)


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
        and is_batched(result)
    )


def is_batched(result: TrialResult) -> bool:
    """Whether the model was served with a maximum batch, which a replica's batches go up to."""
    return result.trial.serving.max_batch_size > 0


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


def _draws(
    trials: Sequence[TrialResult],
    guess: Draw,
    choice: VariationChoice,
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
        drawn_so = replace(guess, curve=curve, scale=level, client=client)
        draws.append(choice.best(own).of(drawn_so))
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
