"""Which clauses of an objective are of what: load, quality, latencies, goodput, cost."""

from __future__ import annotations

from harness.errors import UsageError
from harness.metrics import (
    DEFAULT_LATENCY,
    GOODPUT,
    metric_named,
)
from harness.types import Constraint, RequestBound, ServiceLevelObjective
from harness.types.metrics import Metric, MetricKind

AskedFor = frozenset[tuple[str, str, float, bool]]


def asked_for(slo: ServiceLevelObjective) -> AskedFor:
    """What an objective asks for, however it is written: `p95<50ms` is `p95 < 50 ms`."""
    return frozenset(
        (one.metric, one.operator, one.value, one.relative_to_teacher) for one in slo.constraints
    )


def load_clauses(slo: ServiceLevelObjective) -> tuple[Constraint, ...]:
    """The clauses that a load decides: on latencies, rates, shares and costs."""
    return tuple(one for one in slo.constraints if not metric_named(one.metric).is_quality)


def request_bounds(slo: ServiceLevelObjective) -> tuple[RequestBound, ...]:
    """The clauses on latencies as one request meets them or not, in the objective's order.

    A request meets a clause on a span of which it has one value if that value is within the bound,
    whichever statistic the clause names; one on a span of which it has several (`itl p99`) if that
    statistic of its own values is.
    """
    metrics = [(one, metric_named(one.metric)) for one in slo.constraints if _is_latency(one)]
    return tuple(
        RequestBound(metric.span, metric.quantile, round(one.value * 1e6), "=" in one.operator)
        for one, metric in metrics
    )


def _is_latency(clause: Constraint) -> bool:
    return metric_named(clause.metric).kind is MetricKind.LATENCY


def quality_clauses(slo: ServiceLevelObjective) -> tuple[Constraint, ...]:
    """The clauses on quality, which no load decides."""
    return tuple(one for one in slo.constraints if metric_named(one.metric).is_quality)


def judged_latency(slo: ServiceLevelObjective | None) -> Metric:
    """The latency that an objective speaks of first; p95 where it speaks of none."""
    named = (metric_named(one.metric) for one in slo.constraints) if slo else iter(())
    latencies = (metric for metric in named if metric.kind is MetricKind.LATENCY)
    return next(latencies, metric_named(DEFAULT_LATENCY))


def judged_latencies(slo: ServiceLevelObjective) -> tuple[Metric, ...]:
    """Every latency that an objective bounds, in its order; p95 where it bounds none."""
    names = dict.fromkeys(one.metric for one in slo.constraints if _is_latency(one))
    return tuple(map(metric_named, names or [DEFAULT_LATENCY]))


UNCOUNTED = "goodput counts the requests that meet all clauses on latencies, and there is none"
NAME_A_LATENCY = "add one: ttft p95 < 200 ms, goodput >= 5/s"


def lacks_clauses_of_goodput(slo: ServiceLevelObjective) -> bool:
    """Whether a goodput is asked for, and nothing says which requests are good."""
    return any(one.metric == GOODPUT for one in slo.constraints) and not request_bounds(slo)


def check_counted(slo: ServiceLevelObjective) -> None:
    """Refuse a clause on goodput beside which there is none on a latency.

    Raises:
        UsageError: there is one.
    """
    if lacks_clauses_of_goodput(slo):
        raise UsageError(f"'{slo.text}': {UNCOUNTED}", next_step=NAME_A_LATENCY)


UNSTREAMED = "the objective asks for {}, which only models that write have, token by token"
NAME_A_RESPONSE = "bound the whole answer, as in p95 < 50 ms"


def stream_clauses(slo: ServiceLevelObjective) -> tuple[Constraint, ...]:
    """The clauses on what only models that write have: tokens, and the times between them."""
    return tuple(one for one in slo.constraints if metric_named(one.metric).of_streams)


def check_streamed(slo: ServiceLevelObjective) -> None:
    """Refuse a clause on tokens where the model gives its answer as a whole.

    Raises:
        UsageError: there is one.
    """
    for clause in stream_clauses(slo):
        raise UsageError(
            f"'{slo.text}': {UNSTREAMED.format(clause.metric)}", next_step=NAME_A_RESPONSE
        )


UNPRICED = "the objective asks for {}, and no machine is named to price it on"
NAME_A_MACHINE = "write cost: {instance: g5.xlarge} in the study"


def cost_clause(slo: ServiceLevelObjective) -> Constraint | None:
    """The first clause on a cost; None where there is none."""
    priced = (c for c in slo.constraints if metric_named(c.metric).kind is MetricKind.COST)
    return next(priced, None)


def check_priced(slo: ServiceLevelObjective) -> None:
    """Refuse a clause on cost that nothing prices: without a study there is no machine.

    Raises:
        UsageError: there is one.
    """
    clause = cost_clause(slo)
    if clause is not None and slo.pricing is None:
        raise UsageError(UNPRICED.format(clause.text), next_step=NAME_A_MACHINE)
