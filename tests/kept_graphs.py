"""Made checkpoints are exported once by the same code, however many studies have them.

What is kept is the graph that `write_fp32` writes, and the decoder of `write_decoder`, by all that
decides it. Of a checkpoint that differs from an earlier one in its weights alone (a teacher and a
student of one architecture, as most made studies have them) the earlier graph is taken with the
weights exchanged, if ONNX Runtime then answers an example as torch does; otherwise it is exported.
How long the example is decides nothing: its axes are dynamic. The gates that follow an export still
hold it against the checkpoint and the bare library each time. Files whose subject is the export
itself take nothing whose weights were exchanged: only what this very code has exported from these
very weights. What is kept lies in the user's cache, for the next run of the tests too: an export
takes four to ten seconds of a core.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray

import harness.export.generation.graphs
import harness.export.source
from harness.export.convert import write_fp32
from harness.export.generation.convert import write_decoder
from harness.export.generation.parity import DecoderSession
from harness.system.storage import cache_root
from harness.types.generation import GeneratorSettings

Example = Mapping[str, NDArray[Any]]
Weights = Mapping[str, NDArray[Any]]

NOT_IN_THE_GRAPH = ("_name_or_path", "id2label", "label2id", "max_position_embeddings")
"""Nothing in a graph comes of these. A table of positions is a weight, and has its shape."""
CONSTANTS = 8
"""A float tensor of more values than this is made of weights."""
PROMPT = 12
"""Tokens of the text on which a decoder with exchanged weights is compared."""

EXPORTERS = ("torch", "transformers", "onnx", "onnxscript", "onnx_ir", "onnxruntime")
"""What a graph comes of, beside the harness."""
UNUSED_S = 7 * 24 * 3600.0
"""Graphs of code that was not tested for so long are thrown away."""


@cache
def graphs_folder() -> Path:
    """Where the graphs are kept that this very code and these libraries export."""
    package = Path(harness.export.source.__file__).parents[1]
    digest = hashlib.sha256(platform.python_version().encode())
    for name in EXPORTERS:
        digest.update(f"{name}=={version(name)}".encode())
    for part in (package / "export", package / "tasks"):
        for file in sorted(part.rglob("*.py")):
            digest.update(file.read_bytes())
    digest.update(Path(__file__).read_bytes())
    home = cache_root() / "test-graphs"
    folder = home / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for other in home.iterdir():
        with suppress(FileNotFoundError):  # another test process tidies up as well
            if other.stat().st_mtime < time.time() - UNUSED_S:
                shutil.rmtree(other, ignore_errors=True)
    return folder


@contextmanager
def kept_graphs(folder: Path, *, own: bool = False) -> Iterator[None]:
    """In this process, an export that one of this run has made already is copied.

    Args:
        folder: of all test processes; what is kept lies in it.
        own: whether a graph whose weights were exchanged is not good enough.
    """

    def write_graph(graph: Any, example: Example, path: Path) -> None:
        _build_operators_once(patch)
        _Kept(folder, _told_of_graph(graph, example), _weights(graph), own=own).write(
            path,
            export=lambda: write_fp32(graph, example, path),
            sound=lambda: _answers_as(graph, example, path),
        )

    def write_generator(model: Any, shape: tuple[int, int, int], path: Path) -> None:
        _build_operators_once(patch)
        expected = _next_token_logits(model)
        told = [_class_of(model), _told_of_config(model.config), shape]
        _Kept(folder, told, _weights(model), own=own).write(
            path,
            export=lambda: write_decoder(model, shape, path),
            sound=lambda: _decodes_as(expected, shape, path),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.export.source, "write_fp32", write_graph)
        patch.setattr(harness.export.generation.graphs, "write_decoder", write_generator)
        yield


class _Kept:
    """The graph of some weights, and one of the same shape with others.

    Args:
        folder: where both lie.
        told: all that decides a graph, but for its weights' values.
        weights: by name.
        own: whether a graph whose weights were exchanged is not good enough.
    """

    def __init__(self, folder: Path, told: Sequence[Any], weights: Weights, *, own: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shape = _digest_of_shape(told, weights)
        same = _digest_of_weights(shape, weights)
        self._weights = weights
        self._lock = folder / f"{shape}.lock"
        self._exported = folder / f"{same}.onnx"
        self._exchanged = None if own else folder / f"{same}.exchanged"
        self._alike = folder / f"{shape}.alike"
        self._its_weights = folder / f"{shape}.npz"

    def write(self, path: Path, export: Callable[[], None], sound: Callable[[], bool]) -> None:
        """Write the graph.

        Args:
            path: the file to write.
            export: writes it there anew.
            sound: whether what lies there, its weights exchanged, answers as the checkpoint does.
        """
        with FileLock(self._lock):
            for kept in (self._exported, self._exchanged):
                if kept is not None and kept.exists():
                    shutil.copy(kept, path)
                    return
            if (
                self._exchanged is not None
                and self._alike.exists()
                and _exchange(self._alike, self._its_weights, self._weights, path)
                and sound()
            ):
                _put(path, self._exchanged)
                return
            export()
            _put(path, self._exported)
            if not self._alike.exists():
                np.savez(self._its_weights, **self._weights)  # type: ignore[arg-type]
                _put(path, self._alike)


def _build_operators_once(patch: pytest.MonkeyPatch) -> None:
    """Let torch's exporter build its table of operators, the same each time, once a process."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    if not hasattr(ONNXRegistry.from_torchlib, "cache_info"):
        once = staticmethod(cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", once)


def _put(path: Path, kept: Path) -> None:
    """Copy a file to a name under which it is never seen unfinished."""
    fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.copy(path, fresh)
    fresh.rename(kept)


def _exchange(source: Path, its_weights: Path, weights: Weights, path: Path) -> bool:
    """Write a graph with other weights; False where it is not plain which belong where.

    Args:
        source: the graph.
        its_weights: those of the checkpoint that it was exported from.
        weights: those to put in, by the same names.
        path: the file to write.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    with np.load(its_weights) as archive:
        known = {name: archive[name] for name in archive.files}
    for tensor in model.graph.initializer:
        found = numpy_helper.to_array(tensor)
        if found.dtype != np.float32 or (found.size <= CONSTANTS and tensor.name not in known):
            continue
        # The exporter turns some matrices round, and keeps one of several that are the same.
        fitting = [
            weights[name] if turned is one else weights[name].T
            for name, one in known.items()
            for turned in ((one, one.T) if one.ndim == 2 else (one,))
            if np.array_equal(turned, found)
        ]
        if not fitting or not all(np.array_equal(fitting[0], one) for one in fitting):
            return False
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(fitting[0]), tensor.name))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return True


def _answers_as(graph: Any, example: Example, path: Path) -> bool:
    """Whether ONNX Runtime answers the example by a file as torch does by the checkpoint."""
    import onnxruntime
    import torch

    with torch.inference_mode():
        expected = graph(**{name: torch.from_numpy(values) for name, values in example.items()})
    found = onnxruntime.InferenceSession(path).run(None, dict(example))
    return all(
        np.allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)
        for one, other in zip(found, expected, strict=True)
    )


def _next_token_logits(model: Any) -> NDArray[np.float32]:
    """What the library says behind each of the first tokens of its vocabulary, in one text."""
    import torch

    with torch.inference_mode():
        found: NDArray[np.float32] = model(torch.arange(PROMPT)[None]).logits[0].numpy()
    return found


def _decodes_as(expected: NDArray[np.float32], shape: tuple[int, int, int], path: Path) -> bool:
    """Whether a decoder reads the same text in two parts and says the same behind its tokens."""
    settings = GeneratorSettings(
        *shape, vocabulary=expected.shape[-1], context=PROMPT, end_tokens=(), start_token=None
    )
    session, cut = DecoderSession(path, settings, rows=1), PROMPT // 2
    found = [
        session.step(
            np.arange(*part)[None], np.array([part[0]]), np.arange(part[1] - part[0])[None]
        )
        for part in ((0, cut), (cut, PROMPT))
    ]
    largest = float(np.abs(expected).max())
    return np.allclose(np.concatenate(found, axis=1)[0], expected, rtol=0.0, atol=1e-4 * largest)


def _weights(module: Any) -> Weights:
    return {name: one.detach().cpu().numpy() for name, one in module.state_dict().items()}


def _told_of_graph(graph: Any, example: Example) -> list[Any]:
    """Of the model's configuration, the graph around it, and its inputs."""
    return [
        _class_of(graph),
        str(graph),
        {k: v for k, v in vars(graph).items() if isinstance(v, bool | int | float | str)},
        _told_of_config(graph.model.config),
        {name: str(values.dtype) for name, values in example.items()},
    ]


def _class_of(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _told_of_config(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in NOT_IN_THE_GRAPH}


def _digest_of_shape(told: Sequence[Any], weights: Weights) -> str:
    shapes = {name: values.shape for name, values in weights.items()}
    text = json.dumps([*told, shapes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of_weights(shape: str, weights: Weights) -> str:
    digest = hashlib.sha256(shape.encode())
    for name, values in weights.items():
        digest.update(name.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
