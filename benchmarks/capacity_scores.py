"""What a capacity model predicted, held against what was measured then.

Beside it stand what one would use without a model; `capacity_accuracy.py` says what each figure is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from rows import Row

from harness.load.schedule.arrivals import arrival_times_ns
from harness.planning.capacity.draws import statistics_of, steady_arrivals_s, without_warm_up
from harness.planning.capacity.fit import fit_capacity
from harness.planning.capacity.model import CapacityModel
from harness.types import (
    ArrivalProcess,
    LoadMode,
    ServingConfig,
    TrialResult,
)
from harness.types.capacity import Prediction
from harness.types.estimates import Demand
from harness.types.latency import UNBOUNDED_MS
from harness.types.workloads import arrivals_text
from harness.words.numbers import percent

ASKED_SHARES = (0.3, 0.5, 0.7, 0.85)
"""Of what one replica carries at most."""
AIMS = {0.3: 0.15, 0.5: 0.15, 0.7: 0.15, 0.85: 0.25}
"""Of p95's error, by share."""
AIMED = "p95"
STATISTICS = ("p50", "p95")
MODELS = ("model", "little", "mm1")
_REPLAYED = 24
"""Simulated trials of each held-out load."""


@dataclass(frozen=True)
class Case:
    """A variant in a configuration, with what was measured of it at one seed."""

    variant: str
    serving: ServingConfig
    seed: int
    fitted: tuple[TrialResult, ...]
    held_out: tuple[TrialResult, ...]


@dataclass(frozen=True)
class Score:
    """One held-out trial: what was measured, what each model said, and whether it held."""

    case: Case
    share: float
    trial: TrialResult
    statistic: str
    measured_ms: float
    said_ms: dict[str, float]
    low_ms: float
    high_ms: float
    chance_error: float
    """How far a simulated trial of this load and length lies from the middle of all: the median."""
    repeated_ms: float | None
    """The same load, measured once more."""

    def error(self, model: str) -> float:
        """Predicted over measured, less 1."""
        return self.said_ms[model] / self.measured_ms - 1

    @property
    def repeat_error(self) -> float | None:
        """The first measurement over the second, less 1; for the first alone."""
        return self.measured_ms / self.repeated_ms - 1 if self.repeated_ms else None

    @property
    def held(self) -> bool:
        """Whether the measured value lies inside the stated interval."""
        return self.low_ms <= self.measured_ms <= self.high_ms


def most_per_s(model: CapacityModel) -> float:
    """Requests per second of one replica, beyond which no plan goes."""
    return min(model.saturation_per_s(Demand(1.0)), model.highest_measured_per_s(1.0))


def fitted_model(fitted: tuple[TrialResult, ...], seed: int) -> CapacityModel:
    """The model that a run's trials give."""
    return fit_capacity(fitted, arrivals=arrival_times_ns, seed=seed)


def scores_of(case: Case) -> Iterator[Score]:
    """Every statistic of every held-out trial, beside what each model says of it."""
    model = fitted_model(case.fitted, case.seed)
    again = {_load(one): one for one in case.held_out if one.trial.repeat}
    for one in case.held_out:
        workload, summary = one.trial.workload, one.latency
        rate = one.offered_requests_per_s or workload.rate_per_s or 0.0
        demand = Demand(rate, arrivals=workload.arrivals)
        said = model.predict(demand)
        share = (workload.rate_per_s or rate) / most_per_s(model)
        chance = chance_errors(model, demand, one.duration_s)
        second = again.get(_load(one)) if not one.trial.repeat else None
        for statistic in STATISTICS:
            measured = summary.value_ms(statistic) if summary else None
            if not measured:
                continue
            interval = said.latency_ms[statistic]
            yield Score(
                case,
                min(ASKED_SHARES, key=lambda asked: abs(asked - share)),
                one,
                statistic,
                measured,
                {name: _said(name, said, case, rate, statistic) for name in MODELS},
                interval.low,
                interval.high,
                chance[statistic],
                second.latency.value_ms(statistic) if second and second.latency else None,
            )


def chance_errors(model: CapacityModel, demand: Demand, seconds: float) -> dict[str, float]:
    """By statistic, how far a trial of a length lies from the middle of all such trials.

    The machine is what the model's best guess says. What is given is the median of |one over the
    middle - 1| over simulated trials.
    """
    found: dict[str, list[float]] = {name: [] for name in STATISTICS}
    replica = model.best_guess.replica(model.serving)
    requests = max(2, round(demand.rate_per_s * seconds))
    for number in range(_REPLAYED):
        generator = np.random.default_rng([number, 17])
        steady_s = steady_arrivals_s(model.arrivals, demand.arrivals, number, requests)
        arrivals_s = steady_s / demand.rate_per_s
        run = model.best_guess.serve(replica, arrivals_s, np.ones(requests, np.int64), generator)
        latency_ms = model.best_guess.latency_ms(arrivals_s, run, generator)
        for name, value in statistics_of(without_warm_up(latency_ms)).items():
            if name in found:
                found[name].append(value)
    return {
        name: statistics.median(abs(one / statistics.median(values) - 1) for one in values)
        for name, values in found.items()
    }


def _load(result: TrialResult) -> tuple[float | None, ArrivalProcess]:
    return result.trial.workload.rate_per_s, result.trial.workload.arrivals


def _said(name: str, said: Prediction, case: Case, rate_per_s: float, statistic: str) -> float:
    if name == "model":
        return said.latency_ms[statistic].value
    closed = [one for one in case.fitted if one.trial.workload.load_mode is LoadMode.CLOSED]
    if name == "little":
        return little_ms(closed, rate_per_s)
    most = max(one.throughput_requests_per_s for one in closed)
    return mm1_ms(rate_per_s, most, float(statistic.removeprefix("p")) / 100)


def little_ms(closed: Sequence[TrialResult], rate_per_s: float) -> float:
    """In flight over throughput, in ms, on a line through the closed loops at rising throughput."""
    points = sorted(
        (one.throughput_requests_per_s, one.trial.workload.concurrency) for one in closed
    )
    rates = [rate for rate, _ in points]
    times = [1e3 * clients / rate for rate, clients in points]
    return float(np.interp(rate_per_s, rates, times))


def mm1_ms(rate_per_s: float, served_per_s: float, at: float) -> float:
    """A quantile of M/M/1's sojourn time in ms; infinite from saturation on."""
    left = served_per_s - rate_per_s
    return 1e3 * -math.log(1 - at) / left if left > 0 else math.inf


def row_of(score: Score) -> Row:
    """One held-out trial's statistic, as it is shown."""
    trial = score.trial.trial
    said = {f"{name}_error": _finite(score.error(name)) for name in MODELS}
    return {
        "variant": trial.variant,
        "instances": trial.serving.instance_count,
        "seed": score.case.seed,
        "arrivals": arrivals_text(trial.workload.arrivals),
        "share": score.share,
        "rate_per_s": trial.workload.rate_per_s or 0.0,
        "statistic": score.statistic,
        "measured_ms": score.measured_ms,
        "predicted_ms": score.said_ms["model"],
        "low_ms": score.low_ms,
        "high_ms": score.high_ms,
        "held": "yes" if score.held else "no",
        **said,
    }


def summary_of(scores: Sequence[Score]) -> list[Row]:
    """A row per statistic and share of what a replica carries.

    Trials whose requests were not all answered (`overloaded`) have no percentile to be off from:
    they count only for the interval.
    """
    rows: list[Row] = []
    for statistic, share in product(STATISTICS, ASKED_SHARES):
        every = [one for one in scores if one.statistic == statistic and one.share == share]
        own = [one for one in every if one.measured_ms < UNBOUNDED_MS]
        if not own:
            continue
        row: dict[str, str | int | float] = {
            "statistic": statistic,
            "share": share,
            "cases": len(own),
            "overloaded": len(every) - len(own),
        }
        errors = {name: statistics.median(abs(one.error(name)) for one in own) for name in MODELS}
        chance = statistics.median(one.chance_error for one in own)
        repeat = _median_of(one.repeat_error for one in own)
        machine = max(chance, 0.0 if math.isnan(repeat) else repeat / math.sqrt(2))
        left = math.sqrt(max(0.0, errors["model"] ** 2 - machine**2))
        row["model_error"] = errors["model"]
        row |= {"chance_error": chance, "repeat_error": repeat, "machine_error": machine}
        row["own_error"] = left
        row |= _against_aim(statistic, share, errors["model"], left)
        row |= {f"{name}_error": errors[name] for name in MODELS if name != "model"}
        row["model_greatest"] = max(abs(one.error("model")) for one in own)
        row["interval_held"] = sum(one.held for one in every) / len(every)
        row["interval_width"] = statistics.median(one.high_ms / one.low_ms for one in own)
        rows.append({key: _finite(value) for key, value in row.items()})
    return rows


def _against_aim(statistic: str, share: float, error: float, own: float) -> dict[str, str | float]:
    if statistic != AIMED:
        return {"aim": math.nan, "aim_is": "-"}
    aim = AIMS[share]
    if error <= aim:
        return {"aim": aim, "aim_is": "met"}
    return {"aim": aim, "aim_is": "hidden by the machine" if own <= aim else "not met"}


def irreducible(rows: Sequence[Row]) -> list[str]:
    """In words, what of each p95 row's error is the machine's and what the model's."""
    lines = []
    for row in rows:
        if row["statistic"] != AIMED:
            continue
        error, machine, own = (
            float(row[name]) for name in ("model_error", "machine_error", "own_error")
        )
        whose = "the model's own"
        if math.isnan(float(row["repeat_error"])):
            whose += ", or the machine's drift between trials, which only repeated ones tell apart"
        lines.append(
            f"p95 at {percent(float(row['share']))}: off by {percent(error)}. A perfect model "
            f"would be off by {percent(machine)}, because trials of this length differ so much on "
            f"this machine; {percent(own)} is {whose}. Aim {percent(float(row['aim']))}: "
            f"{row['aim_is']}"
        )
    return lines


def _median_of(errors: Iterable[float | None]) -> float:
    known = [abs(one) for one in errors if one is not None]
    return statistics.median(known) if known else math.nan


def _finite(value: str | float) -> str | float:
    return math.nan if isinstance(value, float) and math.isinf(value) else value
