"""What the metrics of a decision weigh, in a study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from harness.errors import did_you_mean
from harness.metrics import METRICS, OF_ARTEFACTS


def weights_problem(weights: Mapping[str, float]) -> str:
    """Why weights mean nothing: an unknown metric, a negative weight, a sum of zero; else empty."""
    known = [*METRICS, *OF_ARTEFACTS.entries]
    for name, weight in weights.items():
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
            return f"there is no metric '{name}': {hint}"
        if not 0 <= weight < math.inf:
            return f"the weight of {name} must be 0 or more, and finite"
    if not sum(weights.values()) > 0:
        return "the weights sum to nothing, so they rank nothing: give one metric more than 0"
    return ""


def _checked(weights: dict[str, float] | None) -> dict[str, float] | None:
    if weights is not None and (problem := weights_problem(weights)):
        raise ValueError(problem)
    return weights


Weights = Annotated[
    dict[str, float] | None,
    AfterValidator(_checked),
    Field(
        description="What `harness decide` ranks candidates by, a metric's name with its weight, "
        "such as {accuracy: 2, throughput: 1}; also size and cold_start. Default: no ranking.",
    ),
]
