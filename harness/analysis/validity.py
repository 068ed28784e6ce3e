"""Whether a trial may decide anything: each rule with its threshold, its reason, and the remedy.

A trial is invalid where something other than the served model set its numbers: the generator was
the limit, the server broke down, a cache answered, another version came in, others used the
machine's cores or sent traffic, the warm-up was too short. A model
that is merely slow, or fails now and then, is measured well: that is the objective's business. So
is a server that cannot keep up with a rate: its latency grows, or requests are dropped, and the
error rate counts these. Few requests do not make a trial invalid either; they make its intervals
wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from harness import hdr
from harness.analysis.steady_state import still_warming
from harness.types import (
    ITL,
    SCHEDULE_DELAY,
    SERVICE,
    ArrivalKind,
    HostMetrics,
    LoadMode,
    LoadResult,
    RequestBound,
    ServerMetrics,
    ShapeKind,
    SparseHistogram,
    Workload,
)
from harness.types.limits import (
    BROKEN_FAILURE_SHARE,
    CACHED_SHARE,
    COUNT_TOLERANCE,
    GENERATOR_CPU_LIMIT,
    IDLE_FLOOR_MS,
    IDLE_SHARE,
    LOST_SHARE,
    RATE_SHORTFALL,
    allowed_late_ms,
    allowed_together_ms,
    lost_share,
    stolen_per_second,
)
from harness.words.numbers import asked, count, latency, number, percent, seconds

GENERATOR_CPU_AIM = 0.60
"""Cores per process that the number of workers in a remedy aims at."""
RATE_NOISE_DEVIATIONS = 4.0
"""By so many standard deviations of random arrivals an open loop may miss its rate beyond
RATE_SHORTFALL."""
COUNT_SKEW_S = 0.10
"""Server and client cut the window at their own moments; so much traffic may lie between them."""


def judge_validity(
    load: LoadResult,
    server: ServerMetrics,
    workload: Workload,
    *,
    server_alive: bool,
    host: HostMetrics | None = None,
    bounds: Sequence[RequestBound] = (),
) -> tuple[bool, str]:
    """Say whether a trial may decide, and if not why, with what to do about it.

    Args:
        load: what the clients saw.
        server: what the server counted.
        workload: what was asked for.
        server_alive: whether it still ran at the end.
        host: the server's machine, where that is known.
        bounds: the objective's clauses on latencies, which say how exact gaps between tokens must
            be; empty: as exact as can be.

    Returns:
        (True, "") or (False, every reason that applies, the gravest first).
    """
    if not server_alive:
        return False, "the server died during the trial: its log says why"
    checks = _CHECKS
    if server.counters_reset or server.exchanged:
        checks = tuple(one for one in _CHECKS if one not in _FOLLOW_A_RESTART)
    reasons = list(load.troubles)
    reasons += [reason for check in checks for reason in check(load, server, workload)]
    reasons += _tokens_read_together(load, bounds)
    reasons += _server_short_of_cores(load, host or HostMetrics())
    return not reasons, "; ".join(reasons)


def _server_broken(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    failed = sum(load.failures.values())
    total = failed + load.completed
    first = f" (the first: {load.first_failure})" if load.first_failure else ""
    if not total:
        yield "no request completed within the window: raise duration_s"
    elif failed > BROKEN_FAILURE_SHARE * total:
        yield f"{count(failed)} of {count(total)} requests failed{first}: see the server's log"


def _counters_reset(_: LoadResult, server: ServerMetrics, __: Workload) -> Iterator[str]:
    if server.counters_reset:
        yield (
            "the server's counters were reset inside the window: it or the model was restarted; "
            "keep others from reloading the model and measure again"
        )


def _version_exchanged(_: LoadResult, server: ServerMetrics, __: Workload) -> Iterator[str]:
    if server.exchanged:
        yield (
            f"more than one version of the model answered inside the window ({server.exchanged}): "
            "keep others from loading versions and measure again"
        )


def _answered_from_cache(
    load: LoadResult, server: ServerMetrics, workload: Workload
) -> Iterator[str]:
    """What a cache answered says nothing of the model, unless caching is what is measured."""
    hits = server.from_cache or 0
    answered = max(load.completed if server.requests is None else server.requests, hits)
    if hits > CACHED_SHARE * answered and not workload.cached_answers:
        yield (
            f"the response cache answered {count(hits)} of {count(answered)} requests in the "
            "model's place: switch it off for this model (response_cache { enable: false }), or "
            "say that it is what you measure (--response-cache; in a study serving: "
            "{response_cache: true})"
        )


def _server_short_of_cores(load: LoadResult, host: HostMetrics) -> Iterator[str]:
    """Others had the cores that the server wanted; its own threads and the generators do not count.

    Those are part of what is measured, or have rules of their own.
    """
    lost = lost_share(host, mean_in_flight(load))
    if lost is None or lost <= LOST_SHARE:
        return
    stolen = stolen_per_second(host) * (host.server_run_cores or 0.0)
    by_whom = f"other processes used {number(host.foreign_cpu or 0.0)} cores there"
    if stolen > (host.server_foreign_wait_cores or 0.0):
        by_whom = (
            f"the hypervisor took {percent(host.cpu_steal or 0.0)} of its machine's time (steal)"
        )
    waited_ms = 1000 * (host.server_wait_cores or 0.0) * load.duration_s / max(load.completed, 1)
    yield (
        f"the server was short of a core for {percent(lost)} of its time ({by_whom}; its threads "
        f"waited {latency(waited_ms)} for each request): keep other work off its machine, or give "
        "the server cores that nobody else uses, and measure again"
    )


def _generator_saturated(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    if load.generator_cpu >= GENERATOR_CPU_LIMIT:
        busiest = max(load.generators, key=lambda one: one.cpu_cores)
        which = f"{busiest.name}, the busiest process," if busiest.name else "its busiest process"
        yield (
            f"the load generator was the limit ({which} used "
            f"{percent(load.generator_cpu)} of a core): {_more_workers(load)}"
        )


def _generator_late(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    late_ms, allowed_ms = _send_delay_p99_ms(load), _allowed_late_ms(load)
    if late_ms > allowed_ms:
        yield (
            f"the load generator sent late (p99 {latency(late_ms)} after the scheduled time; "
            f"{latency(allowed_ms)} are tolerated): {_more_room(load)}"
        )


def mean_in_flight(load: LoadResult) -> float | None:
    """Requests on their way at a time, by Little's law: their rate times the time each took.

    A stream is on its way until it ends, which is after its last token. None where the window is
    empty.
    """
    spans = [part.of(SERVICE) for one in load.window for part in (one.ok, one.failed)]
    sent, mean_ms = sum(map(hdr.total, spans)), hdr.mean_ms(hdr.merge(spans))
    if not mean_ms or load.duration_s <= 0:
        return None
    closing_s = sum(one.streams.closing_ns for one in load.window) / 1e9
    return (sent * mean_ms / 1000 + closing_s) / load.duration_s


def _slots_idle(load: LoadResult, _: ServerMetrics, workload: Workload) -> Iterator[str]:
    """A generator that is slow to send the next request keeps fewer in flight than was asked.

    After a failed request a slot rests on purpose, as between the turns of a conversation, so that
    those trials are not judged by this.
    A busy slot may have sent one request fewer within the window than Little's law has on average:
    where a window holds few answers for each slot, idleness cannot be told from that.
    """
    in_flight = mean_in_flight(load)
    if not _is_closed(workload) or in_flight is None or load.failures or not load.completed:
        return
    if workload.generation is not None and workload.generation.converses:
        return
    idle = workload.concurrency - in_flight
    idle_ms = 1000 * idle * load.duration_s / load.completed
    by_the_edges = workload.concurrency * in_flight / load.completed
    tolerated = max(IDLE_SHARE * workload.concurrency, by_the_edges)
    if idle > tolerated and idle_ms > IDLE_FLOOR_MS:
        yield (
            f"the load generator was slow to send the next request ({latency(idle_ms)} on "
            f"average, so that {number(in_flight)} of {workload.concurrency} were in flight): "
            f"{_more_room(load)}"
        )


def _event_loop_late(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    """A process that wakes late reads answers late too, which no schedule delay shows.

    Where the kernel says when an answer came that costs no latency.
    """
    lag_ms, allowed_ms = _loop_lag_p99_ms(load), _allowed_late_ms(load)
    if lag_ms > allowed_ms and not load.answers_stamped:
        yield (
            f"the load generator woke late (p99 of its event loop's lag {latency(lag_ms)}; "
            f"{latency(allowed_ms)} are tolerated): {_more_room(load)}"
        )


def _tokens_read_together(load: LoadResult, bounds: Sequence[RequestBound]) -> Iterator[str]:
    """Bytes that wait to be read are merged by the kernel, and have the latest one's stamp.

    So a process that wakes later than tokens follow one another gives several of them one instant,
    whatever the kernel stamped. Compared is the mean gap: that alone stays right where tokens were.
    """
    gap_ms = hdr.mean_ms(hdr.merge(one.ok.of(ITL) for one in load.window))
    if gap_ms is None:
        return
    lag_ms, allowed_ms = _loop_lag_p99_ms(load), allowed_together_ms(gap_ms, bounds)
    if lag_ms > allowed_ms:
        yield (
            f"the load generator woke late (p99 of its event loop's lag {latency(lag_ms)}; "
            f"{latency(allowed_ms)} are tolerated where tokens follow one another in "
            f"{latency(gap_ms)} on average), so that tokens were read together: {_more_room(load)}"
        )


def _rate_missed(load: LoadResult, _: ServerMetrics, workload: Workload) -> Iterator[str]:
    """What fell due against what was asked; whether the server answered in time is another matter.

    A trace or a shape has no one rate. Random arrivals are fewer by chance: with gaps of variation
    c, n of them vary by c sqrt(n).
    """
    arrivals = workload.arrivals
    flat = arrivals.kind is not ArrivalKind.TRACE and arrivals.shape.kind is ShapeKind.FLAT
    if workload.load_mode is LoadMode.CLOSED or workload.rate_per_s is None or not flat:
        return
    expected = workload.rate_per_s * load.duration_s
    due = _sent(load) + load.dropped
    variation = {ArrivalKind.CONSTANT: 0.0, ArrivalKind.GAMMA: arrivals.burstiness_cv}
    noise = RATE_NOISE_DEVIATIONS * variation.get(arrivals.kind, 1.0) * math.sqrt(expected)
    if due < (1 - RATE_SHORTFALL) * expected - noise:
        yield (
            f"the load generator did not keep to the rate ({number(due / load.duration_s)} of "
            f"{asked(workload.rate_per_s)} requests/s fell due): {_more_workers(load)}, "
            "or lower the rate"
        )


def _dropped_by_generator(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    """Drops are the server's doing, and the error rate's business, unless the generator lagged."""
    lagging = load.generator_cpu >= GENERATOR_CPU_LIMIT or max(
        _send_delay_p99_ms(load), _loop_lag_p99_ms(load)
    ) > _allowed_late_ms(load)
    if load.dropped and lagging:
        yield (
            f"{count(load.dropped)} of {count(load.dropped + _sent(load))} requests were "
            "dropped while the load generator lagged, so that this says nothing of the server: "
            f"{_more_room(load)}"
        )


def steadier_warmup_s(load: LoadResult) -> float | None:
    """A warm-up after which a load may be steady that was not when its window opened.

    Returns:
        Seconds: what it had, and twice what was still missing. None where it was steady.
    """
    warm_s = still_warming(load.window) * load.slice_s
    return load.warmup_s + 2 * warm_s if warm_s else None


def _still_warming(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    longer_s = steadier_warmup_s(load)
    if longer_s is not None:
        yield (
            f"the load was not steady yet when the window opened (latency fell for another "
            f"{seconds((longer_s - load.warmup_s) / 2)} s): raise warmup_s to "
            f"{seconds(longer_s)} or more"
        )


def _counts_disagree(load: LoadResult, server: ServerMetrics, workload: Workload) -> Iterator[str]:
    """Compare Triton's successes with the client's.

    An answer that the client rejects (an empty tensor, a time-out) is a success to Triton, so the
    server may count as many more as the client saw fail.
    """
    if server.requests is None or not load.completed:
        return
    slack = COUNT_TOLERANCE * load.completed + COUNT_SKEW_S * load.busiest_per_s
    slack += min(workload.concurrency, load.completed) if _is_closed(workload) else 1
    slack += server.requests_uncertainty
    numbers = f"Triton answered {count(server.requests)} requests, the load generator saw"
    if server.requests > load.completed + sum(load.failures.values()) + slack:
        yield f"{numbers} {count(load.completed)}: keep other clients away from this server"
    elif server.requests < load.completed - slack:
        yield (
            f"{numbers} {count(load.completed)}: another server answers too, or counts are missing"
        )


def _is_closed(workload: Workload) -> bool:
    return workload.load_mode is LoadMode.CLOSED


def _sent(load: LoadResult) -> int:
    """Requests scheduled inside the window and sent, whatever became of them."""
    answered = sum(hdr.total(one.ok.response) for one in load.window)
    return answered + sum(load.failures.values()) + load.left


def _send_delay_p99_ms(load: LoadResult) -> float:
    spans = [part.of(SCHEDULE_DELAY) for one in load.window for part in (one.ok, one.failed)]
    return _p99_ms(hdr.merge(spans))


def _loop_lag_p99_ms(load: LoadResult) -> float:
    """p99 of the event loop's lag, of the process that lagged most; 0 where nothing is known."""
    return max((_p99_ms(one.loop_lag) for one in load.generators), default=0.0)


def _p99_ms(histogram: SparseHistogram) -> float:
    return hdr.value_at(histogram, 0.99) or 0.0


def _allowed_late_ms(load: LoadResult) -> float:
    p95_ms = hdr.value_at(hdr.merge(one.ok.response for one in load.window), 0.95) or 0.0
    return allowed_late_ms(p95_ms)


def _more_workers(load: LoadResult) -> str:
    """Name the number of generator processes that would leave each of them time to spare."""
    used_cores = sum(one.cpu_cores for one in load.generators)
    workers = max(len(load.generators) + 1, math.ceil(used_cores / GENERATOR_CPU_AIM))
    if not load.joined_at:
        return f"add workers: --workers {workers}"
    more = workers - len(load.generators)
    return f"start {more} more: harness worker --join {load.joined_at}"


def _more_room(load: LoadResult) -> str:
    """More processes help one that was busy; one that was not lacked its own core."""
    if load.generator_cpu >= GENERATOR_CPU_AIM:
        return _more_workers(load)
    return (
        "give the generator cores of its own, for example --cpus-server 0 --cpus-generator 1, "
        "or keep other work off this machine"
    )


_Check = Callable[[LoadResult, ServerMetrics, Workload], Iterator[str]]
_CHECKS: tuple[_Check, ...] = (
    _server_broken,
    _counters_reset,
    _version_exchanged,
    _answered_from_cache,
    _generator_saturated,
    _generator_late,
    _event_loop_late,
    _slots_idle,
    _rate_missed,
    _dropped_by_generator,
    _still_warming,
    _counts_disagree,
)
_FOLLOW_A_RESTART = frozenset(
    {
        _server_broken,
        _generator_late,
        _slots_idle,
        _dropped_by_generator,
        _still_warming,
        _counts_disagree,
    }
)
"""What a restart, or another version's loading, brings about by itself: it is told as the one
reason, not as several."""
