"""What this machine gives: arithmetic by a large matrix product, bandwidth by STREAM's triad.

The roofline of Williams, Waterman and Patterson (CACM 52, 2009): a kernel of this many operations a
byte can at best reach the lower of the machine's arithmetic and of its bandwidth times that number.
Both are measured with the threads and the libraries that the models get. It is done once per
machine and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from harness.profiling.subjects import Opened
from harness.profiling.worker import Worker
from harness.system.storage import cache_root, replace_text, storage_errors, utc_now
from harness.types.card import Runtime
from harness.types.profiles import Peak, Roofline

MATRIX = 1024
"""Rows and columns: three such matrices take 12 MB, a product 2.1 billion operations."""
REPETITIONS = 12
SHORTEST_S = 0.2
STREAM_TIMES_CACHE = 4
"""STREAM's rule: each array at least four times the last-level cache."""
DEFAULT_CACHE_BYTES = 32 * 2**20
MEMORY_SHARE = 16
"""Each array takes at most so large a part of the memory that is free."""
LARGEST_ARRAY_BYTES = 256 * 2**20
REVISION = 1
_ROOFLINE = TypeAdapter(Roofline)


@dataclass(frozen=True)
class BareSubject:
    """No model: its own process for the machine's measurements."""

    make_options: Callable[[], Any]
    """ONNX Runtime's session options, threads among them."""
    name: str = "the machine"
    runtime: Runtime = Runtime.PYTORCH

    def prepare(self, threads: int) -> None:
        """Import the libraries that the measurement needs."""
        import onnxruntime
        import torch

        torch.set_num_threads(threads)
        onnxruntime.set_default_logger_severity(3)

    def open(self) -> Any:
        """Open nothing: there is no model."""
        return None


def machine_roofline(
    machine: str,
    threads: int,
    make_options: Callable[[], Any],
    *,
    cache: Path | None = None,
    afresh: bool = False,
) -> Roofline:
    """The roofline of this machine, measured unless it is known.

    Args:
        machine: the processor's name.
        threads: that a model gets.
        make_options: session options for ONNX Runtime.
        cache: folder to keep it in; the user's cache by default.
        afresh: measure it again, whatever is known.

    Raises:
        EnvironmentFailure: it cannot be measured.
        StorageError: the cache cannot be written.
    """
    folder = (cache or cache_root()) / "roofline"
    path = folder / f"{fingerprint(machine, threads)}.json"
    if path.is_file() and not afresh:
        try:
            return _ROOFLINE.validate_python(json.loads(path.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, ValidationError):
            pass  # of another version or torn: it is measured again
    roofline = _measure(machine, threads, make_options)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(_ROOFLINE.dump_python(roofline, mode="json"), indent=2) + "\n")
    return roofline


def fingerprint(machine: str, threads: int) -> str:
    """Digest of everything that the measurement depends on."""
    identity = {
        "revision": REVISION,
        "machine": machine,
        "cores": len(os.sched_getaffinity(0)),
        "cache": last_level_cache_bytes(),
        "threads": threads,
        "versions": [version(package) for package in ("torch", "onnxruntime")],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def last_level_cache_bytes() -> int:
    """Size of the first core's last-level cache, as the kernel reports it."""
    sizes = []
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = index.read_text(encoding="ascii").strip()
        factor = {"K": 2**10, "M": 2**20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * factor)
    return max(sizes, default=DEFAULT_CACHE_BYTES)


def _measure(machine: str, threads: int, make_options: Callable[[], Any]) -> Roofline:
    cache_bytes = last_level_cache_bytes()
    room_bytes = psutil.virtual_memory().available // MEMORY_SHARE
    large = min(STREAM_TIMES_CACHE * cache_bytes, LARGEST_ARRAY_BYTES, room_bytes)
    small = cache_bytes // 16  # three of them leave most of the cache to others
    with Worker(BareSubject(make_options), threads) as worker:
        peaks = [
            Peak(Runtime.PYTORCH, "fp32", worker.do(torch_peak)),
            *(
                Peak(Runtime.ONNX_RUNTIME, datatype, worker.do(onnx_peak, datatype, make_options))
                for datatype in ("fp32", "int8")
            ),
        ]
        return Roofline(
            machine=machine,
            threads=threads,
            memory_bytes_per_s=worker.do(triad, large),
            memory_array_bytes=large,
            cache_bytes_per_s=worker.do(triad, small),
            cache_array_bytes=small,
            peaks=tuple(peaks),
            measured_utc=utc_now(),
        )


def torch_peak(_: Opened) -> float:
    """Operations a second of a large product in single precision."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(MATRIX, MATRIX, generator=generator) for _ in range(2))
    out = torch.empty(MATRIX, MATRIX)
    with torch.inference_mode():
        return 2.0 * MATRIX**3 / _best_s(lambda: torch.mm(left, right, out=out))


def onnx_peak(_: Opened, datatype: str, make_options: Callable[[], Any]) -> float:
    """Peak of ONNX Runtime, in single precision or of 8-bit integers with packed weights."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    if datatype == "int8":
        weights: NDArray[Any] = generator.integers(-127, 127, (MATRIX, MATRIX)).astype(np.int8)
        left: NDArray[Any] = generator.integers(0, 255, (MATRIX, MATRIX)).astype(np.uint8)
        types, kind = (TensorProto.UINT8, TensorProto.INT32), "MatMulInteger"
    else:
        weights = generator.random((MATRIX, MATRIX), np.float32)
        left = generator.random((MATRIX, MATRIX), np.float32)
        types, kind = (TensorProto.FLOAT, TensorProto.FLOAT), "MatMul"
    shape = [MATRIX, MATRIX]
    graph = helper.make_graph(
        [helper.make_node(kind, ["left", "right"], ["out"])],
        "peak",
        [helper.make_tensor_value_info("left", types[0], shape)],
        [helper.make_tensor_value_info("out", types[1], shape)],
        [numpy_helper.from_array(weights, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), make_options(), providers=["CPUExecutionProvider"]
    )
    return 2.0 * MATRIX**3 / _best_s(lambda: session.run(None, {"left": left}))


def triad(_: Opened, array_bytes: int) -> float:
    """Bytes a second of a = b + s c over three arrays: two are read, one is written."""
    import torch

    count = array_bytes // 4
    first, second = torch.rand(count), torch.rand(count)
    out = torch.zeros(count)
    with torch.inference_mode():
        span_s = _best_s(lambda: torch.add(first, second, alpha=3.0, out=out))
    return 3.0 * count * 4 / span_s


def _best_s(work: Callable[[], object]) -> float:
    """The shortest of several: a peak is what the machine gives when nothing is in the way."""
    work()
    best_s, until = float("inf"), time.perf_counter() + SHORTEST_S
    done = 0
    while done < REPETITIONS or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        best_s = min(best_s, time.perf_counter() - start)
        done += 1
    return best_s
