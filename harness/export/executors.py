"""What runs an artefact in this process, so that its answers can be compared with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Executor(Protocol):
    """An opened artefact."""

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[Any]]:
        """Answer one batch.

        Args:
            inputs: (batch, sequence) by input name.

        Returns:
            Every output, in the artefact's own order.
        """
        ...


class OnnxExecutor:
    """A graph on ONNX Runtime's CPU provider."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are about speed
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[Any]]:
        """Answer one batch."""
        outputs: Sequence[NDArray[Any]] = self._session.run(None, dict(inputs))
        return outputs
