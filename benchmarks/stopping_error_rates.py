"""How often a trial that stops early decides wrongly, and how soon it decides, on known queues.

Thousands of whole trials are simulated, looks and all. `false_pass` and `false_fail` are the shares
that decide an objective whose bound is the true p95 itself, where either is wrong. `fails_F` and
`passes_F` are the shares that rightly decide one whose bound is F times the true p95, `median_s_F`
the median length of such a trial, ended undecided or not.

    python benchmarks/stopping_error_rates.py --trials 2000 --json rows.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from known_queues import KnownQueue, closed_loop, mdc, mm1
from rows import Row, show
from simulated_trials import Bounds, run_trials

from harness.analysis.steady_state import LookSchedule

UTILISATIONS = (0.5, 0.8, 0.9, 0.95)
CASES: tuple[Callable[[], KnownQueue], ...] = (
    *(partial(mm1, service_s, load) for service_s in (0.001, 0.01) for load in UTILISATIONS),
    *(partial(mdc, 0.005, load, 4) for load in UTILISATIONS),
    partial(closed_loop, 0.001, 4, 0.2),
    partial(closed_loop, 0.002, 16, 1.0),
    partial(closed_loop, 0.005, 8, 0.1),
)


def main() -> int:
    """Simulate every queue and show the rows."""
    options = _parse(sys.argv[1:])
    schedule = LookSchedule(options.shortest, options.longest, options.confidence)
    work = partial(_row, schedule=schedule, trials=options.trials)
    with ProcessPoolExecutor(options.processes) as pool:
        rows = list(pool.map(work, range(len(CASES))))
    show(
        f"{options.trials:,} trials each, {schedule.shortest_s:g} to {schedule.longest_s:g} s, "
        f"{len(schedule.looks)} looks, {schedule.confidence:.0%} confidence",
        rows,
        options.json,
    )
    return 0


def _row(case: int, *, schedule: LookSchedule, trials: int) -> Row:
    queue = CASES[case]()
    bounds = run_trials(queue, schedule, trials=trials, seed=case)
    truth_ms = queue.truth_s * 1e3
    passed_s, failed_s = bounds.decided(truth_ms)
    return {
        "queue": queue.name,
        "service_ms": queue.service_s * 1e3,
        "utilisation": queue.utilisation,
        "memory_s": queue.memory_s,
        "p95_ms": truth_ms,
        "false_pass": _share(passed_s),
        "false_fail": _share(failed_s),
        **_power(bounds, truth_ms),
    }


def _power(bounds: Bounds, truth_ms: float) -> dict[str, float]:
    """Shares decided within the time, and the median length with the bound far off."""
    far_s, _ = bounds.decided(10 * truth_ms)
    return {
        "fails_0.5": _share(bounds.decided(0.5 * truth_ms)[1]),
        "passes_1.5": _share(bounds.decided(1.5 * truth_ms)[0]),
        "passes_3": _share(bounds.decided(3 * truth_ms)[0]),
        "passes_10": _share(far_s),
        "median_s_10": float(np.median(np.minimum(far_s, bounds.looks_s[-1]))),
    }


def _share(times_s: np.ndarray) -> float:
    return float(np.isfinite(times_s).mean())


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--shortest", type=float, default=0.5, help="first look, seconds")
    parser.add_argument("--longest", type=float, default=8.0, help="time limit, seconds")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
