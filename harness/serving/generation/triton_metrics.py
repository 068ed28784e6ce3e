"""The engine's counters on Triton's metrics page. Runs in the server's environment."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from harness.serving.generation.contract import EngineCounters

_METRICS = {
    "generation_queued": ("queued", "Requests that wait for a slot now"),
    "generation_running": ("running", "Requests that hold a slot now"),
    "generation_prompt_tokens_total": ("prompt_tokens", "Tokens of prompts that were read"),
    "generation_output_tokens_total": ("output_tokens", "Tokens that were written"),
    "generation_finished_total": ("finished", "Requests that were answered to their end"),
    "generation_cancelled_total": ("cancelled", "Requests whose client went away"),
    "generation_rejected_total": ("rejected", "Requests that were not taken"),
    "generation_prefill_steps_total": ("read_steps", "Steps that read prompts"),
    "generation_decode_steps_total": ("write_steps", "Steps that wrote a token for every row"),
    "generation_prefill_seconds_total": ("read_s", "Time in which prompts were read"),
    "generation_decode_seconds_total": ("write_s", "Time in which tokens were written"),
    "generation_queue_seconds_total": ("queue_s", "Time that requests waited for a slot"),
    "generation_draft_seconds_total": ("draft_s", "Time in which a draft proposed tokens"),
    "generation_draft_tokens_total": ("draft_tokens", "Tokens that a draft proposed"),
    "generation_draft_accepted_total": ("draft_accepted", "Of these, those that are in answers"),
}
"""Name on the metrics page: field of the engine's counters, and what it says."""


class TritonMetrics:
    """What one instance reports.

    Instances are processes of their own with one set of metrics in Triton: each adds what is new of
    its own counters, to those that only grow and to the others, so that the page has their sum.
    """

    def __init__(self, model: str) -> None:
        """Make the metrics.

        Args:
            model: their label, one for all instances.
        """
        self._metrics = {}
        for name, (counter, description) in _METRICS.items():
            grows = name.endswith("_total")
            kind = pb_utils.MetricFamily.COUNTER if grows else pb_utils.MetricFamily.GAUGE
            family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            self._metrics[counter] = (family, family.Metric(labels={"model": model}))
        self._reported: dict[str, float] = dict.fromkeys(self._metrics, 0.0)

    def report(self, counters: EngineCounters) -> None:
        """Add what is new; of requests that run or wait that may be less than nothing."""
        for counter, (_, metric) in self._metrics.items():
            value = float(getattr(counters, counter))
            difference = value - self._reported[counter]
            if difference:
                metric.increment(difference)
                self._reported[counter] = value
