"""Writes the dashboards beside this file: `python docker/grafana/make_dashboards.py`.

The queries are PromQL over the metrics of docs/telemetry.md. Every one of them is run against a
real Prometheus in tests/integration/test_dashboards.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from panels import Dashboard, Panel, Query, Row, document

FOLDER = Path(__file__).parent / "dashboards"
LOAD = "variant, protocol, load_mode, client_batch_size"
PER_LOAD = "{{variant}} {{protocol}} batch {{client_batch_size}}"
CHOSEN = 'variant=~"$variant"'
MODEL = 'model=~"$model"'
VARIANTS = ("variant", "Variant", "label_values(harness_requests_total, variant)")
MODELS = ("model", "Model on Triton", "label_values(nv_inference_request_success, model)")
GENERATOR_CPU_LIMIT = 0.9
"""harness/limits.py has it, and the alert HarnessGeneratorIsTheLimit."""


def rate(metric: str, labels: str) -> str:
    """A second, over the interval that suits the panel's resolution."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def quantile(share: float, metric: str, labels: str = CHOSEN, by: str = LOAD) -> str:
    """Of a histogram of ours."""
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate(metric + '_bucket', labels)}))"


def mean_of_triton(phase: str) -> str:
    """Seconds a request, by Triton's counters."""
    spent = f"sum by (model) ({rate(f'nv_inference_{phase}_duration_us', MODEL)})"
    return f"{spent} / 1e6 / sum by (model) ({rate('nv_inference_request_success', MODEL)})"


LATENCY = "harness_response_latency_seconds"
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

LIVE = Dashboard(
    uid="harness-live",
    title="Load test, live",
    description="One running test: what the client sees beside what the server says.",
    variables=(VARIANTS, MODELS),
    rows=(
        Row(
            "Now",
            (
                Panel(
                    "Response latency, p95",
                    (Query(quantile(0.95, LATENCY), PER_LOAD),),
                    unit="s", kind="stat", width=6, height=4,
                    description="From the scheduled instant, of successes.",
                ),
                Panel(
                    "Burn rate (1 = at the objective)",
                    (Query(BURN, "{{variant}} {{constraint}}"),),
                    kind="stat", width=6, height=4, bad_from=1, decimals=2,
                    description="Bad requests over those that the objective allows.",
                ),
                Panel(
                    "Failed or dropped",
                    (Query(FAILED_SHARE, PER_LOAD),),
                    unit="percentunit", kind="stat", width=6, height=4, bad_from=0.01,
                    decimals=2,
                ),
                Panel(
                    "Answered",
                    (Query(f"sum by ({LOAD}) ({rate('harness_requests_total', CHOSEN)})",
                           PER_LOAD),),
                    unit="reqps", kind="stat", width=6, height=4,
                ),
            ),
        ),
        Row(
            "Client",
            (
                Panel(
                    "Response latency",
                    (
                        *(Query(quantile(share, LATENCY), f"{name} {PER_LOAD}")
                          for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))),
                        Query(BOUND, "objective {{constraint}}"),
                    ),
                    unit="s",
                    description="From the scheduled instant; the dashed line is the objective's.",
                ),
                Panel(
                    "Latencies, by how often",
                    (Query(f"sum by (le) (increase({LATENCY}_bucket{{{CHOSEN}}}"
                           "[$__rate_interval]))", "{{le}}"),),
                    unit="s", kind="heatmap",
                ),
                Panel(
                    "Requests a second",
                    (
                        Query(f"harness_asked_requests_per_second{{{CHOSEN}}}",
                              f"asked {PER_LOAD}"),
                        Query(f"harness_offered_requests_per_second{{{CHOSEN}}}",
                              f"offered {PER_LOAD}"),
                        Query(f"sum by ({LOAD}) ({rate('harness_requests_total', CHOSEN)})",
                              f"answered {PER_LOAD}"),
                        Query(f"sum by (model) ({rate('nv_inference_request_success', MODEL)})",
                              "Triton {{model}}"),
                    ),
                    unit="reqps",
                    description="Where Triton counts more than the client, somebody else asks too.",
                ),
                Panel(
                    "Failures, by kind",
                    (
                        Query(f"sum by (variant, kind) "
                              f"({rate('harness_failed_requests_total', CHOSEN)})",
                              "{{variant}} {{kind}}"),
                        Query(f"sum by (variant) "
                              f"({rate('harness_dropped_requests_total', CHOSEN)})",
                              "{{variant}} dropped, never sent"),
                        Query(f"sum by (model, reason) "
                              f"({rate('nv_inference_request_failure', MODEL)})",
                              "Triton {{model}} {{reason}}"),
                    ),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "Server",
            (
                Panel(
                    "Where a request's time goes, mean",
                    tuple(Query(mean_of_triton(phase), f"{name} {{{{model}}}}")
                          for phase, name in (("queue", "queue"),
                                              ("compute_input", "input copy"),
                                              ("compute_infer", "inference"),
                                              ("compute_output", "output copy"))),
                    unit="s", stacked=True,
                    description="By Triton's counters, of successes.",
                ),
                Panel(
                    "Requests in flight and waiting",
                    (
                        Query(f"harness_asked_in_flight_requests{{{CHOSEN}}}",
                              f"asked {PER_LOAD}"),
                        Query(f"harness_in_flight_requests{{{CHOSEN}}}", f"in flight {PER_LOAD}"),
                        Query(f"sum by (model) (nv_inference_pending_request_count{{{MODEL}}})",
                              "waiting in Triton {{model}}"),
                    ),
                ),
                Panel(
                    "Executed batch, mean",
                    (Query(f"sum by (model) ({rate('nv_inference_count', MODEL)}) / "
                           f"sum by (model) ({rate('nv_inference_exec_count', MODEL)})",
                           "{{model}}"),),
                    description="What the dynamic batcher made of the requests.",
                ),
                Panel(
                    "The server's CPU and memory",
                    (
                        Query("nv_cpu_utilization", "CPU of {{instance}}"),
                        Query("nv_cpu_memory_used_bytes / nv_cpu_memory_total_bytes",
                              "memory of {{instance}}"),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "GPU utilisation and memory",
                    (
                        Query("nv_gpu_utilization", "GPU {{gpu_uuid}}"),
                        Query("nv_gpu_memory_used_bytes / nv_gpu_memory_total_bytes",
                              "memory {{gpu_uuid}}"),
                    ),
                    unit="percentunit", needs_gpu=True,
                    description="Triton refreshes these every two seconds; empty without a GPU.",
                ),
                Panel(
                    "GPU power",
                    (
                        Query("rate(nv_energy_consumption[$__rate_interval])", "{{gpu_uuid}}"),
                        Query("nv_gpu_power_limit", "limit {{gpu_uuid}}"),
                    ),
                    unit="watt", needs_gpu=True,
                ),
            ),
        ),
        Row(
            "Load generators: are the numbers the server's?",
            (
                Panel(
                    "CPU, of a core",
                    (Query("sum by (worker) "
                           "(rate(harness_generator_cpu_seconds_total[$__rate_interval]))",
                           "{{worker}}"),),
                    unit="percentunit", bad_from=GENERATOR_CPU_LIMIT, width=8,
                    description="A process that uses its core up is the limit, not the server.",
                ),
                Panel(
                    "Event loop lag, p99",
                    (Query(quantile(0.99, "harness_generator_loop_lag_seconds", "", "worker"),
                           "{{worker}}"),),
                    unit="s", bad_from=0.01, width=8,
                ),
                Panel(
                    "Schedule delay, p99",
                    (Query(quantile(0.99, "harness_schedule_delay_seconds"), PER_LOAD),),
                    unit="s", bad_from=0.01, width=8,
                    description="How late requests were sent.",
                ),
            ),
        ),
    ),
)  # fmt: skip

VARIANTS_BOARD = Dashboard(
    uid="harness-variants",
    title="Variants compared",
    description="What each variant keeps of the quality, and what it gives for it.",
    variables=(VARIANTS,),
    since="now-1h",
    refresh="10s",
    rows=(
        Row(
            "Quality and capacity",
            (
                Panel(
                    "Quality through the endpoint",
                    (Query('max by (family, variant, metric) '
                           '(harness_quality_score{metric=~"accuracy|macro_f1"})',
                           "{{variant}} {{metric}}"),),
                    unit="percentunit", kind="bargauge", width=8,
                    description="Scores that are shares; perplexities are in the table.",
                ),
                Panel(
                    "Capacity within the objective",
                    (Query(f"harness_capacity_inferences_per_second{{{CHOSEN}}}", PER_LOAD),),
                    unit="short", kind="bargauge", width=8,
                    description="Most inferences a second of a trial that passed.",
                ),
                Panel(
                    "p95 of the last trial",
                    (Query(f'harness_trial_latency_seconds{{{CHOSEN}, quantile="0.95"}}',
                           PER_LOAD),),
                    unit="s", kind="bargauge", width=8,
                ),
                Panel(
                    "Every score",
                    (Query("max by (family, variant, metric) (harness_quality_score)"),),
                    kind="table", width=12, decimals=4,
                ),
                Panel(
                    "The verdict so far",
                    (Query("max by (family, decision) (harness_verdict) == 1",
                           "{{family}}: {{decision}}"),),
                    kind="state-timeline", width=12,
                ),
            ),
        ),
        Row(
            "Under load",
            (
                Panel(
                    "Response latency, p95",
                    (
                        Query(quantile(0.95, LATENCY, CHOSEN, "variant"), "{{variant}}"),
                        Query(BOUND, "objective {{constraint}}"),
                    ),
                    unit="s",
                ),
                Panel(
                    "Inferences a second",
                    (Query(f"sum by (variant) ({rate('harness_inferences_total', CHOSEN)})",
                           "{{variant}}"),),
                ),
                Panel(
                    "Burn rate, by variant (1 = at the objective)",
                    (Query(BURN, "{{variant}} {{constraint}}"),),
                    bad_from=1,
                ),
                Panel(
                    "Inference time a sample, mean",
                    (Query("sum by (model) "
                           "(rate(nv_inference_compute_infer_duration_us[$__rate_interval]))"
                           " / 1e6 / sum by (model) (rate(nv_inference_count[$__rate_interval]))",
                           "{{model}}"),),
                    unit="s",
                    description="Triton's compute counter over samples.",
                ),
            ),
        ),
    ),
)  # fmt: skip

CAPACITY = Dashboard(
    uid="harness-capacity",
    title="Capacity",
    description="How much load holds the objective, and what gives way beyond it.",
    variables=(VARIANTS, MODELS),
    since="now-1h",
    refresh="10s",
    rows=(
        Row(
            "Within the objective",
            (
                Panel(
                    "Capacity, inferences a second",
                    (Query(f"harness_capacity_inferences_per_second{{{CHOSEN}}}", PER_LOAD),),
                    kind="stat", width=8, height=5,
                ),
                Panel(
                    "Capacity, requests a second",
                    (Query(f"harness_capacity_requests_per_second{{{CHOSEN}}}", PER_LOAD),),
                    unit="reqps", kind="stat", width=8, height=5,
                ),
                Panel(
                    "Requests in flight there",
                    (Query(f"harness_capacity_in_flight_requests{{{CHOSEN}}}", PER_LOAD),),
                    kind="stat", width=8, height=5, decimals=1,
                ),
            ),
        ),
        Row(
            "Trial by trial",
            (
                Panel(
                    "Throughput of the finished trials",
                    (Query(f"harness_trial_inferences_per_second{{{CHOSEN}}}", PER_LOAD),),
                    description="A step a trial: load rises until throughput does not.",
                ),
                Panel(
                    "Latency of the finished trials",
                    (
                        Query(f'harness_trial_latency_seconds{{{CHOSEN}, quantile="0.95"}}',
                              f"p95 {PER_LOAD}"),
                        Query(f'harness_trial_latency_seconds{{{CHOSEN}, quantile="0.99"}}',
                              f"p99 {PER_LOAD}"),
                        Query(BOUND, "objective {{constraint}}"),
                    ),
                    unit="s",
                ),
                Panel(
                    "Load of the finished trials",
                    (Query(f"harness_trial_offered_requests_per_second{{{CHOSEN}}}", PER_LOAD),),
                    unit="reqps",
                ),
                Panel(
                    "Finished trials, by decision",
                    (Query(f"sum by (decision) (harness_trials_total{{{CHOSEN}}})",
                           "{{decision}}"),),
                ),
            ),
        ),
        Row(
            "What gives way",
            (
                Panel(
                    "Share of the response that is queue",
                    (Query(f"sum by (model) ({rate('nv_inference_queue_duration_us', MODEL)}) / "
                           f"sum by (model) ({rate('nv_inference_request_duration_us', MODEL)})",
                           "{{model}}"),),
                    unit="percentunit", width=8,
                    description="Towards 1 the model's instances are all busy.",
                ),
                Panel(
                    "Busy model instances",
                    (Query(BUSY_INSTANCES, "{{model}}"),),
                    width=8,
                    description="Inference seconds a second, each execution counted once.",
                ),
                Panel(
                    "Executed batch, mean",
                    (Query(f"sum by (model) ({rate('nv_inference_count', MODEL)}) / "
                           f"sum by (model) ({rate('nv_inference_exec_count', MODEL)})",
                           "{{model}}"),),
                    width=8,
                ),
            ),
        ),
    ),
)  # fmt: skip

DASHBOARDS = {"live": LIVE, "variants": VARIANTS_BOARD, "capacity": CAPACITY}
"""By file name."""


def text_of(dashboard: Dashboard) -> str:
    """Of its file."""
    return json.dumps(document(dashboard), indent=2) + "\n"


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / f"{name}.json").write_text(text_of(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
