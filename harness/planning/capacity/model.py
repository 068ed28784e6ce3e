"""What a replica would do at a load that was not measured, and how sure that is.

Every prediction is simulated several times. Each time takes another draw of the fit (its trials
weighted at random, Rubin's Bayesian bootstrap of 1981; and a level of its own, as another trial
would have) and other arrivals over a window of its own, so the scatter between them holds the fit's
error and the simulation's. What the model misses of the trials that it was fitted to is added: each
of them is simulated as it was measured, and the deviation is published (`CapacityModel.error`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.planning.capacity.checks import TrialCheck
from harness.planning.capacity.discrepancy import Discrepancy
from harness.planning.capacity.draws import (
    NEAR_SATURATION,
    REQUESTS,
    STATISTICS,
    ArrivalSource,
    Draw,
    Floats,
    first_arrivals_s,
    long_enough,
    request_rows,
    saturation_per_s,
    statistics_of,
    steady_arrivals_s,
    without_warm_up,
)
from harness.types import ArrivalKind, ServingConfig, ShapeKind, WireProtocol
from harness.types.capacity import Prediction
from harness.types.estimates import Demand, Interval
from harness.types.latency import UNBOUNDED_MS
from harness.words.numbers import number, percent, things, whole

UNKNOWN_ERROR = 0.15
"""Relative error of the model where no trial could be simulated as it was measured."""
_MOST_THINNED = 50
_FAR = 1.5
"""A plan says so where executions join so many times more requests than when measured."""


@dataclass(frozen=True)
class CapacityModel:
    """One variant in one serving configuration, over one protocol."""

    variant: str
    serving: ServingConfig
    protocol: WireProtocol
    best_guess: Draw
    draws: tuple[Draw, ...]
    measured_per_s: tuple[tuple[float, float], ...]
    """Requests and inferences per second of one replica, in each valid trial of the variant in this
    configuration."""
    confidence: float
    seed: int
    arrivals: ArrivalSource
    queue_limit: int | None = None
    """Requests that may wait in a replica (`max_queue_size`); None: any number."""
    limits: tuple[str, ...] = ()
    """What the trials do not show, in words."""
    checks: Mapping[str, TrialCheck] | None = None
    """By trial, what was measured and what the model predicts for it."""
    discrepancy: Mapping[str, Discrepancy] = field(default_factory=dict)
    """By statistic, how the model deviates from open loops over the load; empty where there are too
    few."""

    def highest_measured_per_s(self, rows: float) -> float:
        """Requests per second that no trial goes beyond: neither in requests nor in rows.

        Sixteen rows in one request are far less work than in sixteen.

        Args:
            rows: of each request.
        """
        return max(min(requests, every / rows) for requests, every in self.measured_per_s)

    @cached_property
    def error(self) -> Mapping[str, float]:
        """By statistic, the median of |predicted / measured - 1| over the simulated trials."""
        found: dict[str, list[float]] = {}
        for check in (self.checks or {}).values():
            for name, (measured, predicted) in check.items():
                found.setdefault(name, []).append(abs(predicted / measured - 1))
        return {name: float(np.median(values)) for name, values in found.items()}

    @cached_property
    def misfit(self) -> Mapping[str, float]:
        """By statistic, the root mean square log ratio beyond the trials' own scatter."""
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

    def correction(self, statistic: str, rate_per_s: float, demand: Demand) -> tuple[float, float]:
        """What to add to the logarithm of a simulated latency, and how sure that is.

        Args:
            statistic: of latency.
            rate_per_s: of one replica.
            demand: how requests arrive, and their rows.

        Returns:
            0 where too few open loops were measured; and the deviation of the logarithm that one
            measurement has about the corrected value (without open loops: what the model is off).
        """
        known = self.discrepancy.get(statistic)
        if known is None:
            return 0.0, self.misfit[statistic]
        return known.at(rate_per_s / self.saturation_per_s(demand))

    def predict(self, demand: Demand, *, replicas: int = 1, requests: int = REQUESTS) -> Prediction:
        """What equal replicas show when the demand's peak is spread over them at random.

        Args:
            demand: its peak rate, how requests arrive, and their rows.
            replicas: how many there are, at least 1.
            requests: simulated at least for each of the model's draws; more where that many
                would meet too few of the machine's stalls.

        Raises:
            UsageError: a changing rate or a trace; a request larger than the largest batch.
        """
        _check(demand, self.serving, replicas)
        outcomes = [
            self._simulate(draw, demand, replicas, number, requests)
            for number, draw in enumerate(self.draws)
        ]
        latency = {
            name: self._latency([one.latency_ms[name] for one in outcomes], name, demand, replicas)
            for name in STATISTICS
        }
        latency |= _in_order({name: latency[name] for name in STATISTICS if name != "mean"})
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
        return saturation_per_s(self.best_guess.replica(self.serving), demand.batch_mix)

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
        most = saturation_per_s(replica, demand.batch_mix)
        replica = replace(replica, queue_limit=self.queue_limit)
        requests = long_enough(draw.stalls, rate, requests)
        arrivals = self._arrivals(demand, replicas, number, requests, generator)
        rows = request_rows(demand.batch_mix, len(arrivals), generator)
        run = draw.serve(replica, arrivals, rows, generator)
        kept = without_warm_up(draw.latency_ms(arrivals, run, generator))
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
        seed = self.seed * 1000 + number
        if thinned == 1:
            return steady_arrivals_s(self.arrivals, demand.arrivals, seed, requests) / rate
        source = self.arrivals(demand.arrivals, rate_per_s=rate * thinned, seed=seed)
        own = (times[generator.random(len(times)) * thinned < 1] for times in source)
        return first_arrivals_s(own, requests)[:requests]

    def _latency(
        self, values_ms: Sequence[float], statistic: str, demand: Demand, replicas: int
    ) -> Interval:
        """A statistic of the draws, corrected by what open loops showed."""
        rate = demand.peak_rate_per_s / replicas
        shift, deviation = self.correction(statistic, rate, at_rate(demand, rate))
        factor = float(np.exp(shift))
        corrected = [one if one >= UNBOUNDED_MS else one * factor for one in values_ms]
        if statistic in self.discrepancy:
            # The scatter of the draws and that about the open loops both hold that between trials.
            known = [float(np.log(one)) for one in corrected if one < UNBOUNDED_MS]
            scatter = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
            deviation = float(np.sqrt(max(0.0, deviation**2 - scatter**2)))
        return self._interval(corrected, deviation)

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
        quantile = float(
            scipy.special.stdtrit(max(1, len(self.draws) - 1), (1 + self.confidence) / 2)
        )
        half = quantile * float(np.hypot(deviation, misfit))
        middle = float(np.median(logs))
        lost = len(values) - len(known)
        value = UNBOUNDED_MS if 2 * lost >= len(values) else float(np.exp(middle))
        high = UNBOUNDED_MS if lost else min(most, float(np.exp(middle + half)))
        return Interval(min(most, value), float(np.exp(middle - half)), high)

    def _outside(
        self, demand: Demand, replicas: int, batch_means: Sequence[float]
    ) -> tuple[float, tuple[str, ...]]:
        """How far the question lies outside the measured range, in words."""
        asked = demand.peak_rate_per_s / replicas
        highest = self.highest_measured_per_s(demand.rows_per_request)
        beyond = max(0.0, asked / highest - 1)
        words = list(self.limits)
        if beyond > 0:
            words.append(
                f"{number(asked)} requests/s per replica, {percent(beyond)} above the highest "
                f"that was measured ({number(highest)})"
            )
        largest = self.best_guess.curve.largest_rows
        executed = round(float(np.mean(batch_means)))
        needed = max(executed, *(rows for rows, _ in demand.batch_mix))
        if needed > largest:
            words.append(
                f"executions of {things(needed, 'row')}, where the largest measured had {largest}"
            )
        joined, most = executed / demand.rows_per_request, self.best_guess.curve.most_requests
        if joined > _FAR * most:
            words.append(
                f"executions of {whole(joined)} requests, where those measured joined at most "
                f"{whole(most)}, so what each of them adds is not known"
            )
        return beyond, tuple(words)


@dataclass(frozen=True)
class _Outcome:
    latency_ms: Mapping[str, float]
    served_per_s: float
    rejected_share: float
    batch_mean: float
    sizes: NDArray[np.int64]
    utilization: float


def _in_order(quantiles: Mapping[str, Interval]) -> dict[str, Interval]:
    """Each at least as long as the one before: every quantile has a correction of its own."""
    found: dict[str, Interval] = {}
    before = Interval(0.0, 0.0, 0.0)
    for name, one in quantiles.items():
        before = Interval(
            max(one.value, before.value), max(one.low, before.low), max(one.high, before.high)
        )
        found[name] = before
    return found


def _share_interval(shares: Sequence[float], confidence: float) -> Interval:
    """The mean of the draws' shares, with bounds by their scatter."""
    mean, deviation = float(np.mean(shares)), float(np.std(shares, ddof=1))
    half = float(scipy.special.stdtrit(len(shares) - 1, (1 + confidence) / 2)) * deviation
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
