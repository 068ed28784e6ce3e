"""Made checkpoints are exported once per run of the tests, however many studies have them.

What is kept is the graph that `write_fp32` writes, by all that decides it. The gates that follow an
export still hold it against the checkpoint and the bare library each time. Files whose subject is
the export itself do without.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from numpy.typing import NDArray

import harness.export.source
from harness.export.convert import write_fp32

NOT_IN_THE_GRAPH = ("_name_or_path", "id2label", "label2id")


@contextmanager
def kept_graphs(folder: Path) -> Iterator[None]:
    """In this process, an export that one of this run has made already is copied.

    Args:
        folder: of all test processes; what is kept lies in it.
    """

    def write(graph: Any, example: Mapping[str, NDArray[Any]], path: Path) -> None:
        kept = folder / f"{_digest(graph, example)}.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_suffix(".lock")):
            if not kept.exists():
                write_fp32(graph, example, path)
                fresh = kept.with_suffix(f".{os.getpid()}")
                shutil.copy(path, fresh)
                fresh.rename(kept)
        shutil.copy(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.export.source, "write_fp32", write)
        yield


def _digest(graph: Any, example: Mapping[str, NDArray[Any]]) -> str:
    """Of the weights, the model's configuration, the graph around it and the example's shape."""
    config = graph.model.config.to_dict()
    plain = {k: v for k, v in vars(graph).items() if isinstance(v, bool | int | float | str)}
    shapes = {name: values.shape for name, values in example.items()}
    told = [
        f"{type(graph).__module__}.{type(graph).__qualname__}",
        str(graph),
        plain,
        {key: value for key, value in config.items() if key not in NOT_IN_THE_GRAPH},
        shapes,
    ]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for name, tensor in graph.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
