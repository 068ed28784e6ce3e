"""The verdict of a family for a person: what to run, and what it buys over the teacher."""

from __future__ import annotations

from dataclasses import dataclass

from harness.metrics import metric_named, summary_of
from harness.report.cautions import warnings_of
from harness.report.family_results import FamilyResults, reference_score
from harness.report.gains import gains_table, ratio, size_words
from harness.report.selection import percentile_of, service_ms, strongest_teacher
from harness.report.tables.model import Table
from harness.report.tables.provenance import load_command
from harness.report.tables.trials import rejected_groups
from harness.types import (
    RESPONSE,
    Accelerator,
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    TrialResult,
)
from harness.types.generation import QUEUE_PER_SLOT
from harness.words.labels import (
    INTERRUPTED,
    PROTOCOLS,
    SIGNS,
    Sign,
    arrival_words,
    batch_words,
    is_open,
    offered_words,
    throughput_span,
    throughput_unit,
)
from harness.words.numbers import (
    NO_INTERVAL,
    UNBOUNDED,
    confidence,
    count,
    factor,
    heading,
    megabytes,
    metric_span,
    metric_value,
    millions,
    milliseconds,
    number,
    relative_title,
    relative_value,
    seconds,
    span,
    things,
)


@dataclass(frozen=True)
class Tile:
    """One number that matters, with what it is measured against."""

    label: str
    value: str
    unit: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """One setting of the recommended configuration."""

    name: str
    value: str


@dataclass(frozen=True)
class Finding:
    """A family's verdict in words."""

    family: str
    sign: Sign
    objective: str
    summary: str
    next_step: str
    variant: str
    """The recommended one; empty where nothing is recommended."""
    tiles: tuple[Tile, ...]
    serving: tuple[Setting, ...]
    traffic: tuple[Setting, ...]
    config: str
    """The recommended serving configuration as it stands in config.pbtxt; empty where its server
    does not say."""
    command: str
    """Measures the recommended trial again; empty where no command does."""
    gains: Table | None
    rejected: tuple[Setting, ...]
    """How many candidates were rejected for which cause."""
    warnings: tuple[str, ...] = ()
    """What to know before the numbers."""


def finding_of(family: FamilyResults) -> Finding:
    """Word a family's verdict, also where none was reached."""
    verdict, trial = family.verdict, family.recommended
    objective = family.objective.text if family.objective else ""
    return Finding(
        family=family.name,
        sign=SIGNS[verdict.decision] if verdict else INTERRUPTED,
        objective=verdict.slo if verdict else objective,
        summary=verdict.summary if verdict else _unfinished(family),
        next_step=verdict.next_step if verdict else "Resume the run to continue where it stopped.",
        variant=trial.trial.variant if trial else "",
        tiles=_tiles(family, trial) if trial else (),
        serving=_serving_settings(trial, external=bool(family.server)) if trial else (),
        traffic=_traffic_settings(trial) if trial else (),
        config=_config_text(family, trial) if trial else "",
        command=load_command(trial.trial, family.server) if trial else "",
        gains=gains_table(family, trial) if trial else None,
        rejected=tuple(
            Setting(group.title, count(group.size)) for group in rejected_groups(family)
        ),
        warnings=warnings_of(family),
    )


def _unfinished(family: FamilyResults) -> str:
    trials = things(len(family.trials), "trial")
    scored = things(len({score.variant for score in family.scores}), "model")
    return f"The run stopped before a verdict: {scored} scored, {trials} measured so far."


def _tiles(family: FamilyResults, trial: TrialResult) -> tuple[Tile, ...]:
    latencies = (_latency_tile(family, trial, name) for name in family.judged_latencies)
    tiles = [_throughput_tile(family, trial), *latencies]
    quality = _quality_tile(family, trial.trial.variant)
    size = _size_tile(family, trial.trial.variant)
    return (*tiles, *(tile for tile in (quality, size) if tile))


def _throughput_tile(family: FamilyResults, trial: TrialResult) -> Tile:
    rate, teacher = trial.throughput_inferences_per_s, strongest_teacher(family)
    detail = "" if trial.streams else f"{number(trial.throughput_requests_per_s)} requests/s"
    if teacher and teacher.trial.variant != trial.trial.variant:
        times = factor(ratio(rate, teacher.throughput_inferences_per_s))
        detail = f"{times} the best of {teacher.trial.variant}"
    tokens = trial.streams and f"{number(trial.streams.output_tokens_per_s)} output tokens/s"
    known = _known(throughput_span(trial), tokens or "", detail, _asked(family, "throughput"))
    return Tile("Throughput", number(rate), throughput_unit(trial.trial.workload), known)


def _latency_tile(family: FamilyResults, trial: TrialResult, name: str) -> Tile:
    metric, found = metric_named(name), percentile_of(trial, name)
    summary = summary_of(metric, trial)
    interval = ""
    if found and summary:
        bounds = span(milliseconds(found.low_ms), milliseconds(found.high_ms))
        level = confidence(summary.confidence)
        interval = bounds if bounds == NO_INTERVAL else f"{bounds} ({level} interval)"
    from_sent = service_ms(trial, name)
    sent = f"{milliseconds(from_sent)} timed from the send" if from_sent is not None else ""
    value = milliseconds(found.value_ms if found else None)
    unit = "ms"
    if value == UNBOUNDED:
        unit, interval = "", "the queue never drained"
    title = f"Latency {name}" if metric.span == RESPONSE else metric.title
    return Tile(title, value, unit, _known(interval, sent, _asked(family, name)))


def _quality_tile(family: FamilyResults, name: str) -> Tile | None:
    metric = next(iter(family.metrics), None)
    score = family.score(name, metric) if metric else None
    if metric is None or score is None:
        return None
    asked = _asked(family, metric)
    if score.relative_to_teacher is None or score is reference_score(family, metric):
        return Tile(heading(metric), metric_value(metric, score.value), "", _known(asked))
    low = relative_value(metric, score.relative_low)
    bounds = span(low, relative_value(metric, score.relative_high))
    interval = f"{bounds} (95% interval)" if bounds else ""
    value = relative_value(metric, score.relative_to_teacher)
    clauses = [one for one in family.constraints if one.metric == metric]
    if clauses and not any(one.relative_to_teacher for one in clauses):
        # What is asked of the metric itself is not to be held against a share of the teacher's.
        ends = metric_span(metric, score.low, score.high)
        own = f"{ends} (95% interval)" if ends else ""
        kept = f"{value} {relative_title(score)}"
        return Tile(
            heading(metric), metric_value(metric, score.value), "", _known(own, kept, asked)
        )
    return Tile("Quality", value, "", _known(relative_title(score), interval, asked))


def _size_tile(family: FamilyResults, name: str) -> Tile | None:
    variant, teacher = family.variant(name), _teacher(family)
    if variant is None:
        return None
    against = ""
    if teacher and teacher is not variant:
        share = ratio(variant.size_bytes, teacher.size_bytes)
        against = f"{size_words(share)} {teacher.name}" if share else ""
    weights = f"{millions(variant.parameters)} M parameters"
    return Tile("Size", megabytes(variant.size_bytes), "MB", _known(against, weights))


def _asked(family: FamilyResults, metric: str) -> str:
    """The objective's clauses on a metric, as they were written."""
    clauses = ", ".join(one.text for one in family.constraints if one.metric == metric)
    return f"asked: {clauses}" if clauses else ""


def _known(*details: str) -> tuple[str, ...]:
    return tuple(detail for detail in details if detail)


def _teacher(family: FamilyResults) -> ModelVariant | None:
    """The teacher's artefact that the quality is related to, else its first."""
    metric = next(iter(family.metrics), None)
    reference = reference_score(family, metric) if metric else None
    teachers = [variant for variant in family.variants if variant.role is Role.TEACHER]
    named = [variant for variant in teachers if reference and variant.name == reference.variant]
    return next(iter(named or teachers), None)


def _serving_settings(result: TrialResult, *, external: bool) -> tuple[Setting, ...]:
    serving = result.trial.serving
    if not serving.told:
        return (
            Setting("Model", result.trial.variant),
            Setting("Served", "as its server has it, which does not say how"),
        )
    batching: tuple[Setting, ...] = (
        Setting("Max batch size", count(serving.max_batch_size)),
        Setting("Queue delay", f"{count(serving.queue_delay_us)} µs"),
    )
    if result.trial.workload.generation is not None and not external:
        batching = (Setting("Slots per instance", count(serving.max_batch_size)),)
    threads = Setting("Threads per instance", count(serving.intra_op_threads))
    return (
        Setting("Model", result.trial.variant),
        *batching,
        Setting("Instances", f"{count(serving.instance_count)} ({serving.instance_kind})"),
        *((threads,) if serving.intra_op_threads or not external else ()),
        *(
            ()
            if serving.accelerator is Accelerator.NONE
            else (Setting("Accelerator", str(serving.accelerator)),)
        ),
        *((Setting("Response cache", "on"),) if serving.response_cache else ()),
    )


def _traffic_settings(result: TrialResult) -> tuple[Setting, ...]:
    workload = result.trial.workload
    return (
        Setting("Protocol", PROTOCOLS[workload.protocol]),
        Setting("Client batch size", batch_words(workload)),
        *_load_settings(result),
        Setting(
            "Measured for",
            f"{seconds(result.duration_s)} s, after {seconds(result.warmup_s)} s cut",
        ),
        Setting("Requests answered", count(result.requests)),
        Setting("Requests failed", count(result.failures)),
    )


def _load_settings(result: TrialResult) -> tuple[Setting, ...]:
    workload = result.trial.workload
    if not is_open(workload):
        return (Setting("Requests in flight", count(workload.concurrency)),)
    return (
        Setting("Arrivals", arrival_words(workload.arrivals)),
        Setting("Offered", offered_words(workload, result.offered_requests_per_s)),
        Setting("In flight at most", count(workload.concurrency)),
        Setting("Requests dropped", count(result.dropped)),
    )


def _config_text(family: FamilyResults, result: TrialResult) -> str:
    """What config.pbtxt says of the serving configuration.

    Of a generating model its slots are parameters, and it has no batcher. On an external server
    only what the run set there, so nothing where it could set nothing.
    """
    serving = result.trial.serving
    if not serving.told or (family.server and not family.server.get("model_control")):
        return ""
    kind = "" if family.server else f" kind: KIND_{serving.instance_kind.upper()}"
    instances = f"instance_group [ {{ count: {serving.instance_count}{kind} }} ]"
    if result.trial.workload.generation is not None and not family.server:
        told = {
            "slots": serving.max_batch_size,
            "threads": serving.intra_op_threads,
            "queue_size": serving.max_batch_size * QUEUE_PER_SLOT,
        }
        return "\n".join([instances, *(_parameter(key, value) for key, value in told.items())])
    (variant,) = [one for one in family.variants if one.name == result.trial.variant]
    is_onnx = variant.format is ModelFormat.ONNX
    batching = (
        f"max_batch_size: {serving.max_batch_size}",
        f"dynamic_batching {{ max_queue_delay_microseconds: {serving.queue_delay_us} }}",
    )
    lines = [
        *(batching if variant.batches else ()),
        instances,
        *([_parameter("intra_op_thread_count", serving.intra_op_threads)] if is_onnx else []),
        *([_accelerator_text(serving.accelerator, variant.precision)] if is_onnx else []),
        "response_cache { enable: true }" if serving.response_cache else "",
    ]
    return "\n".join(line for line in lines if line)


def _parameter(key: str, value: object) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def _accelerator_text(accelerator: Accelerator, precision: Precision) -> str:
    """With the precision that TensorRT computed in, which is single unless it is told."""
    if accelerator is Accelerator.NONE:
        return ""
    named = f'name: "{accelerator}"'
    if accelerator is Accelerator.TENSORRT:
        computed = "FP16" if precision is Precision.FP16 else "FP32"
        named += f' parameters {{ key: "precision_mode" value: "{computed}" }}'
    accelerators = f"gpu_execution_accelerator [ {{ {named} }} ]"
    return f"optimization {{ execution_accelerators {{ {accelerators} }} }}"
