"""Triton's side of a trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Accelerator(StrEnum):
    """What runs an ONNX graph on a GPU: Triton's names of ONNX Runtime's providers."""

    NONE = "none"
    """What the kind of instance asks for: on a GPU the CUDA provider with its defaults."""
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    """The provider that builds TensorRT engines while the model loads."""


@dataclass(frozen=True)
class ServingConfig:
    """Triton's side of a trial; 0 is what an external server does not say."""

    max_batch_size: int = 16
    queue_delay_us: int = 0
    instance_count: int = 1
    instance_kind: str = "cpu"
    """`cpu` or `gpu`."""
    intra_op_threads: int = 1
    """ONNX Runtime's threads within an operator, per instance."""
    accelerator: Accelerator = Accelerator.NONE
    """What executes an ONNX graph on a GPU."""
    response_cache: bool = False
    """Triton's response cache may answer in the model's place."""

    @property
    def told(self) -> bool:
        """Whether the configuration is known: some external servers do not say."""
        return self.instance_count > 0 or self.max_batch_size > 0

    @property
    def label(self) -> str:
        """Short and unique, as it stands in trial identifiers."""
        if not self.told:
            return "as-served"
        accelerated = "" if self.accelerator is Accelerator.NONE else f"-{self.accelerator}"
        cached = "-cache" if self.response_cache else ""
        return (
            f"mb{self.max_batch_size}-qd{self.queue_delay_us}"
            f"-i{self.instance_count}-t{self.intra_op_threads}{accelerated}{cached}"
        )


def answering_version(versions: Iterable[str]) -> str:
    """The version that answers a request which names none: the highest number.

    Names that are no numbers come before all numbers, the last by the alphabet first; empty of
    none at all.
    """
    return max(versions, key=_rank, default="")


def _rank(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (-1, version)
