"""What is served: a checkpoint made into an artefact; and the progress of long work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


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
"""Of an output: a dynamic size that follows nothing which the request has; it may be 0."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a served model."""

    name: str
    datatype: str
    """KServe v2 name: INT64, INT32, FP32."""
    shape: tuple[int, ...]
    """Without the batch dimension; -1 is dynamic, of an output as long as the request."""
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
    """Of the artefact's file (`model.onnx`, `model.plan`); where only an external server has
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
    pipeline_of: str = ""
    """Of an ensemble that serves a variant with its pre- and post-processing: that variant."""
    batches: bool = True
    """False of a model whose configuration has `max_batch_size` 0, and keeps it."""
    served_as: str = ""
    """The model's name on an external server, where that is another."""

    @property
    def served_name(self) -> str:
        """The model's name on the server."""
        return self.served_as or self.name
