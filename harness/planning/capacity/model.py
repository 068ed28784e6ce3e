"""What a replica would do at a load that was not measured, and how sure that is.

Every prediction is simulated several times. Each time takes another draw of the fit (its trials
weighted at random, Rubin's Bayesian bootstrap of 1981; and a level of its own, as another trial
would have) and other arrivals over a window of its own, so the scatter between them holds the fit's
error and the simulation's. What the model misses of the trials that it was fitted to is added: each
of them is simulated as it was measured, and the deviation is published (`CapacityModel.error`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.errors import UsageError
from harness.hdr import UNBOUNDED_MS
from harness.planning.capacity.replica import (
    Replica,
    ReplicaRun,
    simulate_arrivals,
    simulate_clients,
)
from harness.planning.capacity.service import (
    ClientTime,
    ServiceCurve,
    Spread,
    fit_client,
    fit_service,
    fit_spread,
    observations_of,
)
from harness.types import (
    RESPONSE,
    ArrivalKind,
    ArrivalProcess,
    LoadMode,
    ServingConfig,
    ShapeKind,
    TrialResult,
    WireProtocol,
)
from harness.types.capacity import Prediction
from harness.types.estimates import Demand, Interval

Floats = NDArray[np.float64]

STATISTICS: Mapping[str, float | None] = {
    "mean": None,
    "p50": 0.5,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
}
"""What is predicted of latency, with its quantile; None: the mean."""
DRAWS = 16
REQUESTS = 1500
"""Requests of each draw, by default; as many as a trial of a second or two has."""
WARM_UP = 0.1
"""Share of the simulated requests that is cut: the replica starts empty."""
NEAR_SATURATION = 0.995
"""Share of saturation from which on a queue has no steady state worth the name."""
UNKNOWN_ERROR = 0.15
"""Relative error of the model where no trial could be simulated as it was measured."""
_MOST_CHECKED = 8
_MOST_THINNED = 50
_TURNAROUNDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)


class ArrivalSource(Protocol):
    """Where arrivals come from: `harness.load.schedule.arrivals.arrival_times_ns`."""

    def __call__(
        self, process: ArrivalProcess, *, rate_per_s: float | None, seed: int
    ) -> Iterator[NDArray[np.int64]]:
        """Times in ascending chunks of nanoseconds."""


@dataclass(frozen=True)
class Draw:
    """One way in which the truth may be, given the trials."""

    curve: ServiceCurve
    scale: float
    """Level of a trial of its own; 1 in the best guess."""
    client: ClientTime
    turnaround_ms: float
    """What an instance is occupied with after an execution, before it takes the next batch."""

    def replica(self, serving: ServingConfig) -> Replica:
        """The replica that this draw makes of a serving configuration."""
        table = self.curve.table_ms(max(1, serving.max_batch_size))
        return Replica(
            batch_s=tuple(one * self.scale / 1e3 for one in table),
            turnaround_s=self.turnaround_ms / 1e3,
            instances=max(1, serving.instance_count),
            queue_delay_s=serving.queue_delay_us / 1e6,
            sharing=self.curve.sharing,
        )


@dataclass(frozen=True)
class CapacityModel:
    """One variant in one serving configuration, over one protocol."""

    variant: str
    serving: ServingConfig
    protocol: WireProtocol
    best_guess: Draw
    draws: tuple[Draw, ...]
    spread: Spread
    highest_measured_inferences_per_s: float
    """Of one replica, in any valid trial of the variant in this configuration."""
    confidence: float
    seed: int
    arrivals: ArrivalSource
    queue_limit: int | None = None
    """Requests that may wait in a replica (`max_queue_size`); None: any number."""
    limits: tuple[str, ...] = ()
    """What the trials do not show, in words."""
    checks: Mapping[str, Mapping[str, tuple[float, float]]] | None = None
    """By trial and statistic, what was measured and what the model says of that trial, in ms."""

    @cached_property
    def error(self) -> Mapping[str, float]:
        """By statistic, the median of |predicted / measured - 1| over the simulated trials."""
        found: dict[str, list[float]] = {}
        for check in (self.checks or {}).values():
            for name, (measured, predicted) in check.items():
                found.setdefault(name, []).append(abs(predicted / measured - 1))
        return {name: float(np.median(values)) for name, values in found.items()}

    @cached_property
    def _misfit(self) -> Mapping[str, float]:
        """By statistic, the deviation of the logarithm that the trials' own scatter leaves."""
        found = {}
        for name in STATISTICS:
            logs = [
                float(np.log(check[name][0] / check[name][1]))
                for check in (self.checks or {}).values()
                if name in check
            ]
            square = UNKNOWN_ERROR**2
            if logs:
                square = float(np.mean(np.square(logs))) * (len(logs) + 1) / len(logs)
            own = self.best_guess.curve.trial_spread**2
            found[name] = float(np.sqrt(max(0.0, square - own)))
        return found

    def predict(self, demand: Demand, *, replicas: int = 1, requests: int = REQUESTS) -> Prediction:
        """What equal replicas show when the demand's peak is spread over them at random.

        Args:
            demand: its peak rate, how requests arrive, and their rows.
            replicas: how many there are, at least 1.
            requests: simulated for each of the model's draws.

        Raises:
            UsageError: a changing rate or a trace; a request larger than the largest batch.
        """
        _check(demand, self.serving, replicas)
        outcomes = [
            self._simulate(draw, demand, replicas, number, requests)
            for number, draw in enumerate(self.draws)
        ]
        latency = {
            name: self._interval([one.latency_ms[name] for one in outcomes], self._misfit[name])
            for name in STATISTICS
        }
        beyond, outside = self._outside(demand, replicas, [one.batch_mean for one in outcomes])
        sizes = np.sum([one.sizes for one in outcomes], axis=0)
        rate, rows = demand.peak_rate_per_s, demand.rows_per_request
        reached = [one.served_per_s * replicas * rows for one in outcomes]
        return Prediction(
            rate_per_s=rate,
            replicas=replicas,
            latency_ms=latency,
            throughput_inferences_per_s=self._interval(reached, 0.0),
            batch_mean=self._interval([one.batch_mean for one in outcomes], 0.0),
            batch_sizes={
                size + 1: float(count / sizes.sum()) for size, count in enumerate(sizes) if count
            },
            rejected_share=_share_interval(
                [one.rejected_share for one in outcomes], self.confidence
            ),
            utilization=self._interval([one.utilization for one in outcomes], 0.0, most=1.0),
            confidence=self.confidence,
            beyond_measured=beyond,
            outside=outside,
        )

    def saturation_per_s(self, demand: Demand) -> float:
        """Requests per second of one replica that never waits for work, by the best guess."""
        _check(demand, self.serving, 1)
        return _saturation(self.best_guess.replica(self.serving), demand)

    def curve(
        self, demand: Demand, shares: Sequence[float], *, requests: int = REQUESTS
    ) -> tuple[Prediction, ...]:
        """One replica at shares of its saturation, everything else as the demand has it."""
        most = self.saturation_per_s(demand)
        return tuple(
            self.predict(at_rate(demand, share * most), requests=requests) for share in shares
        )

    def _simulate(
        self, draw: Draw, demand: Demand, replicas: int, number: int, requests: int
    ) -> _Outcome:
        generator = np.random.default_rng([self.seed, number])
        replica, rate = draw.replica(self.serving), demand.peak_rate_per_s / replicas
        most = _saturation(replica, demand)
        replica = replace(replica, queue_limit=self.queue_limit)
        arrivals = self._arrivals(demand, replicas, number, requests, generator)
        rows = _rows(demand.batch_mix, len(arrivals), generator)
        noise = self.spread.draw(generator, len(arrivals))
        run = simulate_arrivals(replica, arrivals, rows, noise)
        latency_ms = 1e3 * (run.completed_s - arrivals) + _client_ms(draw.client, run, generator)
        kept = latency_ms[round(WARM_UP * len(latency_ms)) :]
        found = statistics_of(kept[~np.isnan(kept)])
        rejected = float(np.isnan(kept).mean())
        stable = self.queue_limit is not None or rate < NEAR_SATURATION * most
        if not stable:
            found = dict.fromkeys(found, UNBOUNDED_MS)
        span_s = max(float(np.nanmax(run.completed_s)), float(arrivals[-1]))
        return _Outcome(
            latency_ms=found,
            served_per_s=rate * (1 - rejected) if stable else most,
            rejected_share=rejected,
            batch_mean=float(run.executed_rows.mean()),
            sizes=np.bincount(run.executed_rows, minlength=replica.max_batch + 1)[1:],
            utilization=float(run.busy_s.sum()) / span_s / replica.instances,
        )

    def _arrivals(
        self,
        demand: Demand,
        replicas: int,
        number: int,
        requests: int,
        generator: np.random.Generator,
    ) -> Floats:
        """One replica's share of the demand, in seconds from 0, shape (requests,)."""
        rate = demand.peak_rate_per_s / replicas
        thinned = 1 if demand.arrivals.kind is ArrivalKind.POISSON else min(replicas, _MOST_THINNED)
        chunks: list[Floats] = []
        source = self.arrivals(
            demand.arrivals, rate_per_s=rate * thinned, seed=self.seed * 1000 + number
        )
        for times_ns in source:
            own = generator.random(len(times_ns)) * thinned < 1
            chunks.append(times_ns[own] / 1e9)
            if sum(map(len, chunks)) >= requests:
                break
        return np.concatenate(chunks)[:requests]

    def _interval(self, values: Sequence[float], misfit: float, most: float = np.inf) -> Interval:
        """The middle of the draws, and bounds by their scatter and the model's own error.

        Where some draws have no steady state there is no upper bound; where half have none there
        is no value either.
        """
        known = np.array([one for one in values if one < UNBOUNDED_MS])
        if not len(known):
            return Interval(UNBOUNDED_MS, UNBOUNDED_MS, UNBOUNDED_MS)
        logs = np.log(np.maximum(known, 1e-9))
        deviation = float(np.std(logs, ddof=1)) if len(logs) > 1 else 0.0
        quantile = float(stats.t.ppf((1 + self.confidence) / 2, max(1, len(self.draws) - 1)))
        half = quantile * float(np.hypot(deviation, misfit))
        middle = float(np.median(logs))
        lost = len(values) - len(known)
        value = UNBOUNDED_MS if 2 * lost >= len(values) else float(np.exp(middle))
        high = UNBOUNDED_MS if lost else min(most, float(np.exp(middle + half)))
        return Interval(min(most, value), float(np.exp(middle - half)), high)

    def _outside(
        self, demand: Demand, replicas: int, batch_means: Sequence[float]
    ) -> tuple[float, tuple[str, ...]]:
        """By how much the question leaves what was measured, and in words."""
        asked = demand.peak_rate_per_s / replicas * demand.rows_per_request
        beyond = max(0.0, asked / self.highest_measured_inferences_per_s - 1)
        words = list(self.limits)
        if beyond > 0:
            words.append(
                f"{asked:,.0f} inferences/s per replica, {beyond:.0%} above the highest that was "
                f"measured ({self.highest_measured_inferences_per_s:,.0f})"
            )
        largest = self.best_guess.curve.largest_rows
        executed = round(float(np.mean(batch_means)))
        needed = max(executed, *(rows for rows, _ in demand.batch_mix))
        if needed > largest:
            words.append(f"executions of {needed} rows, where the largest measured had {largest}")
        return beyond, tuple(words)


@dataclass(frozen=True)
class _Outcome:
    latency_ms: Mapping[str, float]
    served_per_s: float
    rejected_share: float
    batch_mean: float
    sizes: NDArray[np.int64]
    utilization: float


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
    usable = [one for one in trials if is_usable(one)]
    if not usable:
        raise UsageError(
            "no valid trial tells how long executions take (Triton's statistics of the model)",
            next_step="measure: harness load STUDY --variant NAME --concurrency 8 --out FOLDER",
        )
    best = max(usable, key=lambda one: one.throughput_inferences_per_s)
    serving, protocol = serving or best.trial.serving, protocol or best.trial.workload.protocol
    alike = [one for one in usable if _executes_alike(one.trial.serving, serving)]
    own = [one for one in alike if one.trial.serving == serving]
    if not own:
        raise UsageError(
            f"no valid trial of {best.trial.variant} in {serving.label}",
            next_step=f"plan for one that was measured: {best.trial.serving.label}",
        )
    spread, clients = fit_spread(alike), fit_client(alike)
    client = clients.get(protocol) or next(iter(clients.values()), ClientTime(0.0, 0.0))
    guess = Draw(fit_service(observations_of(alike)), 1.0, client, 0.0)
    checked = _checked(own, alike)
    guess = _with_turnaround(guess, checked, spread, arrivals, seed)
    return CapacityModel(
        variant=best.trial.variant,
        serving=serving,
        protocol=protocol,
        best_guess=guess,
        draws=_draws(alike, guess, protocol, seed),
        spread=spread,
        highest_measured_inferences_per_s=max(one.throughput_inferences_per_s for one in own),
        confidence=confidence,
        seed=seed,
        arrivals=arrivals,
        queue_limit=queue_limit,
        limits=_limits(spread, alike, clients, protocol),
        checks={
            one.trial.trial_id: check
            for one in checked
            if (check := _check_of(one, guess, spread, arrivals, seed))
        },
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


def _executes_alike(one: ServingConfig, other: ServingConfig) -> bool:
    same = ("instance_kind", "intra_op_threads", "accelerator")
    return all(getattr(one, name) == getattr(other, name) for name in same)


def _draws(
    trials: Sequence[TrialResult], guess: Draw, protocol: WireProtocol, seed: int
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
        draws.append(Draw(curve, level, client, guess.turnaround_ms))
    return tuple(draws)


def _limits(
    spread: Spread,
    trials: Sequence[TrialResult],
    clients: Mapping[WireProtocol, ClientTime],
    protocol: WireProtocol,
) -> tuple[str, ...]:
    """What no trial shows, so that a stated assumption stands in for it."""
    found = []
    if not spread.known:
        found.append("the spread of single executions is assumed: no trial with 1 in flight")
    if not any(one.server.batch_compute_ms for one in trials):
        found.append("execution times by size are inferred from means per request")
    if protocol not in clients:
        found.append(f"the client's time over {protocol} was not measured")
    return tuple(found)


def _checked(own: Sequence[TrialResult], alike: Sequence[TrialResult]) -> list[TrialResult]:
    """Trials that the model is held against: the configuration's own first, busy ones first."""
    others = [one for one in alike if one not in own]
    ordered = [
        *sorted(own, key=lambda one: -one.throughput_inferences_per_s),
        *sorted(others, key=lambda one: -one.throughput_inferences_per_s),
    ]
    fit = [one for one in ordered if one.latency and not one.trial.workload.batch_mix]
    return fit[:_MOST_CHECKED]


def _with_turnaround(
    guess: Draw,
    trials: Sequence[TrialResult],
    spread: Spread,
    arrivals: ArrivalSource,
    seed: int,
) -> Draw:
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
        checks = [_check_of(one, candidate, spread, arrivals, seed, 500) for one in waiting]
        losses.append(sum(np.log(c["mean"][0] / c["mean"][1]) ** 2 for c in checks if c))
    best = int(np.argmin(losses))
    if losses[best] > losses[0] / 2:
        return guess
    return replace(guess, turnaround_ms=_TURNAROUNDS[best] * alone_ms)


def _check_of(
    result: TrialResult,
    draw: Draw,
    spread: Spread,
    arrivals: ArrivalSource,
    seed: int,
    requests: int = 1500,
) -> dict[str, tuple[float, float]]:
    """A trial simulated as it was measured: measured and predicted, by statistic, in ms."""
    workload, summary = result.trial.workload, result.latencies.get(RESPONSE)
    replica = draw.replica(result.trial.serving)
    generator = np.random.default_rng([seed, 11])
    if summary is None or workload.client_batch_size > replica.max_batch:
        return {}
    if workload.load_mode is LoadMode.CLOSED:
        run = simulate_clients(
            replica,
            workload.concurrency,
            workload.client_batch_size,
            requests=requests,
            client_s=(draw.client.own_ms / 1e3, draw.client.each_ms / 1e3),
            noise=spread.draw(generator, requests),
        )
        predicted = statistics_of(1e3 * run.latency_s[round(WARM_UP * requests) :])
    else:
        rate = result.offered_requests_per_s or workload.rate_per_s
        simple = (
            workload.arrivals.kind is not ArrivalKind.TRACE
            and workload.arrivals.shape.kind is ShapeKind.FLAT
        )
        demand = Demand(rate or 0.0, 1.0, workload.arrivals, ((workload.client_batch_size, 1.0),))
        if not rate or not simple or rate >= NEAR_SATURATION * _saturation(replica, demand):
            return {}
        chunks, count = [], 0
        for chunk in arrivals(workload.arrivals, rate_per_s=rate, seed=seed):
            chunks.append(chunk / 1e9)
            count += len(chunk)
            if count >= requests:
                break
        times = np.concatenate(chunks)[: 2 * requests]
        rows = np.full(len(times), workload.client_batch_size)
        served = simulate_arrivals(replica, times, rows, spread.draw(generator, len(times)))
        waits = 1e3 * (served.completed_s - times) + _client_ms(draw.client, served, generator)
        predicted = statistics_of(waits[round(WARM_UP * len(times)) :])
    measured = {name: summary.value_ms(name) for name in STATISTICS}
    return {
        name: (value, predicted[name])
        for name, value in measured.items()
        if value and 0 < value < UNBOUNDED_MS
    }


def statistics_of(latency_ms: Floats) -> dict[str, float]:
    """`STATISTICS` of latencies, shape (n,)."""
    return {
        name: float(latency_ms.mean() if at is None else np.quantile(latency_ms, at))
        for name, at in STATISTICS.items()
    }


def _client_ms(client: ClientTime, run: ReplicaRun, generator: np.random.Generator) -> Floats:
    """Each request's own, and its place among those that were answered with it."""
    places = 1 + np.floor(generator.random(len(run.joined)) * run.joined)
    return client.own_ms + 2 * client.each_ms * places


def _rows(
    mix: tuple[tuple[int, float], ...], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of `count` requests, drawn by weight."""
    if len(mix) == 1:
        return np.full(count, mix[0][0])
    sizes, weights = (np.array(one) for one in zip(*mix, strict=True))
    return generator.choice(sizes, count, p=weights / weights.sum())


def _saturation(replica: Replica, demand: Demand) -> float:
    return _served_without_pause(replica, demand.batch_mix)


@lru_cache(maxsize=4096)
def _served_without_pause(replica: Replica, mix: tuple[tuple[int, float], ...]) -> float:
    """Requests per second with the queue never empty."""
    rows = _rows(mix, 50 * replica.max_batch, np.random.default_rng(0))
    at_once = np.zeros(len(rows))
    run = simulate_arrivals(replica, at_once, rows, np.ones(len(rows)))
    return len(rows) / float(run.completed_s.max())


def _share_interval(shares: Sequence[float], confidence: float) -> Interval:
    """The mean of the draws' shares, with bounds by their scatter."""
    mean, deviation = float(np.mean(shares)), float(np.std(shares, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, len(shares) - 1)) * deviation
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def at_rate(demand: Demand, rate_per_s: float) -> Demand:
    """The demand with another rate, and no peak above it."""
    return replace(demand, rate_per_s=rate_per_s, peak_factor=1.0)


def _check(demand: Demand, serving: ServingConfig, replicas: int) -> None:
    arrivals = demand.arrivals
    if arrivals.kind is ArrivalKind.TRACE or arrivals.shape.kind is not ShapeKind.FLAT:
        raise UsageError(
            "a plan is for a stretch of constant rate, not for a trace or a changing rate",
            next_step="give the peak as a rate, and how it arrives: poisson, constant or gamma:CV",
        )
    largest = max(rows for rows, _ in demand.batch_mix)
    if largest > max(1, serving.max_batch_size):
        raise UsageError(
            f"requests of {largest} rows exceed the largest batch of {serving.label}, "
            f"{serving.max_batch_size}",
            next_step="ask for fewer rows per request",
        )
    if replicas < 1 or not demand.peak_rate_per_s > 0:
        raise UsageError("a prediction needs at least one replica and a rate above 0")
