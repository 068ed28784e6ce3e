"""What a rollout is held to: an objective, agreement and counters of a Prometheus as guardrails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import UsageError
from harness.metrics import metric_named
from harness.types import Constraint, ServiceLevelObjective
from harness.types.metrics import PERCENTILES, MetricKind
from harness.types.rollout import BadOutcome, Comparison, Guardrail, RolloutMode, RolloutStage

_OWN = re.compile(
    r"\s*(?P<name>[\w .-]+?)\s*<\s*(?P<limit>[^;%]+)(?P<percent>%?)\s*;\s*bad:\s*(?P<bad>\S.*?)\s*;"
    r"\s*all:\s*(?P<all>\S.*?)\s*",
    re.DOTALL,
)
_BELOW = {"<", "<="}
_OF_ALL = 100.0


@dataclass(frozen=True)
class OwnCounters:
    """Two counters of a Prometheus whose increases are a guardrail's bad and all requests."""

    guardrail: str
    bad: str
    """A PromQL expression for bad requests; the series that it gives are summed. `all` is read
    alike."""
    all: str


def guardrails_of(
    slo: ServiceLevelObjective, mode: RolloutMode
) -> tuple[tuple[Guardrail, ...], tuple[str, ...]]:
    """The clauses of an objective as shares of bad requests.

    Args:
        slo: whose clauses they are.
        mode: where both models answer the same requests, accuracy is compared on those.

    Returns:
        The guardrails, and for each clause that is none why.
    """
    found: list[Guardrail] = []
    left_out: list[str] = []
    for clause in slo.constraints:
        one = _guardrail(clause, mode)
        if isinstance(one, str):
            left_out.append(f"`{clause.text}` is no guardrail: {one}")
        else:
            found.append(one)
    return tuple(found), tuple(left_out)


def _guardrail(clause: Constraint, mode: RolloutMode) -> Guardrail | str:
    """The guardrail of a clause, or why it has none."""
    name, value = clause.text, clause.value
    below = clause.operator in _BELOW
    if metric_named(clause.metric).kind is MetricKind.LATENCY:
        quantile = PERCENTILES.get(clause.metric)
        if quantile is None or not below:
            return "only a percentile that is bounded from above is a share of slow requests"
        limit = round(1 - quantile, 6)
        return Guardrail(name, BadOutcome.SLOW, Comparison.LIMIT, limit, bound_ms=value)
    if clause.metric == "error_rate" and below:
        return Guardrail(name, BadOutcome.FAILED, Comparison.LIMIT, value)
    if clause.metric == "accuracy" and not below:
        if not clause.relative_to_teacher:
            return Guardrail(name, BadOutcome.WRONG, Comparison.LIMIT, round(1 - value, 6))
        # right >= r x teacher's right: wrong <= (1 - r) + r x teacher's wrong
        comparison = Comparison.TEACHER if mode is RolloutMode.CANARY else Comparison.PAIRED
        limit = round(1 - value, 6)
        return Guardrail(name, BadOutcome.WRONG, comparison, limit, factor=value)
    return "it says nothing of a single request"


def agreement_guardrail(share: float) -> Guardrail:
    """At least a share of the student's answers are the teacher's."""
    name = f"agreement >= {share:.6g}"
    return Guardrail(name, BadOutcome.DISAGREES, Comparison.LIMIT, round(1 - share, 6))


def parse_own(text: str) -> tuple[Guardrail, OwnCounters]:
    """Read `refunds < 2%; bad: PROMQL; all: PROMQL`.

    Raises:
        UsageError: it is not written like that.
    """
    match = _OWN.fullmatch(text)
    try:
        limit = float(match["limit"]) / (_OF_ALL if match["percent"] else 1.0) if match else None
    except ValueError:
        limit = None
    if match is None or limit is None:
        raise UsageError(
            f"--own {text}: a name, a limit and two counters are needed",
            next_step="write it as --own 'refunds < 2%; bad: sum(refunds_total); all: "
            "sum(orders_total)'",
        )
    name = match["name"]
    guardrail = Guardrail(name, BadOutcome.OWN, Comparison.LIMIT, limit)
    return guardrail, OwnCounters(name, match["bad"], match["all"])


def parse_stages(text: str) -> tuple[RolloutStage, ...]:
    """Read `5%,25%,100%`.

    Raises:
        UsageError: it is none; whether the shares grow is checked with the plan.
    """
    return tuple(RolloutStage(share) for share in _shares(text))


def _shares(text: str) -> Iterator[float]:
    for part in text.split(","):
        try:
            number = float(part.strip().removesuffix("%"))
        except ValueError as error:
            raise UsageError(
                f"--stages {text}: '{part}' is no share of the traffic",
                next_step="for example --stages 5%,25%,100%",
            ) from error
        yield number / _OF_ALL if part.strip().endswith("%") else number
