"""How much load holds the objective, and what gives way beyond it."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row
from queries import (
    BOUND,
    BUSY_INSTANCES,
    CHOSEN,
    EXECUTED_BATCH,
    MODEL,
    MODELS,
    PER_LOAD,
    VARIANTS,
    rate,
)

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
                    "Capacity, inferences per second",
                    (Query(f"harness_capacity_inferences_per_second{{{CHOSEN}}}", PER_LOAD),),
                    kind="stat", width=8, height=5,
                ),
                Panel(
                    "Capacity, requests per second",
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
                    description="Inference seconds per second, each execution counted once.",
                ),
                Panel(
                    "Executed batch, mean",
                    (Query(EXECUTED_BATCH, "{{model}}"),),
                    width=8,
                ),
            ),
        ),
    ),
)  # fmt: skip
