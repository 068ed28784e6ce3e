"""The timing of models, several of them side by side: in turns, so a drift hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from harness.profiling.subjects import Inputs, Opened, Subject
from harness.profiling.worker import Worker, resident_bytes
from harness.tasks.encoding import EncodedDataset
from harness.types import Progress
from harness.types.card import CardPlan, ColdCalls, RepeatedMeasure, ThroughputPoint

SETTLING_CALLS = 3
"""Untimed, whenever a model takes its turn: another one had the caches before."""
FEWEST_CALLS = 2
"""Fewest calls of one measurement of throughput, however long they take."""


def time_calls(opened: Opened, batches: Sequence[Inputs], settling: int) -> list[int]:
    """Nanoseconds of each call, one batch after another.

    Args:
        opened: the model.
        batches: a call each.
        settling: untimed calls before them, on the first of the batches.
    """
    prepared = [opened.ready(one) for one in batches]
    with _no_collection():
        for _ in range(settling):
            opened.run(prepared[0])
        spans_ns = []
        for one in prepared:
            start = time.perf_counter_ns()
            opened.run(one)
            spans_ns.append(time.perf_counter_ns() - start)
    return spans_ns


def time_rates(opened: Opened, batches: Sequence[Inputs], window_s: float) -> list[float]:
    """Rows a second of each batch, called over and over for a window of time."""
    return [_rate(opened, batch, window_s) for batch in batches]


def _rate(opened: Opened, batch: Inputs, window_s: float) -> float:
    prepared = opened.ready(batch)
    rows = len(next(iter(batch.values())))
    with _no_collection():
        opened.run(prepared)
        calls = 0
        start = time.perf_counter()
        while (elapsed_s := time.perf_counter() - start) < window_s or calls < FEWEST_CALLS:
            opened.run(prepared)
            calls += 1
    return rows * calls / elapsed_s


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage is not collected inside a measurement, but before it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


Shape = tuple[int, int]
"""Batch and length."""
SHORTEST = 4


def draw_samples(
    encoded: EncodedDataset, samples: int, generator: np.random.Generator
) -> tuple[list[Inputs], int]:
    """Rows of one each, at random, each padded to its own bucket.

    A data set that has fewer is gone through again in another order.

    Returns:
        The batches, and how many distinct samples are among them.
    """
    places = [(group, row) for group in encoded.groups for row in range(len(group.rows))]
    order = np.concatenate(
        [generator.permutation(len(places)) for _ in range(-(-samples // len(places)))]
    )[:samples]
    batches: list[Inputs] = []
    for place in order.tolist():
        group, row = places[place]
        batches.append({name: values[row : row + 1] for name, values in group.inputs.items()})
    return batches, len(set(order.tolist()))


def lengths_of(encoded: EncodedDataset) -> tuple[int, ...]:
    """The data's buckets, ascending; of a single one also its half and its quarter."""
    own = sorted({group.length for group in encoded.groups})
    if len(own) > 1:
        return tuple(own)
    return tuple(sorted({max(SHORTEST, own[0] // 4), max(SHORTEST, own[0] // 2), own[0]}))


def throughput_shapes(encoded: EncodedDataset, batch_sizes: Sequence[int]) -> tuple[Shape, ...]:
    """Every batch at the longest length; at the others the smallest and the largest batch."""
    *shorter, longest = lengths_of(encoded)
    ends = sorted({min(batch_sizes), max(batch_sizes)})
    return (
        *((batch, longest) for batch in batch_sizes),
        *((batch, length) for length in shorter for batch in ends),
    )


def batch_of(encoded: EncodedDataset, shape: Shape, generator: np.random.Generator) -> Inputs:
    """Real rows in a shape, from the group of that length, or cut from the next longer one.

    Rows repeat only where a group has too few.
    """
    batch, length = shape
    group = next((one for one in encoded.groups if one.length >= length), encoded.groups[-1])
    there = len(group.rows)
    rows = generator.choice(there, size=batch, replace=there < batch)
    return {name: values[rows, :length] for name, values in group.inputs.items()}


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
        """Take this round's share of the samples, and measure each shape once."""
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
    """The median, minimum and maximum of samples."""
    return RepeatedMeasure(float(median(values)), float(min(values)), float(max(values)))
