"""What is served, what it is worth, what is asked of it, and what is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness.types.estimates import Pricing


@dataclass(frozen=True)
class Progress:
    """A step of a long piece of work, for the bar on standard error."""

    stage: str
    done: float
    total: float
    note: str = ""


class Role(StrEnum):
    """What a model is in its family."""

    TEACHER = "teacher"
    STUDENT = "student"
    CONTROL = "control"
    """Served and scored to judge the distillation itself; never a candidate."""
    BASELINE = "baseline"
    """A yardstick that is not served (TF-IDF with logistic regression)."""


class ModelFormat(StrEnum):
    """The file that Triton loads."""

    ONNX = "onnx"
    TENSORRT = "tensorrt"


class Precision(StrEnum):
    """The arithmetic of the artefact's weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


FREE_SIZE = -2
"""Dynamic size of an output that follows nothing which the request has; it may be 0."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a served model."""

    name: str
    datatype: str
    """KServe v2 name: INT64, INT32, FP32."""
    shape: tuple[int, ...]
    """Shape without the batch dimension; -1 is dynamic, in an output as long as the request."""
    batched: bool = True
    """False of an output without a batch dimension: `shape` is then all of it."""


@dataclass(frozen=True)
class FailedVariant:
    """A variant of the study that could not be made or served: left out, with its reason."""

    name: str
    family: str
    role: Role
    cause: str
    """export: there is no sound artefact; serving: the server does not load or answer it."""
    reason: str
    """Whole, as the error said it."""
    next_step: str = ""


@dataclass(frozen=True)
class ModelVariant:
    """One servable artefact: `path` is its folder in the model repository."""

    name: str
    family: str
    role: Role
    task: str
    """The kind of its family: a name in `harness.tasks.registry`."""
    format: ModelFormat
    precision: Precision
    source: str
    """The checkpoint it was exported from, as the study names it."""
    sha256: str
    """Digest of the artefact's file (`model.onnx`, `model.plan`); where only an external server has
    it, `remote:` and a digest of the address, of what that says of it and of what it answers."""
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    """Number of trained weights of the checkpoint."""
    size_bytes: int | None
    """Size of the artefact's file; None where only an external server has it."""
    parity: Mapping[str, float] = field(default_factory=dict)
    """Largest absolute difference from the checkpoint, by output name."""
    ensemble_of: str = ""
    """Of an ensemble that serves a variant with its pre- and post-processing: that variant."""
    batches: bool = True
    """False of a model whose configuration has `max_batch_size` 0, and keeps it."""
    served_as: str = ""
    """The model's name on an external server, where that is another."""
    routes_to: tuple[str, ...] = ()
    """The student and the teacher that a router passes requests on to; empty for others."""
    drafted_by: str = ""
    """Of a teacher that writes with a draft beside it: the variant that is the draft."""

    @property
    def is_composed(self) -> bool:
        """Whether it is made of other variants, and no candidate itself.

        An ensemble, a router, or a teacher with a draft.
        """
        return bool(self.ensemble_of or self.routes_to or self.drafted_by)

    @property
    def hex_digest(self) -> str:
        """The artefact's digest without the `remote:` of models that only a server has.

        Files and folders that are kept for an artefact have its beginning in their names.
        """
        return self.sha256.rpartition(":")[2]

    @property
    def served_name(self) -> str:
        """The model's name on the server."""
        return self.served_as or self.name


class Decision(StrEnum):
    """What the evidence says of an objective."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    FAIL = "fail"
    UNDECIDED = "undecided"
    INVALID = "invalid"
    """The measurement itself cannot be trusted; it decides nothing."""


@dataclass(frozen=True)
class Constraint:
    """One clause of an objective, for example `p95 < 50 ms`."""

    metric: str
    """p50, p90, p95, p99, mean, error_rate, throughput, or a quality metric's name."""
    operator: str
    """<, <=, >, >=."""
    value: float
    """Bound in the metric's own unit (ms; a share; 1/s), or the factor of the teacher's value."""
    relative_to_teacher: bool
    text: str
    """The clause as it was written."""


@dataclass(frozen=True)
class ServiceLevelObjective:
    """The parsed objective of a study: all its constraints must hold."""

    text: str
    constraints: tuple[Constraint, ...]
    pricing: Pricing | None = None
    """What a clause on cost is priced on; None where nobody named a machine."""


@dataclass(frozen=True)
class Rejection:
    """A candidate that is not recommended, and why."""

    variant: str
    trial_id: str | None
    """The trial that it rests on; None for a variant that was ruled out before any load."""
    cause: str
    """export, serving, quality, latency, throughput, error_rate, invalid, undecided, slower,
    teacher."""
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
class QualityScore:
    """One metric of one variant, taken through the endpoint, beside the teacher's."""

    variant: str
    family: str
    role: Role
    metric: str
    """One of `harness.metrics`; of an lm-eval task `TASK/METRIC`."""
    value: float
    low: float | None
    """Lower end of the 95% interval; None where the data allows none (a single document)."""
    high: float | None
    samples: int
    sha256: str
    """Digest of the artefact that answered; empty for a baseline that is not served."""
    relative_to_teacher: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    p_value: float | None = None
    """McNemar's exact test for accuracy and what else is 0 or 1 a sample; None for the rest."""
    outcomes_file: str = ""
    """Per-sample outcomes, relative to the run folder."""
    units: int | None = None
    """What of the samples is independent: documents of windows, contexts of questions, else the
    samples themselves. None in runs from before it was kept."""
    standard_error: float | None = None
    """Standard error of the value; 0 where all units agree, None where it is not to be had."""
    relative_standard_error: float | None = None


@dataclass(frozen=True)
class BatchConsistency:
    """Whether a variant answers alike at every batch size, against batch 1."""

    variant: str
    batch_size: int
    samples: int
    changed_predictions: int
    max_abs_difference: float


@dataclass(frozen=True)
class TaskEntry:
    """One lm-eval task (or group of tasks) as one variant answered it."""

    variant: str
    sha256: str
    task: str
    """The task as it was asked for."""
    digest: str
    """SHA-256 of every request it made."""
    scores: tuple[QualityScore, ...]
    requests: int
    unanswered: int
    truncated: int
    """Requests whose context was cut from the left to the model's length."""
    windowed: int
    """Texts that took more than one window."""
    from_cache: int = 0
    """Answers that were known from an earlier run, and not asked for again."""
    asked: int = 0
    """Answers that were asked for: a request may take several, or share one."""
    teacher_sha256: str = ""
    """Digest of the teacher it was compared with: beside another it is scored again."""

    @property
    def key(self) -> str:
        """What a later entry of the same name replaces."""
        return f"{self.variant}/{self.task}"
