"""Rules from one machine to another, with their bounds, by hand."""

from datetime import date

import pytest

from harness.errors import UsageError
from harness.planning.cost.catalogue import read_catalogue
from harness.planning.cost.scaling import machine_of, scaling_between
from harness.types.costs import MeasuredMachine

CATALOGUE = read_catalogue(today=date(2026, 11, 29))
TWO_CORES = MeasuredMachine("", 2, "", 0)
T4 = MeasuredMachine("g4dn.xlarge", 4, "T4", 1)


def scaled(machine, name, *, on_accelerator=False):
    found = scaling_between(machine, CATALOGUE.named(name), on_accelerator=on_accelerator)
    return found.factor.value, found.factor.low, found.factor.high, found.rule


def test_the_very_type_is_measured_and_no_estimate():
    assert scaled(T4, "g4dn.xlarge", on_accelerator=True) == (1.0, 1.0, 1.0, "")


def test_the_same_size_of_an_unknown_machine_is_an_estimate_all_the_same():
    value, low, high, rule = scaled(TWO_CORES, "c7i.large")
    assert (value, low, high) == pytest.approx((1.0, 1 / 1.5, 1.5))
    assert (
        rule == "estimate from a machine with 2 vCPUs: 2 vCPUs to 2 vCPUs, within a factor of 1.50"
    )


def test_cpus_scale_by_their_number_and_the_bounds_widen_with_it():
    value, low, high, rule = scaled(TWO_CORES, "c7i.2xlarge")
    band = 1.5 * 1.15**2  # two doublings
    assert (value, low, high) == pytest.approx((4.0, 4 / band, 4 * band))
    assert "2 vCPUs to 8 vCPUs" in rule


def test_accelerators_scale_by_both_published_figures():
    value, low, high, rule = scaled(T4, "g5.xlarge", on_accelerator=True)
    bandwidth, arithmetic = 600 / 320, 70 / 65
    assert value == pytest.approx((bandwidth * arithmetic) ** 0.5)
    assert (low, high) == pytest.approx((arithmetic / 1.5, bandwidth * 1.5))
    assert "1 T4 to 1 A10G, 1.88 times the memory bandwidth and 1.08 times the FP16" in rule


def test_accelerators_of_one_kind_scale_by_their_number():
    value, low, high, _ = scaled(T4, "g4dn.12xlarge", on_accelerator=True)
    assert (value, low, high) == pytest.approx((4.0, 4 / 1.5, 6.0))


@pytest.mark.parametrize(
    ("machine", "name", "on_accelerator"),
    [(TWO_CORES, "g5.xlarge", False), (T4, "c7i.large", True)],
)
def test_from_cpu_to_accelerator_there_is_no_rule(machine, name, on_accelerator):
    with pytest.raises(UsageError, match="cannot be estimated") as caught:
        scaled(machine, name, on_accelerator=on_accelerator)
    assert caught.value.next_step == f"run the study on {name}, then add --measured-on {name}"


def test_an_accelerator_without_figures_is_told():
    unknown = MeasuredMachine("", 8, "NVIDIA GeForce RTX 4090", 1)
    with pytest.raises(UsageError, match="of 'NVIDIA GeForce RTX 4090' are not known"):
        scaled(unknown, "g5.xlarge", on_accelerator=True)


@pytest.mark.parametrize(
    ("environment", "named", "machine"),
    [
        ({"usable_cores": 2, "cores": 4, "gpus": []}, "", TWO_CORES),
        ({"usable_cores": 4, "gpus": ["Tesla T4"]}, "", MeasuredMachine("", 4, "T4", 1)),
        ({"usable_cores": 4, "gpus": ["NVIDIA A10G"], "instance": "g5.xlarge"}, "",
         MeasuredMachine("g5.xlarge", 4, "A10G", 1)),
        ({"usable_cores": 4, "instance": "z1.metal"}, "", MeasuredMachine("", 4, "", 0)),
        ({"usable_cores": 4, "gpus": []}, "C7I.xlarge", MeasuredMachine("c7i.xlarge", 4, "", 0)),
        ({}, "", MeasuredMachine("", 0, "", 0)),
    ],
)  # fmt: skip
def test_the_machine_is_as_named_or_detected_or_described(environment, named, machine):
    assert machine_of(environment, CATALOGUE, named) == machine


def test_a_machine_without_a_number_of_cpus_estimates_nothing():
    with pytest.raises(UsageError, match="does not say how many CPUs"):
        scaled(MeasuredMachine("", 0, "", 0), "c7i.large")


def test_a_machine_that_is_named_wrongly_is_told():
    with pytest.raises(UsageError, match=r"did you mean .*c7i.xlarge"):
        machine_of({}, CATALOGUE, "c7i.xlarg")
