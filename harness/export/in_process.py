"""Checkpoint and artefact asked in this process, without a server: what serving is compared with.

Both answer as a client of the endpoint would: tensors by name in, tensors by name out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError, ServerError
from harness.export.checkpoint import Checkpoint
from harness.export.source import load_graph
from harness.study import Model, Task
from harness.tasks.encoding import EncodedDataset

Tensors = Mapping[str, NDArray[Any]]


class CheckpointPredictor:
    """A checkpoint in PyTorch, single precision; its weights are read at once.

    Raises:
        CheckpointError: the weights cannot be read, or do not fit the samples.
    """

    def __init__(
        self, model: Model, checkpoint: Checkpoint, task: Task, encoded: EncodedDataset
    ) -> None:
        self._graph = load_graph(model, checkpoint, task, encoded)

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One batch.

        Raises:
            ServerError: PyTorch refuses it.
        """
        import torch

        tensors = {name: torch.from_numpy(np.asarray(values)) for name, values in inputs.items()}
        try:
            with torch.inference_mode():
                outputs = self._graph(**tensors)
        except (RuntimeError, IndexError, ValueError) as error:
            raise ServerError(f"{model} in PyTorch: {error}") from error
        named = zip(self._graph.output_names, outputs, strict=True)
        return {name: output.numpy() for name, output in named}


class ArtefactPredictor:
    """An exported graph in ONNX Runtime, on the processor, with the threads of all usable cores.

    Raises:
        CheckpointError: the file cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are about speed
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        # A load test follows: threads that spin would take its cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise CheckpointError(f"{path} cannot be loaded: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One batch.

        Raises:
            ServerError: ONNX Runtime refuses it.
        """
        try:
            outputs = self._session.run(None, dict(inputs))
        except Exception as error:  # likewise
            raise ServerError(f"{model} in ONNX Runtime: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))
