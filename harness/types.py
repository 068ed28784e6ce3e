"""The terms of the project: what the parts hand to each other.

Frozen, standard library only, no behaviour beyond derived names. Field names carry units.
Every other module may import this one; this one imports nothing of the harness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Role(StrEnum):
    """What a model is in its family."""

    TEACHER = "teacher"
    STUDENT = "student"
    CONTROL = "control"
    """Served and scored to judge the distillation itself; never a candidate."""
    BASELINE = "baseline"
    """A yardstick that is not served (TF-IDF with logistic regression)."""


class TaskKind(StrEnum):
    """What a model is asked to do; the names are Hugging Face's pipeline names."""

    SEQUENCE_CLASSIFICATION = "sequence-classification"
    QUESTION_ANSWERING = "question-answering"
    """Extractive: the answer is a span of the context."""
    CAUSAL_LM = "causal-lm"


class ModelFormat(StrEnum):
    """The file that Triton loads."""

    ONNX = "onnx"
    TENSORRT = "tensorrt"


class Precision(StrEnum):
    """The arithmetic of the artefact's weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Accelerator(StrEnum):
    """What runs an ONNX graph on a GPU: Triton's names of ONNX Runtime's providers."""

    NONE = "none"
    """What the kind of instance asks for: on a GPU the CUDA provider with its defaults."""
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    """The provider that builds TensorRT engines while the model loads."""


class WireProtocol(StrEnum):
    """How a client speaks KServe v2 to the server."""

    HTTP = "http"
    GRPC = "grpc"


class LoadMode(StrEnum):
    """What makes the next request due."""

    CLOSED = "closed"
    """N requests in flight: the next is sent when one completes."""
    OPEN = "open"
    """Requests fall due at times fixed in advance, whatever the server does."""


class ArrivalKind(StrEnum):
    """How the times between an open loop's requests are drawn."""

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"
    """Burstier (or smoother) than Poisson: `burstiness_cv` is what tells them apart."""
    TRACE = "trace"
    """Timestamps from a file."""


class ShapeKind(StrEnum):
    """How a load changes over time."""

    FLAT = "flat"
    RAMP = "ramp"
    STEP = "step"
    SPIKE = "spike"
    SINE = "sine"
    """Diurnal: `period_s` is the day."""


class Decision(StrEnum):
    """What the evidence says of an objective."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    FAIL = "fail"
    UNDECIDED = "undecided"
    INVALID = "invalid"
    """The measurement itself cannot be trusted; it decides nothing."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a served model."""

    name: str
    datatype: str
    """KServe v2 name: INT64, INT32, FP32."""
    shape: tuple[int, ...]
    """Without the batch dimension; -1 is dynamic."""


@dataclass(frozen=True)
class ModelVariant:
    """One servable artefact: `path` is its folder in the model repository."""

    name: str
    family: str
    role: Role
    task: TaskKind
    format: ModelFormat
    precision: Precision
    source: str
    """The checkpoint it was exported from, as the study names it."""
    sha256: str
    """Of the artefact's file (`model.onnx`, `model.plan`); `remote:` and a digest of what its
    server says of it where only that server has the file."""
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    """Number of trained weights of the checkpoint."""
    size_bytes: int
    """Size of the artefact's file."""
    parity: Mapping[str, float] = field(default_factory=dict)
    """Largest absolute difference from the checkpoint, by output name."""
    pipeline_of: str = ""
    """Of an ensemble that serves a variant with its pre- and post-processing: that variant."""
    served_as: str = ""
    """The model's name on a server of somebody else's, where that is another."""

    @property
    def served_name(self) -> str:
        """The model's name on the server."""
        return self.served_as or self.name


@dataclass(frozen=True)
class ServingConfig:
    """Triton's side of a trial; 0 is what a server of somebody else's does not tell."""

    max_batch_size: int = 16
    queue_delay_us: int = 0
    instance_count: int = 1
    instance_kind: str = "cpu"
    """`cpu` or `gpu`."""
    intra_op_threads: int = 1
    """ONNX Runtime's threads within an operator, per instance."""
    accelerator: Accelerator = Accelerator.NONE
    """Of ONNX graphs on a GPU."""

    @property
    def told(self) -> bool:
        """Whether it is known: some servers of somebody else's tell nothing."""
        return self.instance_count > 0 or self.max_batch_size > 0

    @property
    def label(self) -> str:
        """Short and unique, as it stands in trial identifiers."""
        if not self.told:
            return "as-served"
        accelerated = "" if self.accelerator is Accelerator.NONE else f"-{self.accelerator}"
        return (
            f"mb{self.max_batch_size}-qd{self.queue_delay_us}"
            f"-i{self.instance_count}-t{self.intra_op_threads}{accelerated}"
        )


@dataclass(frozen=True)
class LoadShape:
    """A factor of the nominal load over time, for open loops (rate) and closed ones (users).

    `harness.load.shapes` says what each kind does with `low`, `high` and `period_s`.
    """

    kind: ShapeKind = ShapeKind.FLAT
    low: float = 1.0
    high: float = 1.0
    period_s: float = 60.0


@dataclass(frozen=True)
class ArrivalProcess:
    """How an open loop's requests fall due."""

    kind: ArrivalKind = ArrivalKind.POISSON
    burstiness_cv: float = 1.0
    """Gamma only: coefficient of variation of the gaps; 1 is Poisson, above it comes in bursts."""
    trace: Path | None = None
    shape: LoadShape = LoadShape()

    @property
    def label(self) -> str:
        """Short, as it stands in trial identifiers."""
        name = str(self.kind)
        if self.kind is ArrivalKind.GAMMA:
            name += f"{self.burstiness_cv:g}"
        if self.trace is not None:
            name += f"-{self.trace.stem}"
        if self.shape.kind is not ShapeKind.FLAT:
            name += f"-{self.shape.kind}{self.shape.low:g}to{self.shape.high:g}"
        return name


@dataclass(frozen=True)
class Workload:
    """The client's side of a trial."""

    protocol: WireProtocol
    client_batch_size: int
    """Rows a request; with a mix, its largest."""
    concurrency: int
    """Closed loop: requests in flight. Open loop: the bound of requests in flight; what falls due
    beyond it is dropped, and counted."""
    duration_s: float
    """Of the measured window: its longest, where the trial may end as soon as it is decided."""
    warmup_s: float
    """Longest; it ends sooner where a steady state is found."""
    seed: int
    load_mode: LoadMode = LoadMode.CLOSED
    rate_per_s: float | None = None
    """Open loop: nominal requests a second; None for a trace, which has its own."""
    arrivals: ArrivalProcess = ArrivalProcess()
    """Open loop only."""
    min_duration_s: float | None = None
    """The window's shortest, before which nothing is decided; None runs `duration_s` out."""
    batch_mix: tuple[tuple[int, float], ...] = ()
    """(rows, weight): client batch sizes are drawn from it; empty: all of `client_batch_size`."""
    length_mix: tuple[tuple[int, float], ...] = ()
    """(padded length, weight): sequence lengths are drawn from it; empty: the data set's own."""

    @property
    def label(self) -> str:
        """Short and unique, as it stands in trial identifiers."""
        batch = "mix" if self.batch_mix else ""
        parts = [str(self.protocol), f"b{self.client_batch_size}{batch}"]
        if self.load_mode is LoadMode.OPEN:
            rate = "" if self.rate_per_s is None else f"r{self.rate_per_s:g}-"
            parts.append(f"{rate}{self.arrivals.label}")
        else:
            parts.append(f"c{self.concurrency}")
        return "-".join(parts)


@dataclass(frozen=True)
class RequestRecord:
    """One request: schedule delay is sent - scheduled, service latency completed - sent."""

    scheduled_ns: int
    sent_ns: int
    completed_ns: int
    status: str
    """`ok` or the kind of failure."""


@dataclass(frozen=True)
class SparseHistogram:
    """How often each latency was seen, in HDR buckets of microseconds (`harness.hdr`)."""

    buckets: tuple[int, ...] = ()
    """Bucket indices that hold something, ascending."""
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Latencies:
    """The three spans of the requests of one outcome."""

    schedule_delay: SparseHistogram = SparseHistogram()
    """Sent - scheduled."""
    service: SparseHistogram = SparseHistogram()
    """Completed - sent."""
    response: SparseHistogram = SparseHistogram()
    """Completed - scheduled: the latency that counts."""


@dataclass(frozen=True)
class TimeSlice:
    """What was seen of one slice of a load's time; slices of one load are equally long.

    A request belongs to the slice it was scheduled in, however late it completed. Slices of
    several processes add up exactly (`harness.load.recorder.merge_slices`).
    """

    index: int
    """From the load's start, warm-up included."""
    ok: Latencies = Latencies()
    failed: Latencies = Latencies()
    failures: Mapping[str, int] = field(default_factory=dict)
    """By kind, of requests scheduled inside the slice."""
    dropped: int = 0
    """Fell due inside the slice, with no request in flight to spare: never sent."""
    completed: int = 0
    """Successes that completed inside the slice, whenever they were scheduled."""
    inferences: int = 0
    """Rows of those."""


@dataclass(frozen=True)
class Percentile:
    """A quantile of latency with its confidence interval."""

    value_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class ServiceLatency:
    """Latency from the actual send: what most load testers report, for comparison only."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class LatencySummary:
    """Latency from the scheduled time, over the requests that succeeded."""

    count: int
    mean_ms: float
    min_ms: float
    max_ms: float
    percentiles: Mapping[str, Percentile]
    """By name: p50, p90, p95, p99."""
    confidence: float
    design_effect: float
    """How many requests count as one independent sample (1 = all independent)."""
    mean_low_ms: float | None = None
    """Confidence bounds of the mean by batch means; None from a single block."""
    mean_high_ms: float | None = None


@dataclass(frozen=True)
class GeneratorEvidence:
    """Whether one generator process kept up, over the measured window."""

    cpu_cores: float
    """1.0 is a core saturated, and with it this process."""
    loop_lag: SparseHistogram
    """How much later than asked its event loop woke a sleeper."""
    memory_bytes: int = 0
    """Resident, at the window's end."""


@dataclass(frozen=True)
class LoadResult:
    """What the load generators saw of one trial, merged over their processes."""

    start_ns: int
    """Of slice 0. CLOCK_MONOTONIC, as are all times between processes of one machine."""
    slice_s: float
    slices: tuple[TimeSlice, ...]
    """The whole load in order of time, warm-up included; slices without requests are there too."""
    window_start_ns: int
    """A slice's start: what lies before is warm-up."""
    window_end_ns: int
    """A slice's end."""
    generators: tuple[GeneratorEvidence, ...]
    """A process each."""
    first_failure: str = ""
    """The first failure's own words."""
    records_problem: str = ""
    """Why not every request could be written down one by one, where that was asked for."""
    answers_stamped: bool = False
    """Latencies end when the kernel received the answer, however late the generator read it."""

    @property
    def duration_s(self) -> float:
        """Length of the measured window."""
        return (self.window_end_ns - self.window_start_ns) / 1e9

    @property
    def warmup_s(self) -> float:
        """What was cut."""
        return (self.window_start_ns - self.start_ns) / 1e9

    @property
    def window(self) -> tuple[TimeSlice, ...]:
        """The measured slices."""
        slice_ns = self.slice_s * 1e9
        first = round((self.window_start_ns - self.start_ns) / slice_ns)
        last = round((self.window_end_ns - self.start_ns) / slice_ns)
        return tuple(one for one in self.slices if first <= one.index < last)

    @property
    def completed(self) -> int:
        """Successful requests that completed inside the window."""
        return sum(one.completed for one in self.window)

    @property
    def inferences(self) -> int:
        """Rows of those."""
        return sum(one.inferences for one in self.window)

    @property
    def dropped(self) -> int:
        """Requests that fell due inside the window and were never sent."""
        return sum(one.dropped for one in self.window)

    @property
    def failures(self) -> dict[str, int]:
        """By kind, of requests scheduled inside the window; those dropped are not among them."""
        by_kind: Counter[str] = Counter()
        for one in self.window:
            by_kind.update(one.failures)
        return dict(by_kind)

    @property
    def generator_cpu(self) -> float:
        """Cores used by the busiest process (1.0 = saturated)."""
        return max((one.cpu_cores for one in self.generators), default=0.0)


@dataclass(frozen=True)
class PartMetrics:
    """What Triton counted for one composing model of an ensemble, means a request."""

    model: str
    requests: int
    queue_ms: float
    compute_ms: float
    """Input copy, execution and output copy together."""


@dataclass(frozen=True)
class ServerMetrics:
    """What Triton counted for one model over the trial's window; None = not offered."""

    requests: int | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    """By Triton's reason: REJECTED, CANCELED, BACKEND, OTHER."""
    inferences: int | None = None
    executions: int | None = None
    queue_ms: float | None = None
    """Mean a request."""
    compute_input_ms: float | None = None
    compute_infer_ms: float | None = None
    compute_output_ms: float | None = None
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    """Executed batch size -> executions."""
    counters_reset: bool = False
    """The server or the model restarted inside the window."""
    requests_uncertainty: int = 0
    """At most how far `requests` may be off: a Prometheus knows a counter at its scrapes only."""
    problem: str = ""
    """Why figures are missing, where a Prometheus was asked for them."""
    parts: tuple[PartMetrics, ...] = ()
    """An ensemble's composing models, in the order a request passes them."""

    @property
    def batch_mean(self) -> float | None:
        """Mean executed batch: inferences over executions."""
        if not self.inferences or not self.executions:
            return None
        return self.inferences / self.executions

    @property
    def compute_ms(self) -> float | None:
        """Input copy, inference and output copy together, mean a request."""
        parts = (self.compute_input_ms, self.compute_infer_ms, self.compute_output_ms)
        known = [part for part in parts if part is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class HostMetrics:
    """The machine, over the trial's window; None where there is nothing to read."""

    cpu_utilization: float | None = None
    """0 to 1, over all cores."""
    server_cpu: float | None = None
    """Cores used by the server's process tree."""
    server_memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    gpu_utilization: float | None = None
    gpu_memory_bytes: int | None = None
    gpu_power_w: float | None = None


@dataclass(frozen=True)
class QualityScore:
    """One metric of one variant, taken through the endpoint, beside the teacher's."""

    variant: str
    family: str
    role: Role
    metric: str
    """One of `harness.planning.objective.QUALITY_METRICS`; of an lm-eval task `TASK/METRIC`."""
    value: float
    low: float
    high: float
    samples: int
    sha256: str
    """Of the artefact that answered; empty for a baseline that is not served."""
    relative_to_teacher: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    p_value: float | None = None
    """McNemar's exact test for accuracy and what else is 0 or 1 a sample; None for the rest."""
    outcomes_file: str = ""
    """Per-sample outcomes, relative to the run folder."""


@dataclass(frozen=True)
class BatchConsistency:
    """Whether a variant answers alike at every batch size, against batch 1."""

    variant: str
    batch_size: int
    samples: int
    changed_predictions: int
    max_abs_difference: float


@dataclass(frozen=True)
class Trial:
    """variant x serving config x workload: a point to be measured."""

    variant: str
    family: str
    serving: ServingConfig
    workload: Workload
    stage: str = "sweep"
    """Which part of the search asked for it: workload, protocol, serving, refine, confirm,
    grid."""
    repeat: int = 0

    @property
    def trial_id(self) -> str:
        """Deterministic, so that a resumed run finds what it measured."""
        repeat = f"-r{self.repeat}" if self.repeat else ""
        return f"{self.variant}--{self.serving.label}--{self.workload.label}{repeat}"


@dataclass(frozen=True)
class TrialResult:
    """A trial and all that was measured of it."""

    trial: Trial
    sha256: str
    """Of the artefact that the server had loaded."""
    started_utc: str
    duration_s: float
    requests: int
    """Answered correctly, scheduled inside the window."""
    failures: int
    failures_by_kind: Mapping[str, int]
    throughput_requests_per_s: float
    throughput_inferences_per_s: float
    latency: LatencySummary | None
    """None when no request succeeded."""
    schedule_delay_p99_ms: float | None
    generator_cpu: float
    """Cores used by the busiest generator process."""
    server: ServerMetrics
    host: HostMetrics
    valid: bool
    invalid_reason: str = ""
    histogram_file: str = ""
    decision: Decision = Decision.UNDECIDED
    reason: str = ""
    """Why the decision is not a pass, in words."""
    dropped: int = 0
    """Open loop: fell due with the bound of requests in flight reached, and was never sent."""
    warmup_s: float = 0.0
    """Cut before the window."""
    offered_requests_per_s: float = 0.0
    """Scheduled inside the window, sent or dropped."""
    service: ServiceLatency | None = None
    """From the send rather than the schedule; None when no request succeeded."""
    loop_lag_p99_ms: float | None = None
    """Of the worst generator process."""
    in_flight_mean: float | None = None
    """Requests that were on their way at a time; in a closed loop `concurrency` was asked for."""
    records_problem: str = ""
    """Why not every request could be written down one by one, where that was asked for."""

    @property
    def client_ms(self) -> float | None:
        """Mean a request that the server does not account for: client, network, front end.

        Client and server cut the window by their own clocks; where that makes the server's mean
        the greater one the rest is 0, never negative. None where either side gave no numbers.
        """
        queue_ms, compute_ms = self.server.queue_ms, self.server.compute_ms
        if self.latency is None or queue_ms is None or compute_ms is None:
            return None
        return max(0.0, self.latency.mean_ms - queue_ms - compute_ms)


@dataclass(frozen=True)
class ColdStart:
    """A variant from its loading to its steady state, one request in flight."""

    variant: str
    sha256: str
    serving: ServingConfig
    load_s: float
    """From the order to load to READY; the model's own warm-up requests are part of it."""
    first_request_ms: float
    """A new connection's first request, connecting included."""
    requests: int
    """Sent in all, one after another."""
    steady_after_requests: int | None
    """How many came before the steady state; None where none was found."""
    steady_after_s: float | None
    """From READY."""
    steady_ms: float | None
    """Mean latency from then on."""


@dataclass(frozen=True)
class Constraint:
    """One clause of an objective, for example `p95 < 50 ms`."""

    metric: str
    """p50, p90, p95, p99, mean, error_rate, throughput, or a quality metric's name."""
    operator: str
    """<, <=, >, >=."""
    value: float
    """In the metric's own unit (ms; a share; 1/s), or the factor of the teacher's value."""
    relative_to_teacher: bool
    text: str
    """The clause as it was written."""


@dataclass(frozen=True)
class ServiceLevelObjective:
    """All clauses must hold."""

    text: str
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True)
class Rejection:
    """A candidate that is not recommended, and why."""

    variant: str
    trial_id: str | None
    """None for a variant that its quality ruled out before any load."""
    cause: str
    """quality, latency, throughput, error_rate, invalid, undecided, slower."""
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of one family."""

    family: str
    slo: str
    decision: Decision
    recommended: str | None
    """Identifier of the recommended trial."""
    summary: str
    """One sentence for a person."""
    rejected: tuple[Rejection, ...]
    next_step: str = ""
    """What would decide it, where it is undecided."""
    pruned: tuple[Rejection, ...] = ()
    """Points never measured, because a measured one already ruled them out."""


@dataclass(frozen=True)
class Progress:
    """A step of a long piece of work, for the bar on standard error."""

    stage: str
    done: float
    total: float
    note: str = ""
