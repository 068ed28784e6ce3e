"""What things are called in a report: decisions by word and symbol, trials in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.words.loads import load_words
from harness.report.words.numbers import MISSING, TIMES, factor, number, percent
from harness.types import (
    Accelerator,
    Decision,
    QualityScore,
    ServingConfig,
    Trial,
    WireProtocol,
    Workload,
)


@dataclass(frozen=True)
class Sign:
    """A decision for the eye: never colour alone."""

    word: str
    symbol: str
    tone: str
    """CSS class: pass, fail, undecided, invalid."""


SIGNS: Mapping[Decision, Sign] = {
    Decision.PASS: Sign("Pass", "✓", "pass"),
    Decision.FAIL: Sign("Fail", "✕", "fail"),
    Decision.UNDECIDED: Sign("Undecided", "?", "undecided"),
    Decision.INVALID: Sign("Invalid", "⊘", "invalid"),
}
INTERRUPTED = Sign("Not finished", "…", "undecided")

CAUSES: Mapping[str, str] = {
    "export": "could not be exported",
    "serving": "could not be served",
    "quality": "below the quality floor",
    "latency": "too slow to answer",
    "throughput": "too little throughput",
    "error_rate": "too many failed requests",
    "undecided": "undecided, the interval straddles a bound",
    "invalid": "invalid, the measurement cannot be trusted",
    "slower": "within the objective, but with less throughput",
    "teacher": "within the load clauses, and the teacher's own",
    "dominated": "not measured, could not win any more",
}
"""Causes of a rejection, in the order a reader asks for them."""

PROTOCOLS: Mapping[WireProtocol, str] = {WireProtocol.HTTP: "HTTP", WireProtocol.GRPC: "gRPC"}

METRICS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "exact_match": "exact match",
    "f1": "F1",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "word_perplexity": "word perplexity",
    "byte_perplexity": "byte perplexity",
}
LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_byte", "word_perplexity", "byte_perplexity"})
SHARES = frozenset(
    {
        *("accuracy", "macro_f1", "exact_match", "f1"),
        *("acc", "acc_norm", "acc_bytes", "acc_mutual_info"),
    }
)
TASK_SEPARATOR = "/"
"""Between an lm-eval task and its metric."""


def cause_title(cause: str) -> str:
    """A rejection's cause in words; an unknown one as it stands."""
    return CAUSES.get(cause, cause.replace("_", " "))


def metric_title(metric: str) -> str:
    """A quality metric's name as it is commonly written; of an lm-eval task as lm-eval has it."""
    return METRICS.get(metric, metric if TASK_SEPARATOR in metric else metric.replace("_", " "))


def kind_of(metric: str) -> str:
    """The metric without the lm-eval task and filter: `mnli/acc,none` is an `acc`."""
    return metric.rpartition(TASK_SEPARATOR)[2].partition(",")[0]


def heading(metric: str) -> str:
    """A quality metric's name at the head of a column or row."""
    title = metric_title(metric)
    if TASK_SEPARATOR in metric:
        return title
    return title[:1].upper() + title[1:]


def metric_value(metric: str, value: float | None) -> str:
    """A quality value: shares as percentages, the rest as numbers."""
    return percent(value) if kind_of(metric) in SHARES else number(value)


def relative_value(metric: str, value: float | None) -> str:
    """A value over the teacher's: a share of its accuracy, a factor of its perplexity."""
    if value is None:
        return MISSING
    return percent(value) if kind_of(metric) not in LOWER_IS_BETTER else factor(value)


def relative_title(score: QualityScore) -> str:
    """`of the teacher's accuracy`, as it follows a relative value."""
    return f"of the teacher's {metric_title(score.metric)}"


def serving_words(serving: ServingConfig) -> str:
    """Triton's side in one line."""
    if not serving.told:
        return "as its server has it, which does not say how"
    instances = (
        "1 instance" if serving.instance_count == 1 else f"{serving.instance_count} instances"
    )
    threads = "1 thread" if serving.intra_op_threads == 1 else f"{serving.intra_op_threads} threads"
    return (
        f"max batch {serving.max_batch_size}, queue delay {serving.queue_delay_us:,} µs, "
        f"{instances} {TIMES} {threads}"
        + ("" if serving.accelerator is Accelerator.NONE else f", {serving.accelerator}")
        + (", response cache" if serving.response_cache else "")
    )


def batch_words(workload: Workload) -> str:
    """Rows a request: `16`, or `1 to 16` where they are drawn from a mix."""
    if not workload.batch_mix:
        return str(workload.client_batch_size)
    return f"{min(rows for rows, _ in workload.batch_mix)} to {workload.client_batch_size}"


def workload_words(workload: Workload) -> str:
    """The client's side in one line."""
    protocol, batch = PROTOCOLS[workload.protocol], batch_words(workload)
    return f"{protocol}, client batch {batch}, {load_words(workload)}"


def trial_words(trial: Trial) -> str:
    """A trial in one line, without its variant."""
    return f"{workload_words(trial.workload)}; {serving_words(trial.serving)}"


def shortened(name: str, most: int = 24) -> str:
    """A name cut in the middle, where both ends tell it apart."""
    if len(name) <= most:
        return name
    return f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the words before hyphens that all share, for plots with little room.

    >>> short_names(["topics-teacher-fp32", "topics-tiny-fp32"])
    {'topics-teacher-fp32': 'teacher-fp32', 'topics-tiny-fp32': 'tiny-fp32'}
    """
    if len(names) < 2:  # noqa: PLR2004  (one name shares nothing)
        return {name: name for name in names}
    parts = [name.split("-") for name in names]
    shared = 0
    while len({tuple(part[: shared + 1]) for part in parts}) == 1 < min(map(len, parts)) - shared:
        shared += 1
    return {name: "-".join(part[shared:]) for name, part in zip(names, parts, strict=True)}
