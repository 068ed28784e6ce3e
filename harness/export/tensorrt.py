"""TensorRT: the plans of a checkpoint, how they are built, and what they answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError, EnvironmentFailure
from harness.export.convert import QUANTISED, write_fp16, write_static_int8
from harness.export.source import ExportSource
from harness.system.storage import cache_root
from harness.tasks.parity import Probe
from harness.types import Precision

if TYPE_CHECKING:
    import tensorrt as trt


TIMING_CACHE = "tensorrt-timing.cache"


@dataclass(frozen=True)
class PlanSettings:
    """What a study says of its plans."""

    max_batch_sizes: Sequence[int] = (1,)
    """max_batch_size of every serving configuration."""
    seed: int = 0
    """Draws the rows that int8's ranges are measured on."""


def plan_recipe(
    source: ExportSource, precision: Precision, settings: PlanSettings, home: PlanHome
) -> dict[str, Any]:
    """All that decides what a plan is, beside what decides the graph, as JSON has it."""
    profile = _profile(source, settings)
    recipe: dict[str, Any] = {
        **dataclasses.asdict(home),
        "profile": {key: list(shape) for key, shape in dataclasses.asdict(profile).items()},
        "workspace_bytes": WORKSPACE_BYTES,
    }
    if precision is Precision.INT8:
        recipe["calibration"] = {
            "samples": min(source.model.calibration_samples, source.encoded.size),
            "seed": settings.seed,
            "data": source.encoded.digest,
            "quantised": list(QUANTISED),
        }
    return recipe


def write_plan(
    source: ExportSource, path: Path, precision: Precision, settings: PlanSettings
) -> None:
    """Build a plan of a checkpoint's graph.

    Raises:
        CheckpointError: TensorRT does not take the graph.
        EnvironmentFailure: it cannot build it.
    """
    build_plan(
        typed_graph(source, precision, settings),
        path,
        inputs=source.input_names,
        profile=_profile(source, settings),
        timing_cache=cache_root() / TIMING_CACHE,
    )


def typed_graph(source: ExportSource, precision: Precision, settings: PlanSettings) -> Path:
    """The graph in the types that the plan shall compute in, among the export's scratch files."""
    if precision is Precision.FP32:
        return source.fp32
    path = source.scratch / f"for-plan-{precision}.onnx"
    if precision is Precision.FP16:
        write_fp16(source.fp32, path)
    else:
        write_static_int8(
            source.fp32,
            path,
            source.encoded,
            samples=source.model.calibration_samples,
            seed=settings.seed,
        )
    return path


def probes_within(source: ExportSource, settings: PlanSettings) -> tuple[Probe, ...]:
    """The probes whose shapes a plan accepts."""
    profile = _profile(source, settings)
    return tuple(probe for probe in source.probes if profile.holds(*probe.shape))


def _profile(source: ExportSource, settings: PlanSettings) -> PlanProfile:
    return plan_profile(settings.max_batch_sizes, source.task.buckets)


MIN_BATCH = 1
"""The batcher may find one request alone."""


@dataclass(frozen=True)
class PlanProfile:
    """(batch, tokens) that a plan accepts, and those it is tuned for."""

    smallest: tuple[int, int]
    likeliest: tuple[int, int]
    largest: tuple[int, int]

    def holds(self, batch: int, length: int) -> bool:
        """Whether a request of this shape is accepted."""
        low, high = self.smallest, self.largest
        return low[0] <= batch <= high[0] and low[1] <= length <= high[1]


def plan_profile(max_batch_sizes: Sequence[int], lengths: Sequence[int]) -> PlanProfile:
    """The profile of a study's serving space and padded lengths.

    Tuned for the largest batch, which is what a loaded server executes, at the longest length,
    whose requests decide the latency's tail.

    Args:
        max_batch_sizes: of every serving configuration; at least one.
        lengths: padded tokens a request may have; at least one.
    """
    largest = (max(max_batch_sizes), max(lengths))
    # A probe of the parity gate may be shorter than any bucket.
    return PlanProfile((MIN_BATCH, min(2, *lengths)), largest, largest)


IMAGE = "nvcr.io/nvidia/tritonserver:24.10-py3"
WHERE_TO_BUILD = (
    f"build it in the server's own image, {IMAGE}: docker compose --profile gpu run --rm export-gpu"
)
WORKSPACE_BYTES = 2**30
"""Most memory a layer may use while it runs."""


@dataclass(frozen=True)
class PlanHome:
    """What a plan is bound to."""

    tensorrt: str
    """TensorRT's version."""
    gpu: str
    compute_capability: str
    """`9.0` for an H100."""


def plan_home() -> PlanHome:
    """TensorRT and the GPU of this machine.

    Raises:
        EnvironmentFailure: one of them is missing; with the image that has TensorRT.
    """
    if find_spec("tensorrt") is None:
        raise EnvironmentFailure(
            "TensorRT is not installed here, so no plan can be built",
            next_step=WHERE_TO_BUILD,
        )
    try:
        import tensorrt as trt
    except ImportError as error:
        raise EnvironmentFailure(
            f"TensorRT's Python bindings are here, its libraries are not: {error}",
            next_step=WHERE_TO_BUILD,
        ) from error
    import torch

    if not torch.cuda.is_available():
        raise EnvironmentFailure(
            f"TensorRT {trt.__version__} is here, but no GPU that this torch ({torch.__version__}) "
            "can use, and plans are built on the GPU that will serve them",
            next_step="give the container a GPU (docker compose --profile gpu), and install a "
            "CUDA build of torch",
        )
    major, minor = torch.cuda.get_device_capability()
    return PlanHome(trt.__version__, torch.cuda.get_device_name(), f"{major}.{minor}")


def moved_from(built: Mapping[str, Any], here: PlanHome) -> str:
    """Why a plan does not run here, in words; empty where it does.

    Args:
        built: the plan's own home, as its manifest has it.
        here: this machine's.
    """
    names = (field.name for field in dataclasses.fields(PlanHome))
    found = PlanHome(**{name: str(built.get(name, "?")) for name in names})
    if (found.tensorrt, found.compute_capability) == (here.tensorrt, here.compute_capability):
        return ""
    return (
        f"built by TensorRT {found.tensorrt} for compute capability {found.compute_capability} "
        f"({found.gpu}); here are TensorRT {here.tensorrt} and {here.compute_capability} "
        f"({here.gpu})"
    )


def build_plan(
    graph: Path, path: Path, *, inputs: Sequence[str], profile: PlanProfile, timing_cache: Path
) -> None:
    """Build a plan from a graph.

    Args:
        graph: the ONNX file, in the types that the plan shall compute in.
        path: the file to write.
        inputs: names of the graph's inputs, each (batch, sequence).
        profile: shapes that the plan accepts.
        timing_cache: kernels' measured times, read where it is there and written back, so that
            the next build need not measure them again.

    Raises:
        CheckpointError: TensorRT does not take the graph.
        EnvironmentFailure: it takes it and cannot build it.
    """
    import tensorrt as trt

    log = _make_log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise CheckpointError(
            f"TensorRT {trt.__version__} does not take the graph: {_last(log)}",
            next_step="leave tensorrt out of this model's formats, and serve its graph with "
            "accelerators: [cuda]",
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    for name in inputs:
        shapes.set_shape(
            name,
            trt.Dims([*profile.smallest]),
            trt.Dims([*profile.likeliest]),
            trt.Dims([*profile.largest]),
        )
    config.add_optimization_profile(shapes)
    known = timing_cache.read_bytes() if timing_cache.is_file() else b""
    cache = config.create_timing_cache(known)
    # Measured on another kind of GPU it would be wrong: TensorRT refuses it, and starts again.
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EnvironmentFailure(
            f"TensorRT {trt.__version__} cannot build the plan: {_last(log)}",
            next_step="free memory on the GPU, or lower max_batch_sizes or the task's max_length",
        )
    path.write_bytes(_bytes_of(plan))
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    partial = timing_cache.with_suffix(".partial")
    partial.write_bytes(_bytes_of(cache.serialize()))
    partial.replace(timing_cache)


class PlanExecutor:
    """A plan on the first GPU."""

    def __init__(self, path: Path) -> None:
        """Load the plan.

        Raises:
            EnvironmentFailure: TensorRT does not take it.
        """
        import tensorrt as trt

        self._log = _make_log()
        engine = trt.Runtime(self._log).deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EnvironmentFailure(
                f"TensorRT {trt.__version__} does not load {path}: {_last(self._log)}",
                next_step=WHERE_TO_BUILD,
            )
        self._engine = engine
        self._context = engine.create_execution_context()

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[Any]]:
        """Answer one batch.

        Raises:
            EnvironmentFailure: the GPU did not.
        """
        import torch

        context = self._context
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            given = {name: torch.from_numpy(values).cuda() for name, values in inputs.items()}
            for name, tensor in given.items():
                context.set_input_shape(name, tuple(tensor.shape))
                context.set_tensor_address(name, tensor.data_ptr())
            answers = [self._room_for(name) for name in self._output_names()]
            done = context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        if not done:
            raise EnvironmentFailure(f"the plan did not run: {_last(self._log)}")
        return [answer.cpu().numpy() for answer in answers]

    def _output_names(self) -> list[str]:
        import tensorrt as trt

        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [one for one in names if engine.get_tensor_mode(one) == trt.TensorIOMode.OUTPUT]

    def _room_for(self, name: str) -> Any:
        """Memory for an output, at the shape that follows from the inputs'."""
        import tensorrt as trt
        import torch

        dims = self._context.get_tensor_shape(name)
        shape = [dims[axis] for axis in range(len(dims))]
        of_tokens = self._engine.get_tensor_dtype(name) == trt.DataType.INT64
        kind = torch.int64 if of_tokens else torch.float32
        room = torch.empty(shape, dtype=kind, device="cuda")
        self._context.set_tensor_address(name, room.data_ptr())
        return room


def _bytes_of(memory: Any) -> bytes:
    """The library's own memory, which has Python's buffer protocol, as a copy."""
    return bytes(memory)


def _make_log() -> trt.ILogger:
    """A logger that keeps errors: they say more than what the calls return."""
    import tensorrt as trt

    class Log(trt.ILogger):  # type: ignore[misc,unused-ignore]  # typed where its stubs are
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in {trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR}:
                self.errors.append(msg)

    return Log()


def _last(log: Any) -> str:
    return log.errors[-1] if log.errors else "it does not say why"
