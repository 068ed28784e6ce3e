"""What each variant keeps of the quality, and what it gives for it."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row
from queries import BOUND, BURN, CHOSEN, LATENCY, PER_LOAD, VARIANTS, quantile, rate

COMPARED = Dashboard(
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
                    description="Most inferences per second of a trial that passed.",
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
                    "Inferences per second",
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
