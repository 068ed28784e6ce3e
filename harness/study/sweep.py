"""Both sides of a sweep: Triton's settings, and the client's protocols, batches and loads."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, GetPydanticSchema, ValidationInfo, model_validator
from pydantic_core import core_schema

from harness.errors import UsageError
from harness.system.strict import PositiveInt, Strict, resolve, written, written_with_paths
from harness.types import (
    Accelerator,
    ArrivalKind,
    ArrivalProcess,
    LoadMode,
    LoadShape,
    ShapeKind,
    TraceUnit,
    WireProtocol,
)
from harness.types.workloads import Mix, arrivals_text, parse_arrivals, parse_shape, shape_text


class ServingSpace(Strict):
    """Triton's side of the sweep: every combination is a serving configuration."""

    max_batch_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = Field([16])
    queue_delays_us: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field([0])
    instance_counts: Annotated[list[PositiveInt], Field(min_length=1)] = Field([1])
    intra_op_threads: Annotated[list[PositiveInt], Field(min_length=1)] = Field([1])
    instance_kind: Literal["cpu", "gpu"] = "cpu"
    accelerators: Annotated[list[Accelerator], Field(min_length=1)] = Field(
        [Accelerator.NONE],
        description="How an ONNX graph is run on a GPU: none (the CUDA provider's defaults), cuda, "
        "tensorrt. TensorRT plans are served as they are.",
    )
    response_cache: bool = Field(
        False,
        description="Let Triton's response cache answer repeated inputs, and count its answers: "
        "for a service that is meant to be cached. Otherwise a trial that it answered is invalid.",
    )

    @model_validator(mode="after")
    def _accelerators_have_a_gpu(self) -> Self:
        asked = [str(one) for one in self.accelerators if one is not Accelerator.NONE]
        if asked and self.instance_kind != "gpu":
            raise ValueError(
                f"accelerators {asked} run on a GPU: write instance_kind: gpu, or leave them out"
            )
        return self


Rate = Annotated[float, Field(gt=0, le=1e6)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1.5)]
DEFAULT_CLIENT_BATCHES = [1, 4, 8, 16]


def _read_arrivals(text: str, info: ValidationInfo) -> ArrivalProcess:
    process = parse_arrivals(text)
    if process.trace is None:
        return process
    path = resolve(process.trace, info)
    if not path.is_file():
        raise UsageError(f"no such trace file: {path}")
    return replace(process, trace=path)


def _ascending(weights: dict[int, float]) -> Mix:
    return tuple(sorted(weights.items()))


Arrivals = Annotated[ArrivalProcess, written_with_paths(_read_arrivals, arrivals_text)]
Shape = Annotated[LoadShape, written(parse_shape, shape_text)]
Weights = Annotated[
    Mix,
    GetPydanticSchema(
        lambda _source, handler: core_schema.no_info_after_validator_function(
            _ascending,
            handler.generate_schema(dict[PositiveInt, Weight]),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )
    ),
]
"""Written as a mapping of sizes to weights; ascending by size."""


class Traffic(Strict):
    """The client's side of the sweep."""

    protocols: Annotated[list[WireProtocol], Field(min_length=1)] = Field(
        [WireProtocol.HTTP, WireProtocol.GRPC]
    )
    client_batch_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = DEFAULT_CLIENT_BATCHES
    load: LoadMode = Field(
        LoadMode.CLOSED,
        description="closed: N requests in flight; open: requests fall due at a rate.",
    )
    concurrencies: Annotated[list[PositiveInt], Field(min_length=1)] = Field(
        [1, 4, 16, 64],
        description="Closed loop: requests in flight. The search bisect takes the least and the "
        "most as its bounds, the search grid each.",
    )
    rates_per_s: list[Rate] = Field(
        [], description="Open loop: requests per second, bounds or grid likewise."
    )
    arrivals: Arrivals = Field(
        ArrivalProcess(),
        description="Open loop: constant, poisson, gamma:CV, or trace:FILE.",
        json_schema_extra={"default": "poisson"},
    )
    trace_unit: TraceUnit | None = Field(
        None,
        description="Of a trace's numbers (s, ms, us, ns), where its column is not called "
        "timestamp_ms or the like.",
    )
    shape: Shape = Field(
        LoadShape(),
        json_schema_extra={"default": "flat"},
        description="Open loop: the rate over time, as flat, or as ramp, step, spike or sine with "
        "its levels and period: sine:0.5..1.5/60s.",
    )
    max_in_flight: PositiveInt = Field(
        512, description="Open loop: requests beyond this many in flight are dropped, and counted."
    )
    batch_mix: Weights = Field(
        (),
        json_schema_extra={"default": {}},
        description="Client batch sizes drawn by weight, instead of client_batch_sizes.",
    )
    length_mix: Weights = Field(
        (),
        json_schema_extra={"default": {}},
        description="Padded lengths drawn by weight; default: as often as the data has them.",
    )
    duration_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        5.0,
        description="Longest measurement of a trial; it ends as soon as the objective is decided.",
    )
    min_duration_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        0.5, description="Earliest time at which a trial may be decided; at most duration_s."
    )
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        1.0, description="Longest warm-up; it ends as soon as the load is steady."
    )
    confirm_duration_s: Annotated[float, Field(gt=0, le=86400)] | None = Field(
        None, description="Longest fresh measurement of the winner; default: twice duration_s."
    )
    saturation_shares: list[Share] = Field(
        [0.3, 0.5, 0.7, 0.85],
        description="After the verdict each family's winner and its teacher are measured once more "
        "in an open loop (Poisson arrivals), at these shares of the highest throughput that the "
        "search found for them: latency over rate, for planning. They decide nothing. An empty "
        "list measures none.",
    )
    saturation_duration_s: Annotated[float, Field(gt=0, le=86400)] | None = Field(
        None, description="Length of each of these measurements; default: duration_s."
    )
    loaded_samples: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="After the verdict so many rows of the test split are scored once more while "
        "the load of the recommended trial runs, and compared with the answers without a load. "
        "Default: 32 prompts of models that write, and none of others; 0: none.",
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Load generator processes.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = self._open_gaps() if self.load is LoadMode.OPEN else self._open_leftovers()
        if self.trace_unit is not None and not self.is_trace:
            problems.append("trace_unit: only for arrivals: trace:FILE")
        if len(set(self.saturation_shares)) < len(self.saturation_shares):
            problems.append("saturation_shares: the same share twice")
        if self.batch_mix and self.client_batch_sizes != DEFAULT_CLIENT_BATCHES:
            problems.append("batch_mix draws the client batch sizes: leave client_batch_sizes out")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _open_gaps(self) -> list[str]:
        """What an open loop lacks, or has twice."""
        if self.is_trace:
            given = {
                "rates_per_s": bool(self.rates_per_s),
                "shape": self.shape.kind is not ShapeKind.FLAT,
            }
            return [
                f"a trace says when each request falls due: leave {key} out"
                for key, is_given in given.items()
                if is_given
            ]
        if not self.rates_per_s:
            return ["load: open needs rates_per_s (requests per second), or arrivals: trace:FILE"]
        return []

    def _open_leftovers(self) -> list[str]:
        """What a closed loop has no use for."""
        given = {
            "rates_per_s": bool(self.rates_per_s),
            "arrivals": self.arrivals.kind is not ArrivalKind.POISSON,
            "shape": self.shape.kind is not ShapeKind.FLAT,
        }
        keys = " and ".join(key for key, is_given in given.items() if is_given)
        if not keys:
            return []
        return [f"{keys}: only for load: open (a closed loop sends when a request completes)"]

    @property
    def is_trace(self) -> bool:
        """Whether requests fall due at times read from a file."""
        return self.arrivals.kind is ArrivalKind.TRACE

    @property
    def arrival_process(self) -> ArrivalProcess:
        """How requests fall due, with the load's shape and the unit of a trace."""
        return replace(self.arrivals, shape=self.shape, trace_unit=self.trace_unit)

    @property
    def batch_sizes(self) -> list[int]:
        """Client batch sizes, ascending; of a mix the largest alone."""
        if self.batch_mix:
            return [max(size for size, _ in self.batch_mix)]
        return sorted(set(self.client_batch_sizes))
