"""Several models measured side by side: they take turns, so that a drift hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from harness.profiling.subjects import Inputs, Subject
from harness.profiling.timing import (
    SETTLING_CALLS,
    Shape,
    batch_of,
    draw_samples,
    throughput_shapes,
    time_calls,
    time_rates,
)
from harness.profiling.worker import Worker, resident_bytes
from harness.tasks.encoding import EncodedDataset
from harness.types import Progress
from harness.types.card import CardPlan, ColdCalls, RepeatedMeasure, ThroughputPoint

FIRST_CALLS = 10


@dataclass(frozen=True)
class InProcess:
    """What was measured of one subject."""

    cold: ColdCalls
    memory_in_use_bytes: int
    spans_ns: tuple[int, ...]
    """Duration of every timed call at batch 1, in order."""
    distinct_samples: int
    throughput: tuple[ThroughputPoint, ...]


def measure_side_by_side(
    subjects: Sequence[tuple[Subject, EncodedDataset]],
    plan: CardPlan,
    *,
    threads: int,
    seed: int,
    progress: Callable[[Progress], None],
) -> list[InProcess]:
    """Measure the subjects of a family, in rounds of changing order.

    Every subject gets the same rows, as its own tokenizer encodes them, because all draw by the
    same seed.

    Args:
        subjects: each with its data.
        plan: how much.
        threads: within an operator.
        seed: draws samples and the order of turns.
        progress: told each round.

    Raises:
        EnvironmentFailure: a model cannot be loaded or run.
    """
    benches = [_Bench(subject, encoded, plan, seed) for subject, encoded in subjects]
    generator = np.random.default_rng(seed)
    total = plan.fresh_processes + plan.rounds
    with ExitStack() as stack:
        for number in range(plan.fresh_processes):
            progress(Progress("in process", number, total, "cold starts"))
            last = number == plan.fresh_processes - 1
            for turn in generator.permutation(len(benches)):
                worker = benches[turn].start(threads)
                if last:
                    stack.enter_context(worker)
                else:
                    worker.close()
        for number in range(plan.rounds):
            done = plan.fresh_processes + number
            progress(Progress("in process", done, total, f"round {number + 1}"))
            for turn in generator.permutation(len(benches)):
                benches[turn].take_turn(number)
        results = [bench.result() for bench in benches]
    progress(Progress("in process", total, total, "done"))
    return results


@dataclass
class _Bench:
    """One subject, its batches, and what was seen so far."""

    subject: Subject
    encoded: EncodedDataset
    plan: CardPlan
    seed: int
    worker: Worker | None = None
    loads_s: list[float] = field(default_factory=list)
    firsts_ms: list[float] = field(default_factory=list)
    means_ms: list[float] = field(default_factory=list)
    grown_bytes: list[float] = field(default_factory=list)
    spans_ns: list[int] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        self.samples, self.distinct = draw_samples(self.encoded, self.plan.samples, generator)
        self.shapes: tuple[Shape, ...] = throughput_shapes(self.encoded, self.plan.batch_sizes)
        self.batches: list[Inputs] = [
            batch_of(self.encoded, shape, generator) for shape in self.shapes
        ]

    def start(self, threads: int) -> Worker:
        """A fresh process: load, and the first calls."""
        worker = Worker(self.subject, threads)
        (first_ns,) = worker.do(time_calls, self.samples[:1], 0)
        grown_bytes = worker.do(resident_bytes) - worker.opening.memory_before_bytes
        rest_ns = worker.do(time_calls, self.samples[1:FIRST_CALLS], 0)
        self.loads_s.append(worker.opening.load_s)
        self.firsts_ms.append(first_ns / 1e6)
        self.means_ms.append(float(np.mean([first_ns, *rest_ns])) / 1e6)
        self.grown_bytes.append(float(grown_bytes))
        self.worker = worker
        return worker

    def take_turn(self, number: int) -> None:
        """This round's share of the samples, and one measurement of each shape."""
        own = self._open_worker()
        share = self.samples[number :: self.plan.rounds]
        if share:
            self.spans_ns += own.do(time_calls, share, SETTLING_CALLS)
        self.rates.append(own.do(time_rates, self.batches, self.plan.window_s))

    def result(self) -> InProcess:
        own = self._open_worker()
        in_use_bytes = own.do(resident_bytes) - own.opening.memory_before_bytes
        rates = np.array(self.rates)
        return InProcess(
            cold=ColdCalls(
                load_s=spread(self.loads_s),
                first_call_ms=spread(self.firsts_ms),
                first_calls_ms=spread(self.means_ms),
                memory_bytes=spread(self.grown_bytes),
            ),
            memory_in_use_bytes=in_use_bytes,
            spans_ns=tuple(self.spans_ns),
            distinct_samples=self.distinct,
            throughput=tuple(
                ThroughputPoint(batch, length, spread(rates[:, place].tolist()))
                for place, (batch, length) in enumerate(self.shapes)
            ),
        )

    def _open_worker(self) -> Worker:
        if self.worker is None:
            raise RuntimeError(f"{self.subject.name} was not started")
        return self.worker


def spread(values: Sequence[float]) -> RepeatedMeasure:
    """Median, least and greatest."""
    return RepeatedMeasure(float(median(values)), float(min(values)), float(max(values)))
