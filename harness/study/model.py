"""A model of a study: a checkpoint, and the variants that are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from harness.system.strict import Name, PositiveInt, Strict, resolve
from harness.types import ModelFormat, Precision, Role

REFERENCE_PREFIX = "reference:"
PLAN_SUFFIX = "-trt"


class Model(Strict):
    """A checkpoint and the precisions to serve it in; a variant each."""

    name: Name
    role: Role
    checkpoint: str = Field(
        description="Hub name, local folder (relative to the study file), or reference:NAME."
    )
    precisions: Annotated[list[Precision], Field(min_length=1)] = Field([Precision.FP32])
    formats: Annotated[list[ModelFormat], Field(min_length=1)] = Field(
        [ModelFormat.ONNX],
        description="onnx: a graph for ONNX Runtime; tensorrt: a plan, built on the GPU that will "
        "serve it. Each precision is made in each.",
    )
    calibration_samples: PositiveInt = Field(
        256,
        description="int8 plans: how many samples, drawn with the seed, set the ranges of the "
        "activations. Their labels are not read.",
    )
    inputs: dict[str, str] = Field(
        {},
        description="With --url: what an input is called there, by our name for it, where it is "
        "another: {input_ids: ids}.",
    )
    outputs: dict[str, str] = Field(
        {},
        description="With --url: what an output is called there, by our name for it, where it is "
        "another: {logits: scores}.",
    )
    revision: str | None = None
    trust_remote_code: bool = Field(
        False, description="Run the checkpoint's own Python code. Off by default."
    )

    @field_validator("checkpoint")
    @classmethod
    def _folder_exists(cls, checkpoint: str, info: ValidationInfo) -> str:
        if not checkpoint.startswith((".", "/", "~")):
            if (resolve(Path(checkpoint), info) / "config.json").is_file():
                raise ValueError(
                    f"a hub name or a folder? A folder of that name is there: write ./{checkpoint}"
                )
            return checkpoint
        folder = resolve(Path(checkpoint), info)
        if not (folder / "config.json").is_file():
            raise ValueError(f"no checkpoint there: {folder} has no config.json")
        return str(folder)

    @property
    def artefacts(self) -> list[tuple[Precision, ModelFormat]]:
        """What is made of the checkpoint: a variant each."""
        return [(precision, form) for form in self.formats for precision in self.precisions]

    @property
    def reference_name(self) -> str | None:
        """Name of the embedded model, if this is one."""
        if self.checkpoint.startswith(REFERENCE_PREFIX):
            return self.checkpoint.removeprefix(REFERENCE_PREFIX)
        return None


def variant_name(model: Model, precision: Precision, form: ModelFormat = ModelFormat.ONNX) -> str:
    """Name of a model's variant: its folder in the model repository."""
    return f"{model.name}-{precision}{PLAN_SUFFIX if form is ModelFormat.TENSORRT else ''}"


def teacher_first(models: Sequence[Model]) -> list[Model]:
    """The teacher, then the others in their order."""
    return sorted(models, key=lambda model: model.role is not Role.TEACHER)


def variants_of(model: Model) -> list[str]:
    """Names of a model's variants."""
    return [variant_name(model, *artefact) for artefact in model.artefacts]
