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
from harness.export.checkpoint_files import (
    length_problems,
    load_model,
    read_config,
    vocabulary_size,
)
from harness.export.convert import OPSET, artefact_files, write_fp32
from harness.export.folders import digest_files, read_manifest
from harness.export.library import CheckedRows, ask_library, choose_rows
from harness.export.library_parity import check_rows
from harness.export.parity import OnnxExecutor, make_probes, sample_batch
from harness.study import Model, Task
from harness.system.libraries import plain_reason
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import AnyFamily
from harness.tasks.model_inputs import forward_parameters
from harness.tasks.parity import Probe
from harness.tasks.registry import family_of
from harness.tasks.samples import Samples
from harness.tasks.section import TaskSection
from harness.types import Precision, TensorSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from harness.tasks.graphs import Graph


ONNX_FILE = "model.onnx"
REVISION = 3
"""Revision of the recipe: raise it when the same checkpoint would export to another graph."""
EXAMPLE_SHAPE = (3, 17)
"""(batch, sequence) to trace with: neither 1, which would become a constant, nor each other."""
_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportSource:
    """One checkpoint, its task, and the samples it is probed with."""

    model: Model
    checkpoint: Checkpoint
    task: Task
    samples: Samples
    """Samples as the data has them: what the bare library is asked."""
    encoded: EncodedDataset
    """The samples as this checkpoint's tokenizer encodes them."""
    scratch: Path
    """A folder for the single-precision graph that all precisions are made from."""
    artefact: Path | None = None
    """The folder of the model's single-precision artefact, which an earlier export may have left:
    its graph is that graph."""

    def recipe(self, precision: Precision) -> dict[str, Any]:
        """All that decides what the artefact is, as JSON has it."""
        return {
            "revision": REVISION,
            "checkpoint": self.checkpoint.digest,
            "kind": self.task.kind,
            "precision": str(precision),
            "inputs": self.input_names,
            "max_length": self.task.max_length,
            **self.family.recipe(self.task),
            "checked_rows": self.rows.digest,
            "opset": OPSET,
            "versions": {tool: version(tool) for tool in _TOOLS},
        }

    @property
    def input_names(self) -> list[str]:
        """Input names of the served model, in order."""
        return list(self.encoded.groups[-1].inputs)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the served model."""
        return tuple(TensorSpec(name, "INT64", (-1,)) for name in self.input_names)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the served model."""
        return self.family.outputs(self.probes[0].values.shape[-1])

    @property
    def family(self) -> AnyFamily:
        """The task family that the export belongs to."""
        return family_of(self.task)

    @cached_property
    def graph(self) -> Graph:
        """The loaded checkpoint, wrapped for its task; see `load_graph`."""
        return load_graph(self.model, self.checkpoint, self.task, self.encoded)

    @cached_property
    def rows(self) -> CheckedRows:
        """The rows on which the graph is compared with the library's own answers."""
        return choose_rows(self.task, self.samples, self.encoded)

    @cached_property
    def library_difference(self) -> float:
        """How far the graph is from the bare library on single rows: the third side of the gate.

        The largest difference, relative to the value where that is above 1. The library is asked
        first: what it cannot run needs no export.

        Raises:
            CheckpointError: the library cannot run the checkpoint on a text alone; or a language
                model sees what comes after the token that it predicts.
            ParityError: what would be served disagrees, with the row.
        """
        check_fit(self.model, self.checkpoint, self.task, self.encoded)
        bare = ask_library(self.model, self.checkpoint, self.task, self.rows)
        return check_rows(
            OnnxExecutor(self.fp32),
            self.family,
            bare,
            f"checkpoint {self.checkpoint.name}",
        )

    @cached_property
    def probes(self) -> tuple[Probe, ...]:
        """Batches with the checkpoint's own answers.

        Raises:
            CheckpointError: it cannot answer the samples at all.
        """
        try:
            return make_probes(self.graph, self.family, self.encoded, self.task.max_length)
        except Exception as error:
            # A model's own code, which fails as it likes.
            raise CheckpointError(
                f"checkpoint {self.checkpoint.name} cannot answer samples padded to up to "
                f"{self.task.max_length} tokens: {plain_reason(error)}",
                next_step="some models have fewer positions than their config.json says: "
                "try a smaller max_length",
            ) from error

    @cached_property
    def fp32(self) -> Path:
        """The single-precision graph: the artefact's, if unharmed, or exported on first use."""
        if (kept := self._kept_graph()) is not None:
            return kept
        path = self.scratch / ONNX_FILE
        batch, length = EXAMPLE_SHAPE
        example = sample_batch(self.encoded, batch, max(2, min(length, self.task.max_length)))
        write_fp32(self.graph, example, path)
        return path

    def _kept_graph(self) -> Path | None:
        """The graph of `artefact`; None where that is of another recipe, harmed or not there."""
        if self.artefact is None:
            return None
        manifest = read_manifest(self.artefact)
        if manifest is None or manifest.recipe != self.recipe(Precision.FP32):
            return None
        path = self.artefact / "1" / ONNX_FILE
        files = artefact_files(path)
        return path if files and digest_files(files) == manifest.sha256 else None


def load_graph(model: Model, checkpoint: Checkpoint, task: Task, encoded: EncodedDataset) -> Graph:
    """A checkpoint's weights, wrapped for its task.

    Raises:
        CheckpointError: it cannot be read, or does not fit the samples.
    """
    check_fit(model, checkpoint, task, encoded)
    return make_graph(load_model(model, checkpoint.folder, family_of(task)), task)


def check_fit(model: Model, checkpoint: Checkpoint, task: Task, encoded: EncodedDataset) -> None:
    """Hold the samples against what the configuration says of the model; weights stay unread.

    Raises:
        CheckpointError: with every problem found.
    """
    config = read_config(model, checkpoint.folder)
    problems = list(_misfits(config, encoded))
    taken = forward_parameters(config, checkpoint.folder, family_of(task))
    if taken is not None and "attention_mask" not in taken:
        problems.append(
            "its forward pass takes no attention mask, so that padding would change its answers"
        )
    if problems:
        raise CheckpointError(f"checkpoint {checkpoint.name}: {'; '.join(problems)}")


def _misfits(config: PretrainedConfig, encoded: EncodedDataset) -> Iterator[str]:
    """Where the model's tables are smaller than what the samples index into them."""
    yield from length_problems(config, encoded.groups[-1].length)
    largest = max(int(group.inputs["input_ids"].max()) for group in encoded.groups)
    size = vocabulary_size(config)
    if size is not None and largest >= size:
        yield (
            f"its tokenizer makes token {largest}, but its vocabulary ends at "
            f"{size - 1}: the tokenizer is another model's"
        )


def make_graph(model: PreTrainedModel, task: TaskSection) -> Graph:
    """Wrap a loaded model for its task, ready for inference.

    Args:
        model: the checkpoint with its weights.
        task: what it is asked to do.
    """
    graph: Graph = family_of(task).graph(model, task)
    graph.requires_grad_(requires_grad=False)
    return graph.eval()
