"""A study's cost, priced before anything starts."""

from __future__ import annotations

from datetime import UTC, datetime

from harness.planning.cost.pricing import priced
from harness.study import Study
from harness.system.machine import describe_machine


def priced_study(study: Study, *, external: bool = False) -> Study:
    """The study with what its clauses on cost are priced on, if it has a section `cost`.

    Args:
        study: as its file has it.
        external: its models are served on another machine than this one.

    Raises:
        UsageError: it cannot be priced (`harness.planning.cost.pricing`).
    """
    if study.cost is None:
        return study
    return priced(study, describe_machine(), today=datetime.now(UTC).date(), external=external)
