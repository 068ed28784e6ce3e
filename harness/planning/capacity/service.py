"""How long an execution takes, and what a request costs outside it: fitted to a run's trials.

An execution's time over its rows is a sum of four shapes with weights of at least 0 (a constant,
the square root, the rows, their square), so it rises with the rows, bends either way, and never
falls below what was measured to zero or less between sizes. Beside them stands what each request
but the first adds: sixteen requests of one row take longer than one request of sixteen. All is
fitted to *relative* deviations by non-negative least squares (Lawson and Hanson 1974) with Huber's
weights (1964), so a size that stalled once does not bend it; a size seen often then gets its own
level back, as far as its evidence goes beyond the trials' scatter (empirical Bayes). Where
instances share cores the time is longer by a factor that rises with the number of others that are
busy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.types import LoadMode, TrialResult, WireProtocol

Floats = NDArray[np.float64]

TRIAL_SPREAD = 0.05
"""Relative difference between two trials of one thing that is taken for granted."""
UNKNOWN_SPREAD = 0.10
"""Relative spread that is assumed where a single trial leaves it unknown."""
RARE_SPREAD = 1.0
"""Relative spread of one execution, for the weight of sizes that were seen rarely: any single one
may have been held up."""
DEFAULT_CV = 0.15
"""Spread of one execution where no trial with one request in flight shows it."""
_HUBER = 1.345
_PASSED_THROUGH = 2
"""The curve passes through so many sizes: none of them lies off it."""
_OFTEN = 20
"""Executions of a size from which on it counts as seen."""
_TOLD_APART = 0.5
"""By so many requests an execution has to leave the line through its rows, somewhere."""
_SHARINGS = np.linspace(0.0, 1.5, 31)
_QUANTILES = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Observation:
    """Executions of one size in one trial."""

    trial: int
    rows: float
    """Rows per execution; of a run without times by size, the rows that a request met in its
    execution, on average."""
    executions: int
    mean_ms: float
    others_busy: float
    """How many other instances were busy at a time, on average."""
    requests: float = 1.0
    """Requests in one execution, on average."""


@dataclass(frozen=True)
class ServiceCurve:
    """Milliseconds of one execution over its rows, and over the requests that share it."""

    weights: tuple[float, ...]
    each_request_ms: float
    """What every request but the first adds; 0 where the trials do not tell it from the rows."""
    levels: tuple[tuple[int, float], ...]
    """(rows, factor) of sizes that have a level of their own."""
    sharing: float
    """As `Replica.sharing`: how much longer an execution takes for each other busy instance."""
    trial_spread: float
    """Standard deviation of the logarithm between trials."""
    largest_rows: int
    """Largest execution that was seen."""
    most_requests: float
    """Most requests of an execution that was seen often."""

    def table_ms(self, largest: int) -> tuple[float, ...]:
        """Mean times for 1 to `largest` rows that one request brings."""
        rows = np.arange(1, largest + 1, dtype=np.float64)
        values = _features(rows) @ np.array(self.weights)
        for size, factor in self.levels:
            if size <= largest:
                values[size - 1] *= factor
        return tuple(float(one) for one in values)


@dataclass(frozen=True)
class Spread:
    """How single executions vary about their mean: a quantile function with mean 1."""

    values: tuple[float, ...]
    """Relative execution times at the quantiles 0, 0.5, 0.9, 0.95, 0.99 and 1."""
    known: bool
    """Whether a trial shows it; else it is `DEFAULT_CV`."""

    def draw(self, generator: np.random.Generator, count: int) -> Floats:
        """Factors of the mean, shape (count,)."""
        return np.interp(generator.random(count), _QUANTILES, self.values)


@dataclass(frozen=True)
class ClientTime:
    """What a request spends outside the server's queue and compute, in milliseconds."""

    own_ms: float
    each_ms: float
    """Milliseconds for every request answered together: a batch's answers leave one after
    another."""


def observations_of(trials: Sequence[TrialResult]) -> list[Observation]:
    """What the trials say of executions; those without the server's figures say nothing."""
    found: list[Observation] = []
    for number, result in enumerate(trials):
        server, others = result.server, _others_busy(result)
        each = max(1.0, _rows_per_request(result))
        for rows, mean_ms in server.batch_compute_ms.items():
            executions = server.batch_sizes.get(rows, 0)
            if executions > 0 and mean_ms > 0:
                joined = max(1.0, rows / each)
                found.append(Observation(number, rows, executions, mean_ms, others, joined))
        if server.batch_compute_ms or not server.compute_ms or not server.executions:
            continue
        rows_met = _rows_met(result)
        if rows_met is not None:
            joined = max(1.0, rows_met / each)
            found.append(
                Observation(number, rows_met, server.executions, server.compute_ms, others, joined)
            )
    return found


def _rows_met(result: TrialResult) -> float | None:
    """Rows of the execution that a request is in, mean over requests: large ones hold more."""
    sizes = result.server.batch_sizes
    total = sum(rows * count for rows, count in sizes.items())
    if total:
        return sum(rows * rows * count for rows, count in sizes.items()) / total
    return result.server.batch_mean


def _others_busy(result: TrialResult) -> float:
    """Mean number of other instances busy while one is, taken as independent of it."""
    instances = max(1, result.trial.serving.instance_count)
    server = result.server
    if instances == 1 or not result.duration_s or not server.executions:
        return 0.0
    mean_ms = server.compute_ms or 0.0
    if server.batch_compute_ms:
        busy = sum(
            server.batch_sizes.get(rows, 0) * ms for rows, ms in server.batch_compute_ms.items()
        )
        mean_ms = busy / server.executions
    busy_share = mean_ms * server.executions / 1e3 / result.duration_s / instances
    return (instances - 1) * min(1.0, busy_share)


def fit_service(
    observations: Sequence[Observation], trial_weights: Floats | None = None
) -> ServiceCurve:
    """Fit the execution time over rows.

    Args:
        observations: of trials of one variant, at least one.
        trial_weights: by trial, for the bootstrap; None: all alike.
    """
    rows = np.array([one.rows for one in observations], dtype=np.float64)
    joined = np.array([one.requests for one in observations], dtype=np.float64)
    counts = np.array([one.executions for one in observations], dtype=np.float64)
    measured = np.array([one.mean_ms for one in observations])
    others = np.array([one.others_busy for one in observations])
    trials = np.array([one.trial for one in observations])
    scatter = TRIAL_SPREAD**2 + RARE_SPREAD**2 / counts
    weights = 1 / scatter
    if trial_weights is not None:
        weights = weights * trial_weights[trials]
    shapes = _shapes(rows, joined)
    sharing = 0.0
    if others.any():
        losses = [_weighted(shapes, measured / (1 + s * others), weights)[1] for s in _SHARINGS]
        sharing = float(_SHARINGS[int(np.argmin(losses))])
    alone = measured / (1 + sharing * others)
    coefficients, _ = _weighted(shapes, alone, weights)
    residuals = np.log(alone / (shapes @ coefficients))
    *by_rows, each = (float(one) for one in coefficients)
    return ServiceCurve(
        weights=tuple(by_rows),
        each_request_ms=each,
        levels=_levels(rows, residuals, weights, scatter),
        sharing=sharing,
        trial_spread=_trial_spread(trials, residuals, counts),
        largest_rows=int(np.ceil(rows.max())),
        most_requests=float(joined[counts >= min(_OFTEN, counts.max())].max()),
    )


def _features(rows: Floats) -> Floats:
    return np.column_stack((np.ones_like(rows), np.sqrt(rows), rows, rows**2 / 64))


def _shapes(rows: Floats, joined: Floats) -> Floats:
    """What the time is a sum of; requests count for nothing where they rise with the rows alone."""
    further = joined - 1
    line = np.column_stack((np.ones_like(rows), rows))
    left = further - line @ np.linalg.lstsq(line, further, rcond=None)[0]
    if float(np.abs(left).max()) < _TOLD_APART:
        further = np.zeros_like(further)
    return np.column_stack((_features(rows), further))


def _weighted(all_shapes: Floats, values: Floats, weights: Floats) -> tuple[Floats, float]:
    """Weights of the shapes, and the loss: relative deviations, large ones damped."""
    shapes, own = all_shapes / values[:, None], weights
    coefficients = np.zeros(shapes.shape[1])
    loss = 0.0
    for _ in range(4):
        root = np.sqrt(own)
        coefficients, _norm = scipy.optimize.nnls(shapes * root[:, None], root)
        deviation = np.abs(shapes @ coefficients - 1) * np.sqrt(weights)
        damped = np.minimum(1.0, _HUBER / np.maximum(deviation, 1e-12))
        loss = float(np.sum(damped * deviation**2))
        own = weights * damped
    return coefficients, loss


def _levels(
    rows: Floats, residuals: Floats, weights: Floats, scatter: Floats
) -> tuple[tuple[int, float], ...]:
    """What sizes lie off the curve, drawn to it as far as chance could explain it."""
    sizes = [size for size in np.unique(rows) if float(size).is_integer()]
    means = np.array([np.average(residuals[rows == s], weights=weights[rows == s]) for s in sizes])
    noise = np.array([1 / np.sum(1 / scatter[rows == s]) for s in sizes])
    if len(sizes) <= _PASSED_THROUGH:
        return ()
    between = max(0.0, float(np.average(means**2 - noise, weights=1 / noise)))
    if not between:
        return ()
    kept = means * between / (between + noise)
    return tuple((int(s), float(np.exp(k))) for s, k in zip(sizes, kept, strict=True))


def _trial_spread(trials: Floats | NDArray[np.int64], residuals: Floats, counts: Floats) -> float:
    """Standard deviation of the trials' own levels; a stated one where there is one trial alone."""
    by_trial = [
        float(np.average(residuals[trials == one], weights=counts[trials == one]))
        for one in np.unique(trials)
    ]
    if len(by_trial) == 1:
        return UNKNOWN_SPREAD
    return max(TRIAL_SPREAD / 2, float(np.std(by_trial, ddof=1)))


def fit_client(trials: Sequence[TrialResult]) -> dict[WireProtocol, ClientTime]:
    """Client and network, by protocol, from what the server does not account for."""
    by_protocol: dict[WireProtocol, list[tuple[float, float]]] = defaultdict(list)
    for result in trials:
        mean_rows = result.server.batch_mean
        if result.client_ms is not None and mean_rows:
            per_execution = max(1.0, mean_rows / max(1, _rows_per_request(result)))
            by_protocol[result.trial.workload.protocol].append((per_execution, result.client_ms))
    fitted = {}
    for protocol, points in by_protocol.items():
        joined = np.array([one for one, _ in points])
        spent = np.array([one for _, one in points])
        scale = 1 / np.maximum(spent, 1e-3)
        shapes = np.column_stack((np.ones_like(joined), joined)) * scale[:, None]
        (own, each), _norm = scipy.optimize.nnls(shapes, spent * scale)
        fitted[protocol] = ClientTime(float(own), float(each))
    return fitted


def _rows_per_request(result: TrialResult) -> float:
    """Mean rows that a request of the trial carried."""
    if not result.throughput_requests_per_s:
        return float(result.trial.workload.client_batch_size)
    return result.throughput_inferences_per_s / result.throughput_requests_per_s


def fit_spread(trials: Sequence[TrialResult]) -> Spread:
    """How executions vary, from trials with one request in flight: there nothing queues.

    All variation of those latencies is taken to be the execution's.
    """
    found: list[Floats] = []
    evidence: list[int] = []
    for result in trials:
        workload, summary = result.trial.workload, result.latency
        alone = workload.load_mode is LoadMode.CLOSED and workload.concurrency == 1
        compute_ms, client_ms = result.server.compute_ms, result.client_ms
        if not alone or workload.batch_mix or summary is None or not compute_ms:
            continue
        at = [summary.percentiles[name].value_ms for name in ("p50", "p90", "p95", "p99")]
        last = min(summary.max_ms, 2 * at[-1])
        times = np.array([summary.min_ms, *at, last]) - (client_ms or 0.0)
        found.append(np.maximum.accumulate(np.maximum(times / compute_ms, 0.2)))
        evidence.append(summary.count)
    if not found:
        return Spread(unit_mean(normal_quantiles(DEFAULT_CV)), known=False)
    return Spread(unit_mean(np.average(found, axis=0, weights=evidence)), known=True)


def normal_quantiles(width: float) -> Floats:
    """At `Spread`'s shares, of a log-normal distribution with this deviation of the logarithm."""
    return np.exp(width * np.array([-2.5, 0.0, 1.2816, 1.6449, 2.3263, 3.0]))


def unit_mean(values: Floats) -> tuple[float, ...]:
    """Values at `Spread`'s shares, brought to a mean of 1."""
    mean = float(np.trapezoid(values, _QUANTILES))
    return tuple(float(one / mean) for one in values)
