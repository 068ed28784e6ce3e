"""How right the capacity model is: predicted first, then measured on the embedded server.

For each variant and seed the model is fitted to what a run has (closed loops, then open loops at
40, 60 and 80% of the highest throughput found). It predicts p50 and p95 at 30, 50, 70 and 85% of
what one replica carries at most (the model's saturation, or the highest throughput found, beyond
which `harness plan` does not go), with Poisson arrivals and with bursts (gamma, coefficient of
variation 2), which no trial had; then each is measured. Beside it stand what one would use without
a model:

- little: Little's law on the closed loops, in flight over throughput, at the rate asked for. It
  knows a mean, which has to do for p50 and p95.
- mm1: M/M/1 with the highest throughput found as its service rate: exponential sojourn times.

What of the error no model could avoid is told in two ways, both medians like the model's error:

- chance: trials of the same length are simulated as the fitted model has the machine. So far one of
  them lies from where all lie on average: the error of a model that knows everything but which
  second the machine stalls in.
- repeat: each held-out load is measured twice with the very same requests, the second time after
  all others had their first, and the first foretells the second. Both carry the machine's whims, so
  a perfect model's error is this over the square root of two.

`machine_error` is the greater of the two, `own_error` what it leaves of the model's, as variances
add: sqrt(model^2 - machine^2). `aim` is held against both: `met` where the model's whole error is
within it, `hidden by the machine` where its own is: nothing here contradicts the aim.

    python benchmarks/capacity_accuracy.py --json rows.json      # at most 25 minutes
    python benchmarks/capacity_accuracy.py --from runs/capacity-accuracy     # scores it again
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from rows import Row, run_as_command, show, write_rows

from harness.errors import UsageError
from harness.flow.input_checks import check_inputs
from harness.flow.manifest import new_manifest
from harness.flow.options import RunSettings
from harness.flow.preparation import prepare
from harness.flow.serving import serve
from harness.flow.sweep import trial_runner
from harness.flow.trial import TrialRunner
from harness.load.schedule.arrivals import arrival_times_ns
from harness.planning.capacity.draws import statistics_of, steady_arrivals_s, without_warm_up
from harness.planning.capacity.fit import fit_capacity
from harness.planning.capacity.model import CapacityModel
from harness.runs.folder import RunFolder, read_run
from harness.serving.embedded.environment import ensure_server_environment
from harness.study import Study, variant_names, variants_of
from harness.study.file import load_study
from harness.study.objective import parse_objective
from harness.system.storage import bundled
from harness.types import (
    SATURATION,
    ArrivalKind,
    ArrivalProcess,
    LoadMode,
    ServingConfig,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)
from harness.types.capacity import Prediction
from harness.types.estimates import Demand
from harness.types.latency import UNBOUNDED_MS
from harness.types.workloads import arrivals_text
from harness.words.numbers import percent

VARIANTS = ("topics-teacher-fp32", "topics-student-int8", "prose-student-fp32")
CLOSED = (1, 2, 4, 8, 16)
FITTED_SHARES = (0.4, 0.6, 0.8)
"""Of the highest throughput found; as after a run's verdict."""
ASKED_SHARES = (0.3, 0.5, 0.7, 0.85)
"""Of what one replica carries at most."""
AIMS = {0.3: 0.15, 0.5: 0.15, 0.7: 0.15, 0.85: 0.25}
"""Of p95's error, by share."""
AIMED = "p95"
ASKED_ARRIVALS = (ArrivalProcess(), ArrivalProcess(ArrivalKind.GAMMA, burstiness_cv=2.0))
STATISTICS = ("p50", "p95")
MODELS = ("model", "little", "mm1")
SEARCH, HELD_OUT = "search", "held-out"
CLOSED_S = 6.0
"""A closed loop meets more requests in a second, and none of them waits for a stall's queue."""
_REPLAYED = 24
"""Simulated trials of each held-out load."""
_NOTHING_DECIDES = parse_objective("p95 < 1000000 ms")
_PLACES = 100
_SCORING_MINUTES = 2.0


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


def main() -> int:
    """Measure where that is asked, score, and show the rows."""
    options = _parse(sys.argv[1:])
    folder: Path = options.results or options.out
    if options.results is None:
        _measure(options, folder)
    cases = _cases(folder, with_invalid=options.with_invalid)
    scores = [one for case in cases for one in scores_of(case)]
    if not scores:
        raise UsageError(
            "no held-out trial is valid beside a variant that could be fitted",
            next_step="measure on a quiet machine, or score --with-invalid and say so",
        )
    show("Each prediction, and what was measured then", [_row(one) for one in scores])
    summary = summary_of(scores)
    show("By share of what a replica carries: median errors, and how often the interval held",
         summary)  # fmt: skip
    print("\n".join(irreducible(summary)))
    write_rows(summary, options.json)
    return 0


class OutOfTimeError(Exception):
    """The minutes are over: what is there is scored."""


@dataclass
class Measurement:
    """Measures trials one after the other, until the time is over."""

    runner: TrialRunner
    until_s: float
    """On the monotonic clock."""
    now_s: Callable[[], float] = time.monotonic

    def settle(self, trial: Trial) -> TrialResult:
        """The trial's result; from the journal, where it is there.

        Raises:
            OutOfTimeError: it would not end in time.
        """
        workload = trial.workload
        if self.now_s() + workload.duration_s + workload.warmup_s > self.until_s:
            raise OutOfTimeError
        left = max(0.0, self.until_s - self.now_s()) / 60
        print(f"{trial.trial_id} (at most {left:.0f} min left)", file=sys.stderr, flush=True)
        return self.runner.settle(trial, _NOTHING_DECIDES)


def _measure(options: argparse.Namespace, folder: Path) -> None:
    """Every case's trials, into the folder's journal; a trial that is there is not repeated."""
    until_s = time.monotonic() + 60 * (options.minutes - _SCORING_MINUTES)
    study = study_of(
        load_study(options.study or bundled("studies/reference.yaml")), options.variants
    )
    settings = RunSettings(
        repository=options.repository,
        cpus_server=options.cpus_server,
        cpus_generator=options.cpus_generator,
    )
    check_inputs(study, settings.inputs)
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    prepared = prepare(
        study,
        repository=settings.repository,
        progress=lambda _: None,
        warn=lambda line: print(line, file=sys.stderr),
        inputs=settings.inputs,
    )
    with (
        _folder(folder, study) as run,
        serve(prepared, environment, settings, log_file=folder / "logs" / "triton.log") as served,
        trial_runner(study, served, run, settings) as runner,
    ):
        families = {v.name: v.family for each in prepared for v in each.served}
        measurement = Measurement(runner, until_s)
        for variant, instances, seed in product(options.variants, options.instances, options.seeds):
            base = _base_trial(variant, families[variant], instances, seed, options.seconds)
            try:
                _measure_case(measurement, base, options.repeats)
            except OutOfTimeError:
                print(
                    f"{options.minutes:.0f} minutes are over at {variant}, seed {seed}; the same "
                    "command goes on from here, with --minutes for the rest",
                    file=sys.stderr,
                )
                return


def study_of(study: Study, variants: Sequence[str]) -> Study:
    """The study with the families of these variants alone: others need not be exported.

    Raises:
        UsageError: a variant that it does not have.
    """
    known = variant_names(study)
    unknown = [one for one in variants if one not in known]
    if unknown:
        raise UsageError(
            f"the study has no variant {unknown[0]}", next_step=f"name some of: {', '.join(known)}"
        )
    asked = [
        family
        for family in study.families
        if any(name in variants for model in family.models for name in variants_of(model))
    ]
    return study.model_copy(update={"families": asked})


def _folder(folder: Path, study: Study) -> RunFolder:
    if folder.exists():
        return RunFolder.resume(folder, study)
    return RunFolder.create(folder, new_manifest(study))


def _base_trial(variant: str, family: str, instances: int, seed: int, seconds: float) -> Trial:
    workload = Workload(
        protocol=WireProtocol.HTTP,
        client_batch_size=1,
        concurrency=1,
        duration_s=seconds,
        warmup_s=1.0,
        seed=seed,
        min_duration_s=seconds,
    )
    serving = ServingConfig(instance_count=instances)
    return Trial(variant=variant, family=family, serving=serving, workload=workload, stage=SEARCH)


def _measure_case(measurement: Measurement, base: Trial, repeats: int) -> None:
    """What the model is fitted to, then, predicted from that, what it is held against."""
    fitted = [measurement.settle(_closed(base, clients)) for clients in CLOSED]
    found = max(one.throughput_requests_per_s for one in fitted)
    fitted += [
        measurement.settle(_open(base, SATURATION, ArrivalProcess(), share * found, place))
        for place, share in enumerate(FITTED_SHARES, start=1)
    ]
    most = _most_per_s(_model(tuple(replace(one, valid=True) for one in fitted), seed_of(base)))
    asked = [
        _open(base, HELD_OUT, arrivals, share * most, place)
        for place, (share, arrivals) in enumerate(product(ASKED_SHARES, ASKED_ARRIVALS), start=11)
    ]
    for number in range(repeats):
        for one in asked:
            measurement.settle(replace(one, repeat=number))


def seed_of(trial: Trial) -> int:
    """The seed of a trial's case: an open loop's own holds its place behind it."""
    seed = trial.workload.seed
    return seed if seed < _PLACES else seed // _PLACES


def _most_per_s(model: CapacityModel) -> float:
    """Requests per second of one replica, beyond which no plan goes."""
    return min(model.saturation_per_s(Demand(1.0)), model.highest_measured_per_s(1.0))


def _closed(base: Trial, clients: int) -> Trial:
    seconds = min(CLOSED_S, base.workload.duration_s)
    workload = replace(
        base.workload, concurrency=clients, duration_s=seconds, min_duration_s=seconds
    )
    return replace(base, workload=workload)


def _open(base: Trial, stage: str, arrivals: ArrivalProcess, rate_per_s: float, at: int) -> Trial:
    """An open loop; each has arrivals of its own."""
    workload = replace(
        base.workload,
        load_mode=LoadMode.OPEN,
        arrivals=arrivals,
        rate_per_s=float(f"{rate_per_s:.3g}"),
        concurrency=512,
        seed=base.workload.seed * _PLACES + at,
    )
    return replace(base, stage=stage, workload=workload)


def _model(fitted: tuple[TrialResult, ...], seed: int) -> CapacityModel:
    return fit_capacity(fitted, arrivals=arrival_times_ns, seed=seed)


def _cases(folder: Path, *, with_invalid: bool) -> Iterator[Case]:
    """The stored trials by variant, configuration and seed."""
    grouped: dict[tuple[str, ServingConfig, int], list[TrialResult]] = {}
    left_out = 0
    for one in read_run(folder).every_trial:
        if not one.valid and not with_invalid:
            left_out += 1
            continue
        trial = one.trial
        key = (trial.variant, trial.serving, seed_of(trial))
        grouped.setdefault(key, []).append(replace(one, valid=True))
    if left_out:
        print(f"{left_out} invalid trials are left out", file=sys.stderr)
    for (variant, serving, seed), trials in grouped.items():
        fitted = tuple(one for one in trials if one.trial.stage != HELD_OUT)
        held_out = tuple(one for one in trials if one.trial.stage == HELD_OUT)
        if any(one.trial.workload.load_mode is LoadMode.CLOSED for one in fitted):
            yield Case(variant, serving, seed, fitted, held_out)


def scores_of(case: Case) -> Iterator[Score]:
    """Every statistic of every held-out trial, beside what each model says of it."""
    model = _model(case.fitted, case.seed)
    again = {_load(one): one for one in case.held_out if one.trial.repeat}
    for one in case.held_out:
        workload, summary = one.trial.workload, one.latency
        rate = one.offered_requests_per_s or workload.rate_per_s or 0.0
        demand = Demand(rate, arrivals=workload.arrivals)
        said = model.predict(demand)
        share = (workload.rate_per_s or rate) / _most_per_s(model)
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


def _row(score: Score) -> Row:
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


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--study", type=Path, help="default: the demo's")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--instances", type=int, nargs="+", default=[1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--seconds",
        type=float,
        default=16.0,
        help="of each open loop: the longer, the less its p95 is chance",
    )
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="at most, scoring counted; the rest is left"
    )
    parser.add_argument("--repeats", type=int, default=2, help="of each held-out trial")
    parser.add_argument("--cpus-server", type=int, nargs="+")
    parser.add_argument("--cpus-generator", type=int, nargs="+")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--out", type=Path, default=Path("runs/capacity-accuracy"))
    parser.add_argument("--from", dest="results", type=Path, metavar="DIR")
    parser.add_argument(
        "--with-invalid",
        action="store_true",
        help="also count trials that were disturbed, as by other work on the machine",
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
