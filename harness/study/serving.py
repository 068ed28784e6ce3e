"""Triton's side of a sweep."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.system.strict import PositiveInt, Strict
from harness.types import Accelerator


class ServingSpace(Strict):
    """Triton's side of the sweep: every combination is a serving configuration."""

    max_batch_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = Field([16])
    queue_delays_us: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field([0])
    instance_counts: Annotated[list[PositiveInt], Field(min_length=1)] = Field([1])
    intra_op_threads: Annotated[list[PositiveInt], Field(min_length=1)] = Field([1])
    instance_kind: Literal["cpu", "gpu"] = "cpu"
    accelerators: Annotated[list[Accelerator], Field(min_length=1)] = Field(
        [Accelerator.NONE],
        description="How an ONNX graph is run on a GPU: none (the CUDA provider's defaults), cuda, "
        "tensorrt. TensorRT plans are served as they are.",
    )
    response_cache: bool = Field(
        False,
        description="Let Triton's response cache answer repeated inputs, and count its answers: "
        "for a service that is meant to be cached. Otherwise a trial that it answered is invalid.",
    )

    @model_validator(mode="after")
    def _accelerators_have_a_gpu(self) -> Self:
        asked = [str(one) for one in self.accelerators if one is not Accelerator.NONE]
        if asked and self.instance_kind != "gpu":
            raise ValueError(
                f"accelerators {asked} run on a GPU: write instance_kind: gpu, or leave them out"
            )
        return self
