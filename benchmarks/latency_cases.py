"""The latencies that `timed_server` injects, and what theory says of a server that stalls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CONSTANT_S = 0.005
FAST_S, SLOW_S, SLOW_SHARE = 0.002, 0.020, 0.08
"""Bimodal; the slow share lies between the p90 and the p95."""
LOGNORMAL_MEDIAN_S, LOGNORMAL_SIGMA = 0.004, 0.8
PARETO_LEAST_S, PARETO_ALPHA = 0.002, 1.8
"""Its variance is infinite."""
STALL_BASE_S = 0.002
"""What a request takes while the server does not stall."""

STEADY_CASES = ("constant", "bimodal", "lognormal", "pareto")
STALL = "stall"
CASES = (*STEADY_CASES, STALL)


@dataclass(frozen=True)
class Stall:
    """A server that answers nothing for the first `stall_s` of every `period_s`."""

    stall_s: float
    period_s: float

    def remaining_s(self, at_s: float) -> float:
        """How long it still stalls at an instant."""
        return max(0.0, self.stall_s - at_s % self.period_s)

    def response_s(self, quantile: float) -> float:
        """The quantile of the response time of requests that fall due evenly over time.

        One that falls due at a time uniform in the period `T` meets the stall of length `s` with
        probability `s / T`, and then waits a time uniform in `(0, s)`. So the wait `W` has

            P(W > x) = (s - x) / T    for 0 <= x < s,

        and its quantile `q` solves `1 - q = (s - x) / T`: `x = s - T (1 - q)`, or none where that
        is negative. For 1 s in 10 s: p50 none, p95 0.5 s, p99 0.9 s, beside the base time.
        """
        return STALL_BASE_S + max(0.0, self.stall_s - self.period_s * (1.0 - quantile))


def draw_latency(case: str, stall: Stall, seed: int = 0) -> Callable[[int], float]:
    """The latency in seconds of a request that was received at an instant (nanoseconds)."""
    generator = np.random.default_rng(seed)

    def bimodal(_: int) -> float:
        return SLOW_S if generator.random() < SLOW_SHARE else FAST_S

    def lognormal(_: int) -> float:
        return float(LOGNORMAL_MEDIAN_S * np.exp(LOGNORMAL_SIGMA * generator.standard_normal()))

    def pareto(_: int) -> float:
        return float(PARETO_LEAST_S * (1.0 + generator.pareto(PARETO_ALPHA)))

    def stalling(received_ns: int) -> float:
        return STALL_BASE_S + stall.remaining_s(received_ns / 1e9)

    draws = {"bimodal": bimodal, "lognormal": lognormal, "pareto": pareto, STALL: stalling}
    return draws.get(case, lambda _: CONSTANT_S)
