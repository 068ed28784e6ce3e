"""TensorRT plans of a checkpoint: the graph that each is built from, its shapes, its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.export.convert import QUANTISED, write_fp16, write_static_int8
from harness.export.source import ExportSource
from harness.export.tensorrt import WORKSPACE_BYTES, PlanHome, PlanProfile, build_plan, plan_profile
from harness.system.cache import cache_root
from harness.tasks.parity import Probe
from harness.types import Precision

TIMING_CACHE = "tensorrt-timing.cache"


@dataclass(frozen=True)
class PlanSettings:
    """What a study says of its plans."""

    max_batch_sizes: Sequence[int] = (1,)
    """Of every serving configuration."""
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
