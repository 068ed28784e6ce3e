"""The price of a study's machine, found before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from harness.errors import UsageError
from harness.planning.cost.catalogue import read_catalogue
from harness.planning.cost.scaling import machine_of, ran_on_accelerator, scaling_between
from harness.study import CostBasis, Study
from harness.types.estimates import Pricing


def priced(
    study: Study, environment: Mapping[str, object], *, today: date, external: bool = False
) -> Study:
    """The study with the price of its machine, and with how that compares with the measured one.

    Args:
        study: as its file has it; one without a section `cost` is returned as it is.
        environment: this machine, as `harness.system.machine` describes it.
        today: prices are not of a later day.
        external: the models are served by somebody else, on a machine that is not known here.

    Raises:
        UsageError: an instance type that is not known, a price that is not, throughput that cannot
            be estimated there, or an external server whose machine is not named.
    """
    cost = study.cost
    if cost is None:
        return study
    if external and cost.measured_on is None:
        raise UsageError(
            "the study names a cost, and the machine of an external server is not known here",
            next_step="write cost: {instance: g5.xlarge, measured_on: g5.xlarge} in the study",
        )
    kinds = {study.serving_of(family).instance_kind for family in study.families}
    if external:  # which kind the server has is found out later, and the price is of the machine
        kinds = {"cpu", "gpu"}
    pricing = {
        kind: _pricing(cost, kind, environment, today, external=external) for kind in sorted(kinds)
    }
    return study.model_copy(update={"cost": cost.model_copy(update={"pricing": pricing})})


def _pricing(
    cost: CostBasis, kind: str, environment: Mapping[str, object], today: date, *, external: bool
) -> Pricing:
    catalogue = read_catalogue(cost.prices, today=today)
    own_price = cost.usd_per_hour
    if own_price is not None and cost.measured_on == cost.instance:
        return Pricing(cost.instance, own_price)
    instance = catalogue.named(cost.instance)
    usd_per_hour = instance.usd_per_hour(spot=cost.spot) if own_price is None else own_price
    machine = machine_of(environment, catalogue, cost.measured_on or "")
    on_accelerator = ran_on_accelerator(machine, kind, external=external)
    scaling = scaling_between(machine, instance, on_accelerator=on_accelerator)
    return Pricing(instance.name, usd_per_hour, scaling.factor, scaling.rule)
