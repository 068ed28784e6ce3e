"""A checkpoint while it is being exported: loaded once, traced once, asked once.

Nothing is done before it is needed: where every artefact is there already, the weights are never
read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.export.checkpoint import Checkpoint
from harness.export.configuration import length_problems
from harness.export.convert import OPSET, write_fp32
from harness.export.probes import Probe, make_probes, sample_batch
from harness.export.weights import load_model
from harness.study import Model, Task
from harness.tasks.encoding import EncodedDataset
from harness.types import Precision, TaskKind, TensorSpec

if TYPE_CHECKING:
    from harness.export.graphs import Graph

REVISION = 2
"""Of the recipe: raise it when the same checkpoint would export to another graph."""
EXAMPLE_SHAPE = (3, 17)
"""(batch, sequence) to trace with: neither 1, which would become a constant, nor each other."""
_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportSource:
    """One checkpoint, its task, and the samples it is probed with."""

    model: Model
    checkpoint: Checkpoint
    task: Task
    encoded: EncodedDataset
    scratch: Path
    """A folder for the single-precision graph that all precisions are made from."""

    def recipe(self, precision: Precision) -> dict[str, Any]:
        """All that decides what the artefact is, as JSON has it."""
        return {
            "revision": REVISION,
            "checkpoint": self.checkpoint.digest,
            "kind": str(self.task.kind),
            "precision": str(precision),
            "inputs": self.input_names,
            "max_length": self.task.max_length,
            "opset": OPSET,
            "versions": {tool: version(tool) for tool in _TOOLS},
        }

    @property
    def input_names(self) -> list[str]:
        """Of the served model, in order."""
        return list(self.encoded.groups[-1].inputs)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Of the served model."""
        return tuple(TensorSpec(name, "INT64", (-1,)) for name in self.input_names)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Of the served model."""
        if self.task.kind is TaskKind.SEQUENCE_CLASSIFICATION:
            return (TensorSpec("logits", "FP32", (self.probes[0].values.shape[-1],)),)
        if self.task.kind is TaskKind.QUESTION_ANSWERING:
            return (
                TensorSpec("start_logits", "FP32", (-1,)),
                TensorSpec("end_logits", "FP32", (-1,)),
            )
        return (
            TensorSpec("token_logprobs", "FP32", (-1,)),
            TensorSpec("greedy_token_ids", "INT64", (-1,)),
        )

    @cached_property
    def graph(self) -> Graph:
        """The loaded checkpoint, wrapped for its task.

        Raises:
            CheckpointError: it cannot be read, or does not fit the samples.
        """
        from harness.export.graphs import make_graph

        loaded = load_model(self.model, self.checkpoint.folder, self.task.kind)
        problems = list(_misfits(loaded.config, self.encoded))
        if problems:
            raise CheckpointError(f"checkpoint {self.checkpoint.name}: {'; '.join(problems)}")
        return make_graph(loaded, self.task.kind, self.encoded.pad_token_id)

    @cached_property
    def probes(self) -> tuple[Probe, ...]:
        """Batches with the checkpoint's own answers.

        Raises:
            CheckpointError: it cannot answer the samples at all.
        """
        try:
            return make_probes(self.graph, self.encoded, self.task.max_length)
        except (IndexError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {self.checkpoint.name} cannot answer samples of up to "
                f"{self.task.max_length} tokens: {error}",
                next_step="some models have fewer positions than their config.json says: "
                "try a smaller max_length",
            ) from error

    @cached_property
    def fp32(self) -> Path:
        """The single-precision graph, exported on first use."""
        path = self.scratch / "model.onnx"
        batch, length = EXAMPLE_SHAPE
        example = sample_batch(self.encoded, batch, max(2, min(length, self.task.max_length)))
        write_fp32(self.graph, example, path)
        return path


def _misfits(config: Any, encoded: EncodedDataset) -> Iterator[str]:
    """Where the model's tables are smaller than what the samples index into them."""
    yield from length_problems(config, encoded.groups[-1].length)
    largest = max(int(group.inputs["input_ids"].max()) for group in encoded.groups)
    if largest >= config.vocab_size:
        yield (
            f"its tokenizer makes token {largest}, but its vocabulary ends at "
            f"{config.vocab_size - 1}: the tokenizer is another model's"
        )
