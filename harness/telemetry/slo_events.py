"""An objective's clauses as a service-level objective counts: events, bad ones, a budget of these.

`p95 < 50 ms` says that at most 5 % of the requests may take 50 ms or longer: a request is an event,
a slow one is bad, and the budget is 0.05. `error_rate < 1%` is one already. A mean and a throughput
are no shares of events, so these have a bound and no budget.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.types import ServiceLevelObjective

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
LATENCY_METRICS = frozenset({*QUANTILES, "mean"})
ERROR_RATE = "error_rate"
_MS_PER_S = 1e3


class Clause(NamedTuple):
    """One clause of a family's objective."""

    family: str
    text: str
    """As it was written."""
    metric: str
    operator: str
    bound: float
    """In base units: seconds, a share, 1/s, or the quality metric's own."""
    relative_to_teacher: bool
    """Then the bound is a factor of the teacher's value."""
    budget: float | None
    """Share of events that may be bad; None where events do not tell."""

    @property
    def is_latency(self) -> bool:
        """Whether the bound is in seconds."""
        return self.metric in LATENCY_METRICS

    @property
    def unit(self) -> str:
        """Of the bound, as it stands in the name of its metric."""
        if self.is_latency:
            return "seconds"
        return {ERROR_RATE: "ratio", "throughput": "per_second"}.get(self.metric, "score")


def clauses_of(family: str, slo: ServiceLevelObjective) -> tuple[Clause, ...]:
    """The clauses of an objective."""
    found = []
    for one in slo.constraints:
        bound = one.value / _MS_PER_S if one.metric in LATENCY_METRICS else one.value
        budget = None
        if one.metric in QUANTILES:
            budget = round(1 - QUANTILES[one.metric], 6)
        elif one.metric == ERROR_RATE:
            budget = one.value
        found.append(
            Clause(
                family,
                one.text,
                one.metric,
                one.operator,
                bound,
                one.relative_to_teacher,
                budget or None,
            )
        )
    return tuple(found)
