"""Whether a load-generating process was the limit, in words; thresholds of the harness's trials."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from harness import hdr
from harness.load.generators.attendance import standstill_words
from harness.types import SCHEDULE_DELAY, TimeSlice
from harness.types.limits import GENERATOR_CPU_LIMIT, allowed_late_ms
from harness.words.numbers import latency, percent, seconds
from harness_locust.results import Results, WorkerState

_REMEDIES = (
    (r"add workers: --workers (\d+)", r"start \1 workers (the same command with --worker)"),
    (r"raise warmup_s to [\d.,]+ or more", "run a short test before this one, to warm it up"),
    (r", for example --cpus-server \d+ --cpus-generator \d+,", ""),
)
_SAME_FACTS = (
    ("was the limit (", "the load generator was the limit"),
    ("woke late (", "the load generator woke late"),
    ("requests were sent late", "the load generator sent late"),
)
"""A warning of a process, and what `harness.analysis.validity` says of the busiest."""
CLOCK_KNOWN_S = 0.05
"""Slices of a process whose clock is known less well are said to be so."""
MORE_WORKERS = "start more workers (the same command with --worker), or ask for less"


def warnings_of(results: Results, now_s: float) -> list[str]:
    """Every reason not to take the numbers for the server's."""
    total = results.whole(now_s).total
    allowed_ms = _allowed_ms(total)
    reasons = [one for state in results.workers for one in _of_worker(state, allowed_ms)]
    return [*troubles_of(results, now_s), *reasons, *_of_load(total, allowed_ms)]


def troubles_of(results: Results, now_s: float) -> list[str]:
    """What makes a test invalid: a part of the load is missing, or of what is known of it."""
    return [one for state in results.workers for one in _troubles_of(state, results, now_s)]


def remark_on(state: WorkerState, results: Results, now_s: float) -> str:
    """The first thing to say of one process; `ok` where there is nothing."""
    troubles = _troubles_of(state, results, now_s)
    found = _of_worker(state, _allowed_ms(results.whole(now_s).total))
    return next(itertools.chain(troubles, found), "ok")


def brief_remark(state: WorkerState, results: Results, now_s: float) -> str:
    """The remark in a few words, where its full text stands elsewhere."""
    remark = remark_on(state, results, now_s).removeprefix(f"{state.name} ")
    return re.split(r" \(|: ", remark, maxsplit=1)[0]


def is_told(warning: str, reason: str) -> bool:
    """Whether a verdict's reason says the same as a warning, in these or in its own words."""
    return warning in reason or any(
        here in warning and there in reason for here, there in _SAME_FACTS
    )


def in_locust_words(reason: str) -> str:
    """A reason of `harness.analysis.validity`, whose remedies name options of `harness load`."""
    for told, here in _REMEDIES:
        reason = re.sub(told, here, reason)
    return reason


def lost_words(state: WorkerState) -> str:
    """When a process was lost, and what that means for the numbers."""
    return (
        f"{state.name} was lost {seconds(state.reported_s)} s into the test: what it had reported "
        "by then is counted, and its share of the load is missing since"
    )


def _troubles_of(state: WorkerState, results: Results, now_s: float) -> Iterator[str]:
    if state.lost:
        yield lost_words(state)
    yield from results.attendance.troubles(state.name)
    counted_s = results.whole(now_s).duration_s
    yield from standstill_words(state.name, state.stood_still_s, counted_s)


def _allowed_ms(total: TimeSlice) -> float:
    return allowed_late_ms(hdr.value_at(total.ok.response, 0.95) or 0.0)


def _of_worker(state: WorkerState, allowed_ms: float) -> Iterator[str]:
    health = state.health
    if health.cpu_cores >= GENERATOR_CPU_LIMIT:
        yield (
            f"{state.name} was the limit (it used {percent(health.cpu_cores)} of a core): "
            f"{MORE_WORKERS}"
        )
    if state.clock_error_s > CLOCK_KNOWN_S:
        yield (
            f"the clock of {state.name} is known to within {latency(1000 * state.clock_error_s)} "
            "only: its part of every second may be off by as much"
        )
    lag_ms = hdr.value_at(health.loop_lag, 0.99) or 0.0
    if lag_ms > allowed_ms:
        yield (
            f"{state.name} woke late (p99 of its event loop's lag {latency(lag_ms)}, "
            f"{latency(allowed_ms)} are tolerated): give it its own core, or {MORE_WORKERS}"
        )


def _of_load(total: TimeSlice, allowed_ms: float) -> Iterator[str]:
    delays = hdr.merge([total.ok.of(SCHEDULE_DELAY), total.failed.of(SCHEDULE_DELAY)])
    late_ms = hdr.value_at(delays, 0.99) or 0.0
    if late_ms > allowed_ms:
        yield (
            f"requests were sent late (p99 {latency(late_ms)} after they fell due, "
            f"{latency(allowed_ms)} are tolerated): {MORE_WORKERS}"
        )
