"""What is measured in process: a checkpoint in PyTorch, an artefact in ONNX Runtime.

Subjects are small and can be pickled: they are opened in the process that measures them. How a
checkpoint is loaded and which options a session gets are others' abilities, handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.types.card import Runtime

Inputs = Mapping[str, NDArray[np.int64]]
"""Arrays of shape (batch, length), by input name."""


class Opened(Protocol):
    """A model that is loaded and can be run."""

    def ready(self, inputs: Inputs) -> Any:
        """A batch in the runtime's own form; not part of what is timed."""
        ...

    def run(self, ready: Any) -> None:
        """One call; returns when the answer is there."""
        ...


class Subject(Protocol):
    """A model in a runtime."""

    @property
    def name(self) -> str:
        """Name of the variant or model."""
        ...

    @property
    def runtime(self) -> Runtime:
        """The library that executes the model."""
        ...

    def prepare(self, threads: int) -> None:
        """Import what it needs; nothing of the model is read."""
        ...

    def open(self) -> Opened:
        """Load the model."""
        ...


@dataclass(frozen=True)
class ArtefactSubject:
    """An exported model as a subject to measure."""

    name: str
    path: Path
    """Path of the ONNX file."""
    make_options: Callable[[], Any]
    """ONNX Runtime's session options, threads among them."""

    @property
    def runtime(self) -> Runtime:
        """The name of the library: ONNX Runtime."""
        return Runtime.ONNX_RUNTIME

    def prepare(self, threads: int) -> None:  # noqa: ARG002  (the options hold them)
        """Import ONNX Runtime."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)  # its warnings are about speed

    def open(self) -> OpenedArtefact:
        """Make the ONNX Runtime session."""
        return OpenedArtefact(self.session(self.make_options()))

    def session(self, options: Any) -> Any:
        """An ONNX Runtime session with the given options."""
        import onnxruntime

        return onnxruntime.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"]
        )


class OpenedArtefact:
    """A loaded ONNX Runtime session."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [one.name for one in session.get_inputs()]

    def ready(self, inputs: Inputs) -> Any:
        """The arrays that the model takes."""
        return {name: np.ascontiguousarray(inputs[name]) for name in self._names}

    def run(self, ready: Any) -> None:
        """Run the session once."""
        self._session.run(None, ready)


@dataclass(frozen=True)
class CheckpointSubject:
    """A checkpoint as a subject to measure."""

    name: str
    load: Callable[[], Any]
    """Gives the module, in evaluation mode; takes the inputs by name."""
    warm_imports: Callable[[], None]
    """Imports the module's code without its weights."""

    @property
    def runtime(self) -> Runtime:
        """The name of the library: PyTorch."""
        return Runtime.PYTORCH

    def prepare(self, threads: int) -> None:
        """Import PyTorch and the architecture's code."""
        import torch

        torch.set_num_threads(threads)
        self.warm_imports()

    def open(self) -> OpenedCheckpoint:
        """Read the weights into a module."""
        return OpenedCheckpoint(self.load())


class OpenedCheckpoint:
    """A loaded PyTorch module."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def ready(self, inputs: Inputs) -> Any:
        """Turn the arrays into tensors."""
        import torch

        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()}

    def run(self, ready: Any) -> None:
        """Run the module once, without gradients."""
        import torch

        with torch.inference_mode():
            self.module(**ready)


def runtime_version(runtime: Runtime) -> str:
    """Release of the package, as installed here."""
    return version("torch" if runtime is Runtime.PYTORCH else "onnxruntime")
