"""The offline mode: how many samples per second at growing batches, until doubling brings little.

Each batch is measured in the same rounds as its double, one right after the other, so that a drift
of the machine cancels in their ratio. Student's t over the logarithms of the rounds' ratios gives
its interval; more rounds are added until the interval lies on one side of what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy

from harness.profiling.subjects import Inputs
from harness.profiling.timing import batch_of, spread, time_rates
from harness.profiling.worker import Worker
from harness.tasks.encoding import EncodedDataset
from harness.types import Progress
from harness.types.card import RepeatedMeasure
from harness.types.profiles import Scaling, ScalingStep
from harness.words.numbers import asked, asked_percent

CONFIDENCE = 0.95
WINDOW_S = 0.05
LONGEST_CALL_S = 4.0
LARGEST_BATCH = 512


@dataclass(frozen=True)
class WalkTerms:
    """How far and how carefully the doublings are walked up."""

    looks: tuple[int, ...] = (6, 12, 24)
    """Rounds after which a growth is judged; those of the last are the most."""
    largest_batch: int = LARGEST_BATCH
    longest_call_s: float = LONGEST_CALL_S


IN_PROCESS = WalkTerms()

Rates = Callable[[int, int], tuple[float, float]]
"""Samples a second of two batch sizes, measured one after the other."""


@dataclass(frozen=True)
class Growth:
    """What doubling the batch brings, less one, with its interval."""

    value: float
    low: float
    high: float
    pairs: tuple[tuple[float, float], ...]
    """Rates of the batch and of its double, a round each."""


def measure_scaling(
    worker: Worker,
    encoded: EncodedDataset,
    length: int,
    *,
    least_growth: float,
    seed: int,
    progress: Callable[[Progress], None],
) -> Scaling:
    """Double the batch of a loaded model until that brings less than is asked.

    Raises:
        EnvironmentFailure: the model's process failed.
    """
    generator = np.random.default_rng(seed)
    batches: dict[int, Inputs] = {}

    def rates(smaller: int, larger: int) -> tuple[float, float]:
        for size in (smaller, larger):
            if size not in batches:
                batches[size] = batch_of(encoded, (size, length), generator)
        first, second = worker.do(time_rates, [batches[smaller], batches[larger]], WINDOW_S)
        return first, second

    def told(batch: int) -> None:
        runtime = worker.subject.runtime
        at, most = math.log2(batch), math.log2(LARGEST_BATCH)
        progress(Progress(f"batch scaling in {runtime}", at, most, f"batch {batch}"))

    steps, knee, ended = find_knee(rates, least_growth, told)
    return Scaling(worker.subject.runtime, length, least_growth, steps, knee, ended)


def find_knee(
    rates: Rates,
    least_growth: float,
    told: Callable[[int], None] = lambda _: None,
    walk: WalkTerms = IN_PROCESS,
) -> tuple[tuple[ScalingStep, ...], int | None, str]:
    """Walk up the doublings; what is measured is behind `rates`.

    Returns:
        The steps, the batch from which doubling brings too little (None where the walk ended for
        another reason), and why it ended.
    """
    steps: list[ScalingStep] = []
    batch = 1
    while True:
        told(batch)
        growth = measure_growth(partial(rates, batch, 2 * batch), least_growth, walk.looks)
        if not steps:
            steps.append(ScalingStep(1, _rates(growth, 0), rounds=len(growth.pairs)))
        steps.append(
            ScalingStep(
                2 * batch,
                _rates(growth, 1),
                growth.value,
                growth.low,
                growth.high,
                len(growth.pairs),
            )
        )
        wanted = f"{asked_percent(least_growth)}"
        if growth.high < least_growth:
            return tuple(steps), batch, f"doubling brings less than {wanted}, with confidence"
        if growth.low < least_growth and growth.value < least_growth:
            return tuple(steps), batch, f"doubling brings less than {wanted}, by the mean alone"
        batch *= 2
        if batch >= walk.largest_batch:
            return tuple(steps), None, f"batch {batch} is the largest that is tried"
        if batch / steps[-1].per_s.value > walk.longest_call_s:
            return tuple(steps), None, f"a call takes over {asked(walk.longest_call_s)} s"


def measure_growth(
    pair: Callable[[], tuple[float, float]],
    least_growth: float,
    looks: Sequence[int] = IN_PROCESS.looks,
) -> Growth:
    """Take rounds until the growth is known to be above or below what is asked, or there are many.

    It is looked at after the rounds that `looks` names, each time at an equal part of the error
    (Bonferroni).
    """
    pairs: list[tuple[float, float]] = []
    confidence = 1 - (1 - CONFIDENCE) / len(looks)
    growth = Growth(0.0, -1.0, math.inf, ())
    for look in looks:
        while len(pairs) < look:
            pairs.append(pair())
        growth = growth_of(pairs, confidence)
        if growth.low >= least_growth or growth.high < least_growth:
            break
    return growth


def growth_of(pairs: Sequence[tuple[float, float]], confidence: float) -> Growth:
    """Mean of the logarithms of the ratios, with Student's t interval, as shares."""
    logs = np.log([second / first for first, second in pairs])
    count = len(logs)
    mean = float(logs.mean())
    half = 0.0
    if count > 1:
        error = float(logs.std(ddof=1)) / math.sqrt(count)
        half = float(scipy.special.stdtrit(count - 1, (1 + confidence) / 2)) * error
    low, value, high = (math.expm1(mean + offset) for offset in (-half, 0.0, half))
    return Growth(value, low, high, tuple(pairs))


def _rates(growth: Growth, place: int) -> RepeatedMeasure:
    return spread([pair[place] for pair in growth.pairs])
