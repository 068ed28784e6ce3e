"""What things are called: decisions, trials, loads, causes, and the parts of a lost quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.metrics import METRICS, metric_named
from harness.types import (
    Accelerator,
    ArrivalKind,
    ArrivalProcess,
    Decision,
    LoadMode,
    LoadShape,
    ServingConfig,
    ShapeKind,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)
from harness.types.limits import lost_share
from harness.types.losses import Estimate
from harness.words.numbers import (
    MISSING,
    POINT_DECIMALS,
    TIMES,
    asked,
    cosine,
    count,
    metric_title,
    number,
    percent,
    seconds,
    signed,
    span,
    things,
)

_PLAIN_DECIMALS = 3
"""Decimals of a change that is not counted in points."""

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
    "ece_after": "ECE after scaling",
    "log_likelihood_change_nats": "Log likelihood",
    "log_likelihood_change_p5_nats": "Log likelihood, worst 5%",
    "greedy_agreement": "Same next token",
    "common_prefix_tokens": "Same beginning",
    "common_prefix_p5_tokens": "Same beginning, least 5%",
    "reference_change_nats": "Likelihood of references",
    "reference_change_p5_nats": "Likelihood of references, worst 5%",
    "draft_acceptance": "Accepted as draft",
    "draft_tokens_per_run": "Tokens per run with drafts",
    "draft_accepted_1": "Accepted, 1st of a draft",
    "draft_accepted_2": "Accepted, 2nd of a draft",
    "draft_accepted_3": "Accepted, 3rd of a draft",
    "draft_accepted_4": "Accepted, 4th of a draft",
    "mean_error": "Mean error",
    "mae_change": "MAE less the teacher's",
    "pearson_with_teacher": "Pearson with the teacher",
    "spearman_with_teacher": "Spearman with the teacher",
    "difference_mean": "Difference from the teacher",
    "difference_p95": "Difference p95",
    "cosine_mean": "Cosine with the teacher",
    "cosine_p5": "Cosine p5",
}
"""The measures that a report shows, in its order."""
UNITS: Mapping[str, str] = {
    "kl_mean_nats": "nats",
    "kl_p95_nats": "nats",
    "log_likelihood_change_nats": "nats per window",
    "log_likelihood_change_p5_nats": "nats per window",
    "common_prefix_tokens": "tokens",
    "common_prefix_p5_tokens": "tokens",
    "reference_change_nats": "nats per reference",
    "reference_change_p5_nats": "nats per reference",
}
SHARES = frozenset({"right_to_wrong", "wrong_to_right", "agreement", "greedy_agreement", "ece"})
COSINES = frozenset({"cosine_mean", "cosine_p5", "pearson_with_teacher", "spearman_with_teacher"})
"""Measures that are told apart near 1; a correlation is the cosine of what is centred."""
SHARES |= {"ece_after", "label_agreement", "entity_agreement", "draft_acceptance"}
SHARES |= {f"draft_accepted_{place}" for place in range(1, 5)}


def step_title(step: str) -> str:
    """A step of a chain at the head of a column."""
    return STEPS.get(step, step.capitalize())


def unit_of(metric: str) -> str:
    """What a loss is counted in: points of a share, else the metric's own unit."""
    return "points" if metric_named(metric).unit.is_share else metric_title(metric)


def unit_in_full(metric: str) -> str:
    """The metric's unit where its name does not stand beside it: `accuracy points`."""
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
    if measure in COSINES:
        return cosine(value)
    return percent(value) if measure in SHARES else number(value)


def measure_span(measure: str, low: float | None, high: float | None) -> str:
    """A measure's interval; nothing where it has none."""
    if low is None or high is None:
        return ""
    return span(measure_words(measure, low), measure_words(measure, high))


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
    "dominated": "not measured, could no longer win",
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


def protocol_name(protocol: str) -> str:
    """A protocol as it is commonly written: `gRPC`."""
    return PROTOCOLS[WireProtocol(protocol)]


def cause_title(cause: str) -> str:
    """A rejection's cause in words; an unknown one as it stands."""
    return causes().get(cause, cause.replace("_", " "))


def serving_words(serving: ServingConfig) -> str:
    """Triton's side in one line, without what is as by default: `max batch 16, 2 instances`."""
    if not serving.told:
        return "as its server has it"
    instances = things(serving.instance_count, "instance")
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


def rows_words(rows_per_request: float) -> str:
    """A mean number of rows, of requests of one size or of several: `1 row`, `4.50 rows`."""
    rows = asked(rows_per_request)
    return f"{rows} {'row' if rows == asked(1.0) else 'rows'}"


def batch_words(workload: Workload) -> str:
    """Rows per request: `16`, or `1 to 16` where they are drawn from a mix."""
    if not workload.batch_mix:
        return str(workload.client_batch_size)
    return f"{min(rows for rows, _ in workload.batch_mix)} to {workload.client_batch_size}"


def workload_words(workload: Workload) -> str:
    """The client's side in one line."""
    protocol, batch = PROTOCOLS[workload.protocol], batch_words(workload)
    if (asked_for := workload.generation) is not None:
        api = f"OpenAI {asked_for.api}" if asked_for.api.is_openai else f"{protocol} streams"
        return f"{api}, {asked_for.traffic}, {load_words(workload)}"
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


_KINDS = {
    ArrivalKind.CONSTANT: "constant",
    ArrivalKind.POISSON: "Poisson",
    ArrivalKind.GAMMA: "gamma",
    ArrivalKind.TRACE: "trace",
}


def is_open(workload: Workload) -> bool:
    """Whether requests fall due whatever the server does."""
    return workload.load_mode is LoadMode.OPEN


def throughput_unit(workload: Workload) -> str:
    """What a load's throughput counts: a stream is a request, and one inference."""
    return "inferences/s" if workload.generation is None else "requests/s"


def throughput_words(result: TrialResult) -> str:
    """`813 inferences/s`; of streams `22.0 requests/s, 388 output tokens/s`."""
    words = f"{number(result.throughput_inferences_per_s)} "
    words += throughput_unit(result.trial.workload)
    if result.streams is not None:
        words += f", {number(result.streams.output_tokens_per_s)} output tokens/s"
    return words


def throughput_span(result: TrialResult) -> str:
    """Bounds of the inferences per second; empty where there are none."""
    return span(
        number(result.throughput_low_inferences_per_s),
        number(result.throughput_high_inferences_per_s),
    )


def load_words(workload: Workload) -> str:
    """`16 in flight`, `250 requests/s Poisson` or `trace monday`."""
    amount, kind = load_parts(workload)
    return f"{amount} {kind}".strip()


def load_parts(workload: Workload) -> tuple[str, str]:
    """How much and of what.

    (`16`, `in flight`), (`250`, `requests/s Poisson`), (``, `trace monday`).
    """
    if not is_open(workload):
        return f"{workload.concurrency:,}", "in flight"
    arrivals = arrival_words(workload.arrivals)
    if workload.rate_per_s is None:
        return "", arrivals
    return rate(workload.rate_per_s), f"requests/s {arrivals}"


def load_label(workload: Workload) -> str:
    """Where there is little room: `c16`, `250/s` or `trace`."""
    if not is_open(workload):
        return f"c{workload.concurrency}"
    return "trace" if workload.rate_per_s is None else f"{rate(workload.rate_per_s)}/s"


def load_amount(workload: Workload) -> float:
    """What loads of one kind are ordered by."""
    return (workload.rate_per_s or 0.0) if is_open(workload) else float(workload.concurrency)


def arrival_words(process: ArrivalProcess) -> str:
    """`Poisson`, `gamma (variation 2)`, `trace monday`, each with its shape."""
    words = _KINDS[process.kind]
    if process.kind is ArrivalKind.GAMMA:
        words += f" (variation {process.burstiness_cv:g})"
    if process.trace is not None:
        words += f" {process.trace.stem}"
    return words if process.shape.kind is ShapeKind.FLAT else f"{words}, {_shape(process.shape)}"


def _shape(shape: LoadShape) -> str:
    return f"{shape.kind} {shape.low:g} to {shape.high:g} over {shape.period_s:g} s"


def rate(rate_per_s: float) -> str:
    """A rate that somebody asked for, as exact as it was asked."""
    return f"{rate_per_s:,.10g}"


def asked_rate(workload: Workload) -> float | None:
    """The one rate that is asked for over the whole load; None in a closed loop, trace or shape."""
    flat = workload.arrivals.shape.kind is ShapeKind.FLAT
    return workload.rate_per_s if is_open(workload) and flat else None


def offered_words(workload: Workload, offered_per_s: float) -> str:
    """What fell due, against what was asked for where that is one rate."""
    asked = asked_rate(workload)
    of = f" of {rate(asked)}" if asked is not None else ""
    return f"{number(offered_per_s)}{of} requests/s"


def cached_words(result: TrialResult) -> str:
    """How many requests the response cache answered, of how many; missing where nobody tells."""
    hits, requests = result.server.from_cache, result.server.requests
    if hits is None:
        return MISSING
    if not requests:
        return f"answered {count(hits)}"
    return f"answered {count(hits)} of {count(requests)} ({percent(hits / requests)})"


def lost_words(result: TrialResult) -> str:
    """How much of the server's time others took, and who; empty where nobody tells."""
    lost, host = lost_share(result.host, result.in_flight_mean), result.host
    if lost is None:
        return ""
    words = f"{percent(lost)} of its time; other processes used {number(host.foreign_cpu)} cores"
    return words + (f", steal {percent(host.cpu_steal)}" if host.cpu_steal else "")
