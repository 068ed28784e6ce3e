"""What the parts of a lost quality are called, and how their numbers read."""

from __future__ import annotations

from collections.abc import Mapping

from harness.types.losses import Estimate, LossChain
from harness.words.numbers import MINUS, MISSING, number, span

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
}
"""By measure, those that a report shows, in its order."""
UNITS: Mapping[str, str] = {
    "kl_mean_nats": "nats",
    "kl_p95_nats": "nats",
    "log_likelihood_change_nats": "nats a window",
    "log_likelihood_change_p5_nats": "nats a window",
}
SHARES = frozenset({"right_to_wrong", "wrong_to_right", "agreement", "greedy_agreement", "ece"})
SHARES |= {"ece_after"}
_NO_LOSS = 5e-4
"""Of points or bits per byte; below, a loss reads as none."""


def step_title(step: str) -> str:
    """A step of a chain at the head of a column."""
    return STEPS.get(step, step.capitalize())


def is_accuracy(metric: str) -> bool:
    """Whether losses are shares of samples, which read as points."""
    return metric == "accuracy"


def unit_of(metric: str) -> str:
    """What a loss is counted in."""
    return "points" if is_accuracy(metric) else "bits per byte"


def scaled(metric: str, value: float) -> float:
    """A loss in the unit it is shown in."""
    return value * 100 if is_accuracy(metric) else value


def lost(metric: str, value: float | None) -> str:
    """A loss with its sign turned: what was lost is negative, what was won positive."""
    if value is None:
        return MISSING
    shown = scaled(metric, value)
    digits = 2 if is_accuracy(metric) else 3
    if abs(shown) < _NO_LOSS:
        return "0"
    worse = shown > 0 if is_accuracy(metric) else shown < 0
    return f"{MINUS if worse else '+'}{abs(shown):.{digits}f}"


def lost_span(metric: str, estimate: Estimate) -> str:
    """The interval of a loss, in the order of what is written."""
    if estimate.low is None or estimate.high is None:
        return ""
    ends = (estimate.high, estimate.low) if is_accuracy(metric) else (estimate.low, estimate.high)
    low, high = (lost(metric, end) for end in ends)
    return f"{low} to {high}"


def quality_words(metric: str, value: float) -> str:
    """Quality after a step."""
    return f"{value:.1%}" if is_accuracy(metric) else f"{value:.3f}"


def metric_words(chain: LossChain) -> str:
    """What a chain's losses are, in a sentence."""
    return "accuracy points" if is_accuracy(chain.metric) else "bits per byte (more is worse)"


def measure_words(measure: str, value: float | None) -> str:
    """A measure's value: shares in percent."""
    if value is None:
        return MISSING
    return f"{value:.1%}" if measure in SHARES else number(value)


def measure_span(measure: str, low: float | None, high: float | None) -> str:
    """A measure's interval; nothing where it has none."""
    if low is None or high is None:
        return ""
    return span(measure_words(measure, low), measure_words(measure, high))
