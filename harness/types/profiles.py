"""The terms of a profile: where a model's time goes, what bounds it, how it scales with the batch.

Like `harness.types`: frozen, standard library only, no behaviour beyond derived names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.types import ModelVariant
from harness.types.card import RepeatedMeasure, Runtime


@dataclass(frozen=True)
class Peak:
    """The most arithmetic that one runtime gave of one datatype, in a large matrix product."""

    runtime: Runtime
    datatype: str
    """fp32, or int8 (products of 8-bit integers, summed in 32 bits)."""
    operations_per_s: float
    """Multiplications and additions, each counted."""


@dataclass(frozen=True)
class Roofline:
    """What this machine gives: measured once, with as many threads as the models get."""

    machine: str
    threads: int
    memory_bytes_per_s: float
    """Triad over arrays that no cache holds."""
    memory_array_bytes: int
    """Size of each of the three arrays."""
    cache_bytes_per_s: float
    """Triad over arrays that the last-level cache holds."""
    cache_array_bytes: int
    peaks: tuple[Peak, ...]
    measured_utc: str

    def peak(self, runtime: Runtime, datatype: str) -> Peak | None:
        """The peak of a runtime and datatype; None where it was not measured."""
        wanted = (runtime, datatype)
        return next((one for one in self.peaks if (one.runtime, one.datatype) == wanted), None)


@dataclass(frozen=True)
class OperatorCost:
    """One operator of a model at one shape, over one call of the model."""

    name: str
    """Name of the node, or in PyTorch the operator with its shapes."""
    kind: str
    """Operator type: MatMul, aten::addmm."""
    calls: float
    """Calls of the operator per call of the model."""
    time_us: float
    """All of its calls together, without what it calls."""
    datatype: str
    """Datatype of a matrix product: fp32 or int8; empty for others."""
    operations: float | None = None
    """Multiplications and additions, all calls together; None where they are not counted."""
    moved_bytes: float | None = None
    """Inputs read and outputs written once, all calls together."""

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity: operations per byte moved."""
        if not self.operations or not self.moved_bytes:
            return None
        return self.operations / self.moved_bytes

    @property
    def operations_per_s(self) -> float | None:
        """Arithmetic operations achieved per second."""
        if not self.operations or not self.time_us:
            return None
        return self.operations / self.time_us * 1e6


@dataclass(frozen=True)
class OperatorProfile:
    """Where the time of one model goes, in one runtime, at one shape."""

    runtime: Runtime
    batch_size: int
    length: int
    runs: int
    """Profiled calls of the model."""
    call_ms: RepeatedMeasure
    """Milliseconds of a call with the profiler off."""
    operators: tuple[OperatorCost, ...]
    """Operators, heaviest first."""
    trace: str
    """File of the profiler's own trace, relative to the profile's folder."""

    @property
    def operator_us(self) -> float:
        """All operators together, a call."""
        return sum(one.time_us for one in self.operators)


@dataclass(frozen=True)
class ScalingStep:
    """Throughput at one batch size, and what doubling the batch before brought."""

    batch_size: int
    per_s: RepeatedMeasure
    """Median and range of the rounds."""
    growth: float | None = None
    """Gain in throughput over the batch half as large; None for the first."""
    growth_low: float | None = None
    growth_high: float | None = None
    """95% interval over rounds in which both were measured one after the other."""
    rounds: int = 0


@dataclass(frozen=True)
class Scaling:
    """How throughput grows with the batch, until it no longer does."""

    runtime: Runtime
    length: int
    least_growth: float
    """What doubling has to bring, as a share."""
    steps: tuple[ScalingStep, ...]
    knee: int | None
    """The batch from which doubling brings less; None where none was found."""
    ended: str
    """Why no larger batch was tried."""

    @property
    def best(self) -> ScalingStep:
        """The step of the highest throughput."""
        return max(self.steps, key=lambda step: step.per_s.value)


@dataclass(frozen=True)
class VariantProfile:
    """A variant and its checkpoint, profiled."""

    variant: ModelVariant
    threads: int
    seed: int
    roofline: Roofline
    operators: tuple[OperatorProfile, ...]
    scaling: tuple[Scaling, ...]
    versions: Mapping[str, str]
    """Versions of the runtimes, by name."""
    instructions: tuple[str, ...] = ()
    """What the processor has for products of 8-bit integers: avx512_vnni, avx_vnni, amx_int8."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    created_utc: str = ""
