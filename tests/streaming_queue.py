"""A made-up server of streams with continuous batching, step by step, measured as the harness does.

A prompt is read when a slot is free, and gives the first token; then every step gives each row one.
A step takes `step_ms + row_ms * rows`. Its figures come from the harness's own recorder and
results, so latencies, tokens, goodput and intervals are what a real load would have left.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field, replace

from harness.analysis.validity import mean_in_flight
from harness.flow.results import (
    BegunTrial,
    GeneratorSide,
    ServerSide,
    assess_trial,
    client_side,
    write_load,
)
from harness.load.engine.batches import RecordedBatch
from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import dense
from harness.load.transports.streams.tokens import TokenStream
from harness.runs.folder import RunFolder
from harness.study.clauses import request_bounds
from harness.types import (
    Generation,
    GeneratorHealth,
    HostMetrics,
    LoadMode,
    LoadResult,
    ServerMetrics,
    ServiceLevelObjective,
    SparseHistogram,
    StreamApi,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)

MS = 1_000_000
SLICE_S = 0.05
STREAMS = Generation(StreamApi.TRITON, traffic="prompts of stories, up to 24 tokens out")


def streaming_workload(in_flight: int, duration_s: float = 4.0) -> Workload:
    """A closed loop of streams over gRPC."""
    return Workload(WireProtocol.GRPC, 1, in_flight, duration_s, 0.5, 20, generation=STREAMS)


@dataclass(frozen=True)
class Writer:
    """How fast a made-up model writes; times in milliseconds."""

    step_ms: float
    row_ms: float
    read_ms: float
    """Of a prompt."""
    slots: int = 8
    prompt_tokens: int = 12
    shortest: int = 12
    longest: int = 24
    """Tokens of an answer, evenly drawn."""


@dataclass
class _Row:
    due_ns: int
    tokens: int
    at_ns: list[int] = field(default_factory=list)


@dataclass
class _Load:
    """What makes requests due: a closed loop's clients, or arrivals fixed in advance."""

    workload: Workload
    draw: random.Random
    until_ns: int
    due_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.workload.load_mode is LoadMode.CLOSED:
            self.due_ns = [0] * self.workload.concurrency
            return
        at_s = 0.0
        while (at_s := at_s + self.draw.expovariate(self.workload.rate_per_s)) * 1e9 < (
            self.until_ns
        ):
            self.due_ns.append(round(at_s * 1e9))
        heapq.heapify(self.due_ns)

    def ended(self, at_ns: int) -> None:
        if self.workload.load_mode is LoadMode.CLOSED and at_ns < self.until_ns:
            heapq.heappush(self.due_ns, at_ns)


def served(writer: Writer, workload: Workload, until_s: float) -> list[_Row]:
    """Every request that fell due before the end, with the instants of its tokens."""
    draw = random.Random(f"{workload.label} {writer}")
    load = _Load(workload, draw, round(until_s * 1e9))
    now_ns, rows, done = 0, [], []
    while load.due_ns or rows:
        if not rows and load.due_ns[0] > now_ns:
            now_ns = load.due_ns[0]
        while load.due_ns and load.due_ns[0] <= now_ns and len(rows) < writer.slots:
            row = _Row(heapq.heappop(load.due_ns), draw.randint(writer.shortest, writer.longest))
            rows.append(row)
            now_ns += round(writer.read_ms * MS)
            row.at_ns.append(now_ns)
        now_ns += round((writer.step_ms + writer.row_ms * len(rows)) * draw.uniform(0.9, 1.1) * MS)
        for row in rows:
            row.at_ns.append(now_ns)
        for row in [row for row in rows if len(row.at_ns) >= row.tokens]:
            rows.remove(row)
            done.append(row)
            load.ended(now_ns)
    return done


def loaded(writer: Writer, trial: Trial, slo: ServiceLevelObjective, listeners=()) -> LoadResult:
    """A load's slices, as the generators' recorder makes them."""
    workload = trial.workload
    end_s = workload.warmup_s + workload.duration_s
    recorder = Recorder(
        0, round(SLICE_S * 1e9), listeners=listeners, bounds=request_bounds(slo), keep_ids=True
    )
    for number, row in enumerate(served(writer, workload, end_s)):
        stream = TokenStream(writer.prompt_tokens)
        for at_ns in row.at_ns:
            stream.add(at_ns, 1, b"w")
        stream.reported_tokens = len(row.at_ns)
        stream.finish_reason = "length"
        moments = (row.due_ns, row.due_ns, row.at_ns[-1])
        spans = stream.spans_ns(row.due_ns)
        recorder.add_with_spans(*moments, 1, spans, str(number).encode(), stream.summary)
    slices = dense(recorder.take(), round(end_s / SLICE_S))
    return LoadResult(
        start_ns=0,
        slice_s=SLICE_S,
        slices=tuple(slices),
        window_start_ns=round(workload.warmup_s * 1e9),
        window_end_ns=round(end_s * 1e9),
        generators=(GeneratorHealth(0.12, SparseHistogram()),),
        answers_stamped=True,
    )


def measure(
    writer: Writer,
    trial: Trial,
    slo: ServiceLevelObjective,
    *,
    invalid_reason: str = "",
    folder: RunFolder | None = None,
    listeners=(),
) -> TrialResult:
    """A trial's result; its files too, where a folder is given."""
    load = loaded(writer, trial, slo, listeners)
    window = load.window
    clients = client_side(window, SLICE_S, trial.workload, 0.95, bounds=request_bounds(slo))
    return assess_trial(
        BegunTrial(trial, "0" * 64, "2026-11-23T14:03:00+00:00"),
        slo,
        clients,
        generators=GeneratorSide(0.12, 0.42, mean_in_flight(load), trial.workload.warmup_s),
        served=ServerSide(ServerMetrics(), HostMetrics(cpu_utilization=0.6, server_cpu=1.1)),
        invalid_reason=invalid_reason,
        histogram_file=write_load(folder, trial, load) if folder else "",
    ).result


def record_batches(writer: Writer, trial: Trial, slo: ServiceLevelObjective) -> list[RecordedBatch]:
    """What a record file's writer would be given."""
    batches: list[RecordedBatch] = []
    loaded(writer, trial, slo, [batches.append])
    return batches


def faster(writer: Writer, factor: float) -> Writer:
    """The same in a fraction of the time."""
    return replace(
        writer,
        step_ms=writer.step_ms / factor,
        row_ms=writer.row_ms / factor,
        read_ms=writer.read_ms / factor,
    )
