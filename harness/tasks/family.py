"""What a task family is: everything that one kind of task does in its own way, behind one protocol.

The rest of the harness asks a family, and never which kind it is. A new kind is a folder beside
this file, one line in `registry.py`, and its metrics in the registry of metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic

from harness.tasks.roles.answering import ReadsAnswers
from harness.tasks.roles.base import A, D, R, S
from harness.tasks.roles.explaining import ExplainsLosses
from harness.tasks.roles.exporting import ExportsGraphs
from harness.tasks.roles.reading import ReadsRows
from harness.tasks.roles.scoring import ScoresOutcomes

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class TaskFamily(
    ReadsRows[S, D],
    ExportsGraphs[S],
    ReadsAnswers[S, D, A, R],
    ScoresOutcomes[D, R],
    ExplainsLosses[S, D, R],
    Generic[S, D, A, R],
):
    """One kind of task, in all its roles: what the rest of the harness asks."""

    auto_class: str
    """Name of the class of transformers that opens such a checkpoint."""
    architectures: tuple[str, ...]
    """Endings of the architectures (in config.json) that are made for it."""
    encoder_decoders: bool = False
    """Whether an encoder-decoder may be one of its models."""
    described: str
    """A model of this family in words, for messages: "a sequence classifier"."""
    checkpoint_files: tuple[str, ...] = ()
    """Patterns of small files of a checkpoint that are read beside those of every checkpoint."""

    def made_for(self, config: PretrainedConfig) -> bool:
        """Whether a checkpoint's architecture is one of this kind of task."""
        return (config.architectures or [""])[0].endswith(self.architectures)

    def class_for(self, config: PretrainedConfig) -> str:
        """Name of the class of transformers that opens this checkpoint."""
        return self.auto_class

    def problems(self, config: PretrainedConfig) -> Iterator[str]:
        """Why a checkpoint of such an architecture is not one of this kind, whatever the data."""
        return iter(())

    def label_names(self, config: PretrainedConfig) -> tuple[str, ...] | None:
        """Names of the outputs, in order; None where outputs have no names."""
        return None


AnyFamily = TaskFamily[Any, Any, Any, Any]
