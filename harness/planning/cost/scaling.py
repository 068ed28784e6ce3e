"""Throughput on a machine that was not measured, from one that was: by rules, never silently.

A rule gives a factor with bounds, and what it rests on in words; whatever is made with it is
marked as an estimate.

- *CPU*: throughput grows with the number of virtual CPUs, if instances and threads do. Bounds: a
  factor of 1.5 either way, and another 1.15 for each doubling (or halving), because generations
  and clocks differ and no server scales perfectly.
- *Accelerator*: a model is limited by memory bandwidth or by arithmetic, and which of them is
  rarely known. The factor is the geometric mean of the ratios of the two published figures
  (bandwidth, dense FP16 tensor throughput); the bounds are the smaller ratio over 1.5 and the
  larger one times 1.5. Throughput grows with the number of accelerators, one replica on each.
- From CPU to accelerator and back there is no rule: that has to be measured.

The bounds are judgement, not a confidence interval.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from harness.errors import UsageError
from harness.planning.cost.catalogue import Catalogue, InstanceType
from harness.types.costs import MeasuredMachine
from harness.types.estimates import Interval
from harness.words.numbers import number

BAND = 1.5
BAND_PER_DOUBLING = 1.15
MEASURED = Interval(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class AcceleratorKind:
    """Published figures of an accelerator (NVIDIA's data sheets)."""

    name: str
    memory_gb: float
    bandwidth_gb_per_s: float
    fp16_tflops: float
    """Dense, by tensor cores."""
    driver_names: tuple[str, ...]
    """What nvidia-smi calls it."""


@dataclass(frozen=True)
class InstanceScaling:
    """Throughput on another machine over that on the one that was measured."""

    factor: Interval
    rule: str
    """How it was estimated; empty where that very type was measured."""


@cache
def accelerator_kinds() -> Mapping[str, AcceleratorKind]:
    """All accelerators whose figures are known, by name."""
    text = resources.files(__package__ or "").joinpath("accelerators.csv").read_text("utf-8")
    return {
        row["name"]: AcceleratorKind(
            row["name"],
            float(row["memory_gb"]),
            float(row["bandwidth_gb_per_s"]),
            float(row["fp16_tflops"]),
            tuple(row["driver_names"].split(";")),
        )
        for row in csv.DictReader(io.StringIO(text))
    }


def machine_of(
    environment: Mapping[str, object], catalogue: Catalogue, measured_on: str = ""
) -> MeasuredMachine:
    """The machine that a run's manifest describes.

    Args:
        environment: the manifest's part of that name (`harness.system.machine`).
        catalogue: where the type is looked up.
        measured_on: the instance type as the user names it; before what was detected.

    Raises:
        UsageError: the user names a type that the catalogue does not have.
    """
    detected = str(environment.get("instance") or "")
    known = detected.lower() in catalogue.by_name
    if measured_on or known:
        found = catalogue.named(measured_on or detected)
        return MeasuredMachine(found.name, found.vcpu, found.accelerator, found.accelerators)
    names = environment.get("gpus")
    gpus = [str(one) for one in names] if isinstance(names, Sequence) else []
    cores = environment.get("usable_cores") or environment.get("cores")
    vcpu = int(cores) if isinstance(cores, (int, float)) else 0
    return MeasuredMachine("", vcpu, _kind_of(gpus[0]) if gpus else "", len(gpus))


def _kind_of(driver_name: str) -> str:
    kinds = accelerator_kinds().values()
    return next((one.name for one in kinds if driver_name in one.driver_names), driver_name)


def ran_on_accelerator(machine: MeasuredMachine, instance_kind: str, *, external: bool) -> bool:
    """Whether a model ran on the accelerators of its machine, rather than on the CPUs.

    The kind of instance tells on our own server. An external server may have none to tell (OpenAI's
    API), or one that says nothing of where the model runs (KIND_MODEL, as vLLM has), so there the
    machine decides.

    Args:
        machine: where the model ran.
        instance_kind: `cpu` or `gpu`, as the serving configuration has it.
        external: somebody else's server was measured (`is_external` of a run's manifest).
    """
    return bool(machine.accelerator) if external else instance_kind == "gpu"


def is_external(manifest: Mapping[str, object]) -> bool:
    """Whether a run measured a server that somebody else runs."""
    return "server" in manifest


def scaling_between(
    measured: MeasuredMachine, to: InstanceType, *, on_accelerator: bool
) -> InstanceScaling:
    """How many times the measured throughput another machine is expected to give.

    Args:
        measured: where it was measured.
        to: the other machine.
        on_accelerator: whether the model ran on the accelerators, rather than on the CPUs.

    Raises:
        UsageError: there is no rule from the one to the other; it has to be measured.
    """
    if measured.instance and measured.instance.lower() == to.name.lower():
        return InstanceScaling(MEASURED, "")
    if on_accelerator != bool(to.accelerator):
        was, wanted = ("accelerator", "CPUs") if on_accelerator else ("CPUs", "accelerator")
        raise UsageError(
            f"measured on the {was} of {measured.title}, the throughput on the {wanted} of "
            f"{to.name} cannot be estimated",
            next_step=f"run the study on {to.name}, then add --measured-on {to.name}",
        )
    return _by_accelerator(measured, to) if on_accelerator else _by_vcpu(measured, to)


def _by_vcpu(measured: MeasuredMachine, to: InstanceType) -> InstanceScaling:
    if not measured.vcpu:
        raise UsageError(
            "the run's manifest does not say how many CPUs it was measured on, so nothing can be "
            "estimated from it",
            next_step="name its instance type: --measured-on c7i.xlarge",
        )
    ratio = to.vcpu / measured.vcpu
    band = BAND * BAND_PER_DOUBLING ** abs(math.log2(ratio))
    return InstanceScaling(
        Interval(ratio, ratio / band, ratio * band),
        f"estimate from {measured.title}: {_vcpus(measured.vcpu)} to {_vcpus(to.vcpu)}, "
        f"within a factor of {number(band)}",
    )


def _by_accelerator(measured: MeasuredMachine, to: InstanceType) -> InstanceScaling:
    count = to.accelerators / max(1, measured.accelerators)
    ratios = (1.0, 1.0)
    if measured.accelerator != to.accelerator:
        was, wanted = _figures(measured.accelerator), _figures(to.accelerator)
        ratios = (
            wanted.bandwidth_gb_per_s / was.bandwidth_gb_per_s,
            wanted.fp16_tflops / was.fp16_tflops,
        )
    value, low, high = math.sqrt(ratios[0] * ratios[1]), min(ratios) / BAND, max(ratios) * BAND
    return InstanceScaling(
        Interval(count * value, count * low, count * high),
        f"estimate from {measured.title}: {measured.accelerators} {measured.accelerator} to "
        f"{to.accelerators} {to.accelerator}, {number(ratios[0])} times the memory bandwidth and "
        f"{number(ratios[1])} times the FP16 throughput each, within {number(count * low)} to "
        f"{number(count * high)} times",
    )


def _figures(accelerator: str) -> AcceleratorKind:
    found = accelerator_kinds().get(accelerator)
    if found is None:
        raise UsageError(
            f"memory bandwidth and FP16 throughput of '{accelerator}' are not known, so nothing "
            "can be estimated from it or for it",
            next_step="name the machine that was measured (--measured-on TYPE), and price that; "
            f"known are {', '.join(accelerator_kinds())}",
        )
    return found


def _vcpus(number: int) -> str:
    return "1 vCPU" if number == 1 else f"{number} vCPUs"
