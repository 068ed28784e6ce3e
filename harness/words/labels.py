"""What things are called in a report: decisions by word and symbol, trials in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.metrics import METRICS
from harness.types import (
    Accelerator,
    Decision,
    ServingConfig,
    Trial,
    WireProtocol,
    Workload,
)
from harness.words.loads import load_words
from harness.words.numbers import TIMES, asked, seconds


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

_OTHER_CAUSES: Mapping[str, str] = {
    "undecided": "undecided, the interval straddles a bound",
    "invalid": "invalid, the measurement cannot be trusted",
    "slower": "within the objective, but with less throughput",
    "teacher": "within the load clauses, and the teacher's own",
    "dominated": "not measured, could not win any more",
}


def causes() -> Mapping[str, str]:
    """Causes of a rejection with their titles, in the order a reader asks for them."""
    quality_first = sorted(METRICS.values(), key=lambda metric: not metric.is_quality)
    return {
        "export": "could not be exported",
        "serving": "could not be served",
        **{metric.cause: metric.missed for metric in quality_first},
        **_OTHER_CAUSES,
    }


PROTOCOLS: Mapping[WireProtocol, str] = {WireProtocol.HTTP: "HTTP", WireProtocol.GRPC: "gRPC"}


def cause_title(cause: str) -> str:
    """A rejection's cause in words; an unknown one as it stands."""
    return causes().get(cause, cause.replace("_", " "))


def serving_words(serving: ServingConfig) -> str:
    """Triton's side in one line, without what is as by default: `max batch 16, 2 instances`."""
    if not serving.told:
        return "as its server has it"
    instances = (
        "1 instance" if serving.instance_count == 1 else f"{serving.instance_count} instances"
    )
    if serving.intra_op_threads > 1:
        instances += f" {TIMES} {serving.intra_op_threads} threads"
    parts = [f"max batch {serving.max_batch_size}", instances]
    if serving.queue_delay_us:
        parts.append(f"queue delay {asked(serving.queue_delay_us / 1000)} ms")
    if serving.accelerator is not Accelerator.NONE:
        parts.append(f"accelerator {serving.accelerator}")
    if serving.response_cache:
        parts.append("response cache")
    return ", ".join(parts)


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


def again_words(trial: Trial) -> str:
    """Why a trial is measured a second time, where its load was not steady the first; else ""."""
    if not trial.after_longer_warm_up:
        return ""
    least_s = trial.workload.min_warmup_s
    return (
        f"measured again after a warm-up of {seconds(least_s)} s, because it was not steady before"
    )


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
