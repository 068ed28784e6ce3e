"""The tidy tables of a run, as CSV and Parquet: trials, quality, pairs, losses, cold starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from harness.runs.folder import StoredRun
from harness.system.storage import storage_errors
from harness.types import (
    RESPONSE,
    SPANS,
    ColdStart,
    LoadMode,
    ModelVariant,
    QualityScore,
    Trial,
    TrialResult,
)
from harness.types.losses import LossEntry, PairedMeasure
from harness.types.metrics import PERCENTILES


def write_tables(run: StoredRun, folder: Path) -> None:
    """Write each table as .csv and .parquet, replacing older ones.

    Raises:
        StorageError: they cannot be written.
    """
    for name, table in (
        ("trials", trials_table(run.every_trial, run.variants)),
        ("quality", quality_table(run.scores)),
        ("pairs", pairs_table(run.pairs)),
        ("losses", losses_table(run.losses)),
        ("slices", slices_table(run.losses)),
        ("cold_starts", cold_starts_table(run.cold_starts)),
    ):
        with storage_errors(folder):
            table.to_csv(folder / f"{name}.csv", index=False)
            table.to_parquet(folder / f"{name}.parquet", index=False)


def trials_table(trials: Sequence[TrialResult], variants: Sequence[ModelVariant]) -> pd.DataFrame:
    """One row per trial, in the order they were measured."""
    by_name = {variant.name: variant for variant in variants}
    rows = [_trial_row(result, by_name.get(result.trial.variant)) for result in trials]
    columns = None if rows else ["trial_id", "variant", "valid", "decision"]
    return pd.DataFrame(rows, columns=columns)


def quality_table(scores: Sequence[QualityScore]) -> pd.DataFrame:
    """One row per variant and metric."""
    rows = [
        {key: str(value) if key == "role" else value for key, value in asdict(score).items()}
        for score in scores
    ]
    columns = None if rows else ["variant", "role", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def pairs_table(pairs: Sequence[PairedMeasure]) -> pd.DataFrame:
    """One row per variant and measure."""
    columns = [field.name for field in fields(PairedMeasure)]
    return pd.DataFrame([asdict(one) for one in pairs], columns=columns)


def losses_table(losses: Sequence[LossEntry]) -> pd.DataFrame:
    """One row per variant and step of its chain, then one for the total; a loss is positive."""
    columns = ["variant", "family", "step", "metric", "quality"]
    columns += ["loss", "loss_low", "loss_high", "changed", "samples", "left_out"]
    rows = []
    for entry in losses:
        chain = entry.chain
        if chain is None:
            continue
        steps = [(one.step, one.quality, one.loss, one.changed) for one in chain.links]
        for step, quality, loss, changed in [*steps, ("total", None, chain.total, None)]:
            own = (entry.variant, entry.family, step, chain.metric, quality)
            estimate = (loss.value, loss.low, loss.high)
            rows.append((*own, *estimate, changed, chain.samples, chain.left_out))
    return pd.DataFrame(rows, columns=columns).astype({"changed": "Int64"})


def slices_table(losses: Sequence[LossEntry]) -> pd.DataFrame:
    """One row per variant and slice."""
    columns = ["variant", "family", "slicing", "slice", "samples", "teacher_quality", "quality"]
    columns += ["loss", "loss_low", "loss_high", "excess", "p_value_holm", "training_samples"]
    rows = [
        (
            *(entry.variant, entry.family, one.slicing, one.name, one.samples),
            *(one.teacher, one.variant, one.loss.value, one.loss.low, one.loss.high),
            *(one.excess, one.p_value, one.training_samples),
        )
        for entry in losses
        for one in entry.slices
    ]
    return pd.DataFrame(rows, columns=columns).astype({"training_samples": "Int64"})


def cold_starts_table(cold_starts: Sequence[ColdStart]) -> pd.DataFrame:
    """One row per variant, with the serving configuration it was loaded with."""
    rows = []
    for one in cold_starts:
        row = asdict(one)
        rows.append({"variant": one.variant, **row.pop("serving"), **row})
    columns = None if rows else ["variant", "load_s", "first_request_ms", "steady_after_requests"]
    # Whole numbers, of which some may be missing.
    return pd.DataFrame(rows, columns=columns).astype({"steady_after_requests": "Int64"})


def _trial_row(result: TrialResult, variant: ModelVariant | None) -> dict[str, Any]:
    return {**_asked_columns(result.trial, variant), **_seen_columns(result)}


def _asked_columns(trial: Trial, variant: ModelVariant | None) -> dict[str, Any]:
    """What is known of the artefact is None where an external server was measured."""
    serving, workload = trial.serving, trial.workload
    return {
        "trial_id": trial.trial_id,
        "family": trial.family,
        "variant": trial.variant,
        "role": str(variant.role) if variant else None,
        "format": str(variant.format) if variant else None,
        "precision": str(variant.precision) if variant else None,
        "stage": trial.stage,
        "repeat": trial.repeat,
        "protocol": str(workload.protocol),
        "client_batch_size": workload.client_batch_size,
        "load_mode": str(workload.load_mode),
        "concurrency": workload.concurrency,
        "rate_per_s": workload.rate_per_s,
        "arrivals": workload.arrivals.label if workload.load_mode is LoadMode.OPEN else None,
        "max_batch_size": serving.max_batch_size or None,
        "queue_delay_us": serving.queue_delay_us if serving.max_batch_size else None,
        "instance_count": serving.instance_count or None,
        "instance_kind": serving.instance_kind if serving.told else None,
        "intra_op_threads": serving.intra_op_threads or None,
        "accelerator": str(serving.accelerator) if serving.told else None,
        "response_cache": serving.response_cache if serving.told else None,
        "cached_answers": workload.cached_answers,
    }


def _seen_columns(result: TrialResult) -> dict[str, Any]:
    server, host = result.server, result.host
    return {
        "started_utc": result.started_utc,
        "duration_s": result.duration_s,
        "min_duration_s": result.trial.workload.min_duration_s,
        "warmup_s": result.warmup_s,
        "requests": result.requests,
        "failures": result.failures,
        "dropped": result.dropped,
        "offered_requests_per_s": result.offered_requests_per_s,
        "throughput_requests_per_s": result.throughput_requests_per_s,
        "throughput_inferences_per_s": result.throughput_inferences_per_s,
        "throughput_low_inferences_per_s": result.throughput_low_inferences_per_s,
        "throughput_high_inferences_per_s": result.throughput_high_inferences_per_s,
        **_latency_columns(result),
        **_span_columns(result),
        **_generation_columns(result),
        "client_ms": result.client_ms,
        "server_queue_ms": server.queue_ms,
        "server_compute_ms": server.compute_ms,
        "server_compute_input_ms": server.compute_input_ms,
        "server_compute_infer_ms": server.compute_infer_ms,
        "server_compute_output_ms": server.compute_output_ms,
        "server_batch_mean": server.batch_mean,
        "server_requests": server.requests,
        "server_version": server.version or None,
        "server_cache_hits": server.cache_hits,
        "server_cache_misses": server.cache_misses,
        "server_cache_ms": server.cache_ms,
        "server_executions": server.executions,
        "server_failures": sum(server.failures.values()) if server.requests is not None else None,
        "loop_lag_p99_ms": result.loop_lag_p99_ms,
        "generator_cpu": result.generator_cpu,
        "in_flight_mean": result.in_flight_mean,
        "host_cpu": host.cpu_utilization,
        "host_foreign_cpu": host.foreign_cpu,
        "host_cpu_steal": host.cpu_steal,
        "host_cpu_pressure": host.cpu_pressure,
        "server_cpu": host.server_cpu,
        "server_cpu_pressure": host.server_cpu_pressure,
        "server_run_cores": host.server_run_cores,
        "server_wait_cores": host.server_wait_cores,
        "server_foreign_wait_cores": host.server_foreign_wait_cores,
        "server_throttled_cores": host.server_throttled_cores,
        "server_memory_bytes": host.server_memory_bytes,
        "gpu_utilization": host.gpu_utilization,
        "gpu_memory_bytes": host.gpu_memory_bytes,
        "valid": result.valid,
        "invalid_reason": result.invalid_reason,
        "decision": str(result.decision),
        "reason": result.reason,
        "sha256": result.sha256,
    }


def _latency_columns(result: TrialResult) -> dict[str, float | None]:
    latency = result.latency
    columns: dict[str, float | None] = {
        "latency_mean_ms": latency.mean_ms if latency else None,
        "latency_mean_low_ms": latency.mean_low_ms if latency else None,
        "latency_mean_high_ms": latency.mean_high_ms if latency else None,
        "latency_max_ms": latency.max_ms if latency else None,
        "confidence": latency.confidence if latency else None,
    }
    for name in PERCENTILES:
        percentile = latency.percentiles[name] if latency else None
        columns[f"latency_{name}_ms"] = percentile.value_ms if percentile else None
        columns[f"latency_{name}_low_ms"] = percentile.low_ms if percentile else None
        columns[f"latency_{name}_high_ms"] = percentile.high_ms if percentile else None
    return columns


def _generation_columns(result: TrialResult) -> dict[str, float | None]:
    """Columns of streams and of goodput; none for a load that has neither."""
    columns: dict[str, float | None] = {}
    if (found := result.streams) is not None:
        bounds = found.output_tokens_per_s_bounds
        columns |= {
            "input_tokens": found.counts.input_tokens,
            "output_tokens": found.counts.output_tokens,
            "output_tokens_per_s": found.output_tokens_per_s,
            "output_tokens_per_s_low": bounds.low if bounds else None,
            "output_tokens_per_s_high": bounds.high if bounds else None,
            "left": found.counts.left,
            "irregular": sum(found.counts.irregular.values()),
        }
    if (good := result.goodput) is not None:
        columns |= {
            "goodput_requests_per_s": good.requests_per_s,
            "goodput_low_requests_per_s": good.bounds.low if good.bounds else None,
            "goodput_high_requests_per_s": good.bounds.high if good.bounds else None,
        }
    return columns


def _span_columns(result: TrialResult) -> dict[str, float | None]:
    """Percentiles of the other spans that the load has."""
    return {
        f"{span.name}_{name}_ms": result.latency_ms(span.name, name)
        for span in SPANS.values()
        if span.name != RESPONSE and (span.is_between_moments or span.name in result.latencies)
        for name in PERCENTILES
    }
