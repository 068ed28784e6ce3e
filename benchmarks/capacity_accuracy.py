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
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from capacity_scores import (
    ASKED_SHARES,
    Case,
    fitted_model,
    irreducible,
    most_per_s,
    row_of,
    scores_of,
    summary_of,
)
from rows import run_as_command, show, write_rows

from harness.errors import UsageError
from harness.flow.input_checks import check_inputs
from harness.flow.manifest import new_manifest
from harness.flow.options import RunSettings
from harness.flow.preparation import prepare
from harness.flow.serving import serve
from harness.flow.sweep import trial_runner
from harness.flow.trial import TrialRunner
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

VARIANTS = ("topics-teacher-fp32", "topics-student-int8", "prose-student-fp32")
CLOSED = (1, 2, 4, 8, 16)
FITTED_SHARES = (0.4, 0.6, 0.8)
"""Of the highest throughput found; as after a run's verdict."""
ASKED_ARRIVALS = (ArrivalProcess(), ArrivalProcess(ArrivalKind.GAMMA, burstiness_cv=2.0))
SEARCH, HELD_OUT = "search", "held-out"
CLOSED_S = 6.0
"""A closed loop meets more requests in a second, and none of them waits for a stall's queue."""
_NOTHING_DECIDES = parse_objective("p95 < 1000000 ms")
_PLACES = 100
_SCORING_MINUTES = 2.0


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
    show("Each prediction, and what was measured then", [row_of(one) for one in scores])
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
    most = most_per_s(
        fitted_model(tuple(replace(one, valid=True) for one in fitted), seed_of(base))
    )
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
