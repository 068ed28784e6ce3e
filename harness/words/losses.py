"""What the parts of a lost quality are called, and how their numbers read."""

from __future__ import annotations

from collections.abc import Mapping

from harness.metrics import metric_named
from harness.types.losses import Estimate
from harness.words.amounts import metric_title
from harness.words.numbers import MISSING, POINT_DECIMALS, number, percent, signed, span

_PLAIN_DECIMALS = 3
"""Of a change that is not counted in points."""

STEPS: Mapping[str, str] = {
    "teacher": "Teacher",
    "training": "Training, no teacher",
    "half precision": "Half precision",
    "export+quantisation": "Export and quantisation",
    "export+half precision": "Export and half precision",
}
MEASURES: Mapping[str, str] = {
    "right_to_wrong": "Right→wrong",
    "wrong_to_right": "Wrong→right",
    "agreement": "Agrees",
    "label_agreement": "Same label",
    "entity_agreement": "Same entities (F1)",
    "cohen_kappa": "Kappa",
    "kl_mean_nats": "KL mean",
    "kl_p95_nats": "KL p95",
    "ece": "ECE",
    "brier": "Brier",
    "temperature": "Temp.",
    "ece_after": "ECE then",
    "log_likelihood_change_nats": "Log likelihood",
    "log_likelihood_change_p5_nats": "worst twentieth",
    "greedy_agreement": "Same next token",
    "mean_error": "Mean error",
    "mae_change": "MAE less the teacher's",
    "pearson_with_teacher": "Pearson with the teacher",
    "spearman_with_teacher": "Spearman with the teacher",
    "difference_mean": "Difference from the teacher",
    "difference_p95": "Difference p95",
    "cosine_mean": "Cosine with the teacher",
    "cosine_p5": "Cosine p5",
}
"""By measure, those that a report shows, in its order."""
UNITS: Mapping[str, str] = {
    "kl_mean_nats": "nats",
    "kl_p95_nats": "nats",
    "log_likelihood_change_nats": "nats per window",
    "log_likelihood_change_p5_nats": "nats per window",
}
SHARES = frozenset({"right_to_wrong", "wrong_to_right", "agreement", "greedy_agreement", "ece"})
SHARES |= {"ece_after", "label_agreement", "entity_agreement"}


def step_title(step: str) -> str:
    """A step of a chain at the head of a column."""
    return STEPS.get(step, step.capitalize())


def unit_of(metric: str) -> str:
    """What a loss is counted in: points of a share, else the metric's own unit."""
    return "points" if metric_named(metric).unit.is_share else metric_title(metric)


def unit_in_full(metric: str) -> str:
    """The same where the metric is not named beside it: `accuracy points`."""
    return (
        f"{metric_title(metric)} points" if metric_named(metric).unit.is_share else unit_of(metric)
    )


def changed(metric: str, loss: float) -> float:
    """A loss as a change of the metric, in the unit it is shown in.

    A loss is positive where quality got worse, whatever the metric; the change goes down where
    more is better and up where less is.
    """
    known = metric_named(metric)
    change = loss if known.lower_is_better else -loss
    return 100 * change if known.unit.is_share else change


def lost(metric: str, loss: float | None) -> str:
    """A loss as a change of the metric with its sign, without its unit."""
    if loss is None:
        return MISSING
    decimals = POINT_DECIMALS if metric_named(metric).unit.is_share else _PLAIN_DECIMALS
    return signed(changed(metric, loss), decimals=decimals)


def lost_span(metric: str, estimate: Estimate) -> str:
    """The interval of a loss, the lower change first."""
    if estimate.low is None or estimate.high is None:
        return ""
    ends = sorted((estimate.low, estimate.high), key=lambda loss: changed(metric, loss))
    return span(*(lost(metric, end) for end in ends))


def measure_words(measure: str, value: float | None) -> str:
    """A measure's value: shares in percent."""
    return percent(value) if measure in SHARES else number(value)


def measure_span(measure: str, low: float | None, high: float | None) -> str:
    """A measure's interval; nothing where it has none."""
    if low is None or high is None:
        return ""
    return span(measure_words(measure, low), measure_words(measure, high))
