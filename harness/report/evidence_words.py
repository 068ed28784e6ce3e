"""What the server's side says of a trial beside its latency, in words: its cache, its cores."""

from __future__ import annotations

from harness.limits import lost_share
from harness.report.numbers import MISSING, count, number, percent
from harness.types import TrialResult


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
