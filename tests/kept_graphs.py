"""Made checkpoints are exported once by the same code, however many studies have them.

What is kept is the graph that `write_fp32` writes, by all that decides it. Of a checkpoint that
differs from an earlier one in its weights alone (a teacher and a student of one architecture, as
most made studies have them) the earlier graph is taken with the weights exchanged, if ONNX Runtime
then answers the example as torch does; otherwise it is exported. How long the example is decides
nothing: both its axes are dynamic. The gates that follow an export still hold it against the
checkpoint and the bare library each time. Files whose subject is the export itself export each
time, and what they exported is kept for the others. What is kept lies in the user's cache, for the
next run of the tests too: an export takes four seconds of a core.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray

import harness.export.source
from harness.export.convert import write_fp32
from harness.system.storage import cache_root

Example = Mapping[str, NDArray[Any]]
Weights = Mapping[str, NDArray[Any]]

NOT_IN_THE_GRAPH = ("_name_or_path", "id2label", "label2id", "max_position_embeddings")
"""Nothing in a graph comes of these. A table of positions is a weight, and has its shape."""
CONSTANTS = 8
"""A float tensor of more values than this is made of weights."""


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
        if other.stat().st_mtime < time.time() - UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)
    return folder


@contextmanager
def kept_graphs(folder: Path, *, fresh: bool = False) -> Iterator[None]:
    """In this process, an export that one of this run has made already is copied.

    Args:
        folder: of all test processes; what is kept lies in it.
        fresh: whether to export all the same, and to keep that.
    """

    def write(graph: Any, example: Example, path: Path) -> None:
        _build_operators_once(patch)
        weights = {name: one.detach().cpu().numpy() for name, one in graph.state_dict().items()}
        shape = _digest_of_shape(graph, example)
        kept = folder / f"{_digest_of_weights(shape, weights)}.onnx"
        alike, its_weights = folder / f"{shape}.alike", folder / f"{shape}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{shape}.lock"):
            if fresh or not kept.exists():
                if (
                    fresh
                    or not (alike.exists() and _exchange(alike, its_weights, weights, path))
                    or (not _answers_as(graph, example, path))
                ):
                    write_fp32(graph, example, path)
                _put(path, kept)
                if not alike.exists():
                    np.savez(its_weights, **weights)  # type: ignore[arg-type]
                    _put(path, alike)
        shutil.copy(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.export.source, "write_fp32", write)
        yield


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


def _digest_of_shape(graph: Any, example: Example) -> str:
    """Of the model's configuration, the graph around it, its inputs, and the weights' shapes."""
    config = graph.model.config.to_dict()
    plain = {k: v for k, v in vars(graph).items() if isinstance(v, bool | int | float | str)}
    told = [
        f"{type(graph).__module__}.{type(graph).__qualname__}",
        str(graph),
        plain,
        {key: value for key, value in config.items() if key not in NOT_IN_THE_GRAPH},
        {name: str(values.dtype) for name, values in example.items()},
        {name: tuple(one.shape) for name, one in graph.state_dict().items()},
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _digest_of_weights(shape: str, weights: Weights) -> str:
    digest = hashlib.sha256(shape.encode())
    for name, values in weights.items():
        digest.update(name.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
