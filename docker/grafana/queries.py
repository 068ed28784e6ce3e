"""PromQL that several panels share, over the metrics of docs/telemetry.md."""

from __future__ import annotations

LOAD = "variant, protocol, load_mode, client_batch_size"
PER_LOAD = "{{variant}} {{protocol}} batch {{client_batch_size}}"
CHOSEN = 'variant=~"$variant"'
MODEL = 'model=~"$model"'
VARIANTS = ("variant", "Variant", "label_values(harness_requests_total, variant)")
MODELS = ("model", "Model on Triton", "label_values(nv_inference_request_success, model)")
GENERATOR_CPU_LIMIT = 0.9
"""harness/types/limits.py has it, and the alert HarnessGeneratorIsTheLimit."""


def rate(metric: str, labels: str) -> str:
    """A second, over the interval that suits the panel's resolution."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def quantile(share: float, metric: str, labels: str = CHOSEN, by: str = LOAD) -> str:
    """Of a histogram of ours."""
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate(metric + '_bucket', labels)}))"


def sum_by_load(metric: str) -> str:
    """A counter of ours, per second."""
    return f"sum by ({LOAD}) ({rate(metric, CHOSEN)})"


def sum_by_model(metric: str) -> str:
    """A counter of the served models', per second."""
    return f"sum by (model) ({rate(metric, MODEL)})"


def mean_of_triton(phase: str) -> str:
    """Seconds a request, by Triton's counters."""
    spent = f"sum by (model) ({rate(f'nv_inference_{phase}_duration_us', MODEL)})"
    return f"{spent} / 1e6 / sum by (model) ({rate('nv_inference_request_success', MODEL)})"


LATENCY = "harness_response_latency_seconds"
TTFT, ITL = "harness_time_to_first_token_seconds", "harness_inter_token_latency_seconds"
FAILED_SHARE = f"""(
  (sum by ({LOAD}) ({rate("harness_failed_requests_total", CHOSEN)})
    or 0 * sum by ({LOAD}) ({rate("harness_requests_total", CHOSEN)}))
  + sum by ({LOAD}) ({rate("harness_dropped_requests_total", CHOSEN)})
) / (
  (sum by ({LOAD}) ({rate("harness_failed_requests_total", CHOSEN)})
    or 0 * sum by ({LOAD}) ({rate("harness_requests_total", CHOSEN)}))
  + sum by ({LOAD}) ({rate("harness_dropped_requests_total", CHOSEN)})
  + sum by ({LOAD}) ({rate("harness_requests_total", CHOSEN)})
)"""
BURN = f"""(
  sum by (variant, family, constraint) ({rate("harness_objective_bad_events_total", CHOSEN)})
  / sum by (variant, family, constraint) ({rate("harness_objective_events_total", CHOSEN)})
) / on (family, constraint) group_left ()
max by (family, constraint) (harness_objective_budget_ratio)"""
BUSY_INSTANCES = f"""(
  sum by (model) ({rate("nv_inference_compute_infer_duration_us", MODEL)}) / 1e6
  / sum by (model) ({rate("nv_inference_request_success", MODEL)})
) * sum by (model) ({rate("nv_inference_exec_count", MODEL)})"""
BOUND = "max by (constraint) (harness_objective_bound_seconds)"
EXECUTED_BATCH = f"""sum by (model) ({rate("nv_inference_count", MODEL)})
/ sum by (model) ({rate("nv_inference_exec_count", MODEL)})"""
