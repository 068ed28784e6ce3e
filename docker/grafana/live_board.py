"""One running test: what the client sees beside what the server says."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row
from queries import (
    BOUND,
    BURN,
    CHOSEN,
    EXECUTED_BATCH,
    FAILED_SHARE,
    GENERATOR_CPU_LIMIT,
    ITL,
    LATENCY,
    LOAD,
    MODEL,
    MODELS,
    PER_LOAD,
    TTFT,
    VARIANTS,
    mean_of_triton,
    quantile,
    rate,
    sum_by_load,
    sum_by_model,
)

PERCENTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
STREAMS = Row(
    "Streams: models that write",
    (
        Panel(
            "Tokens a second",
            (
                Query(sum_by_load("harness_output_tokens_total"), f"written {PER_LOAD}"),
                Query(sum_by_load("harness_input_tokens_total"), f"read {PER_LOAD}"),
                Query(sum_by_model("generation_output_tokens_total"), "engine writes {{model}}"),
            ),
            description="As the client counts them, and as the embedded engine does.",
        ),
        Panel(
            "Time to first token",
            tuple(Query(quantile(share, TTFT), f"{name} {PER_LOAD}")
                  for name, share in PERCENTILES),
            unit="s",
            description="From the scheduled instant to the first token.",
        ),
        Panel(
            "Inter-token latency",
            tuple(Query(quantile(share, ITL), f"{name} {PER_LOAD}")
                  for name, share in PERCENTILES),
            unit="s",
            description="From each token to the next.",
        ),
        Panel(
            "Running and waiting",
            (
                Query(f"sum by (model) (generation_running{{{MODEL}}})", "running {{model}}"),
                Query(f"sum by (model) (generation_queued{{{MODEL}}})", "waiting {{model}}"),
            ),
            description="Requests that hold a slot of the engine, and those that wait for one.",
        ),
        Panel(
            "Goodput",
            (
                Query(sum_by_load("harness_good_requests_total"), f"good {PER_LOAD}"),
                Query(sum_by_load("harness_requests_total"), f"answered {PER_LOAD}"),
            ),
            unit="reqps",
            description="Requests that meet every clause of the objective on a latency.",
        ),
        Panel(
            "Where the engine's time goes",
            (
                Query(sum_by_model("generation_prefill_seconds_total"), "prefill {{model}}"),
                Query(sum_by_model("generation_decode_seconds_total"), "decode {{model}}"),
            ),
            unit="percentunit", stacked=True,
            description="Reading prompts, and writing tokens; what is missing to 100% is idle.",
        ),
    ),
)  # fmt: skip

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
        STREAMS,
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
                    (Query(EXECUTED_BATCH, "{{model}}"),),
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
