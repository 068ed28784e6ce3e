import dataclasses

import numpy as np
import pytest

from harness import hdr
from harness.analysis.validity import judge_validity, steadier_warmup_s
from harness.study.clauses import request_bounds
from harness.study.objective import parse_objective
from harness.types import (
    ITL,
    RESPONSE,
    SCHEDULE_DELAY,
    SERVICE,
    ArrivalKind,
    ArrivalProcess,
    Generation,
    GeneratorHealth,
    HostMetrics,
    Latencies,
    LoadMode,
    LoadResult,
    LoadShape,
    PartMetrics,
    ServerMetrics,
    ShapeKind,
    StreamApi,
    StreamCounts,
    TimeSlice,
    WireProtocol,
    Workload,
)

CLOSED = Workload(WireProtocol.GRPC, 4, concurrency=4, duration_s=2.0, warmup_s=0.5, seed=1)
OPEN = dataclasses.replace(CLOSED, load_mode=LoadMode.OPEN, rate_per_s=500.0, concurrency=64)
SERVER = ServerMetrics(requests=1005, inferences=4020, executions=500)
SLICES = 40
CACHED_PART = PartMetrics("m", 1005, 1.0, 5.0, cache_hits=500)
STREAMED = "ttft p95 < 200 ms, itl p99 < 50 ms, goodput > 1/s"
BUSY = HostMetrics(
    cpu_utilization=1.0, server_run_cores=0.7, server_wait_cores=0.3, server_foreign_wait_cores=0.3
)


def histogram(*latencies_us):
    return hdr.of_nanoseconds(np.array(latencies_us, dtype=np.int64) * 1000)


def one_slice(index, *, latency_us=8000, delay_us=100, requests=25, **changes):
    spans = Latencies(
        {
            SCHEDULE_DELAY: histogram(*[delay_us] * requests),
            SERVICE: histogram(*[latency_us] * requests),
            RESPONSE: histogram(*[latency_us] * requests),
        }
    )
    made = TimeSlice(index, ok=spans, completed=requests, inferences=4 * requests)
    return dataclasses.replace(made, **changes)


def load(
    change=lambda index: {},
    *,
    cpu=(0.4,),
    lag_us=200,
    slices=SLICES,
    first_failure="",
    stamped=False,
):
    """A healthy load of 2 s after 0.5 s of warm-up, but for what `change` says of each slice."""
    return LoadResult(
        start_ns=0,
        slice_s=0.05,
        slices=tuple(one_slice(index, **change(index - 10)) for index in range(10 + slices)),
        window_start_ns=500_000_000,
        window_end_ns=500_000_000 + slices * 50_000_000,
        generators=tuple(GeneratorHealth(cores, histogram(lag_us)) for cores in cpu),
        first_failure=first_failure,
        answers_stamped=stamped,
    )


HEALTHY = load()


def judge(measured=HEALTHY, *, server=SERVER, workload=CLOSED, alive=True, host=None, objective=""):
    bounds = request_bounds(parse_objective(objective)) if objective else ()
    return judge_validity(measured, server, workload, server_alive=alive, host=host, bounds=bounds)


def streaming(*, gap_us, lag_us, left=0, latency_us=8000, closing_us=0):
    """A load of streams, whose tokens follow one another so closely.

    Each ends so long after its last token.
    """

    def change(index):
        one = one_slice(index, requests=25 - left, latency_us=latency_us)
        spans = Latencies({**one.ok.spans, ITL: histogram(*[gap_us] * 100)})
        counts = StreamCounts(left=left, closing_ns=25 * closing_us * 1000)
        return {"ok": spans, "streams": counts, "requests": 25 - left}

    return load(change, lag_us=lag_us, stamped=True)


def lost(dropped):
    return lambda index: {"dropped": dropped, "requests": 25 - dropped}


def no_server():
    return ServerMetrics()


def test_a_healthy_trial_is_valid():
    assert judge() == (True, "")
    assert judge(workload=OPEN) == (True, "")


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"alive": False}, "the server died", "log"),
        ({"measured": load(lambda _: {"requests": 0})}, "no request completed", "duration_s"),
        (
            {
                "measured": load(
                    lambda index: {"requests": 0, "failures": {"http-500": 1}}, first_failure="boom"
                )
            },
            "40 of 40 requests failed (the first: boom)",
            "log",
        ),
        (
            {"measured": load(lambda _: {"failures": {"timeout": 26}})},
            "1,040 of 2,040 requests failed",
            "log",
        ),
        ({"server": ServerMetrics(counters_reset=True)}, "counters were reset", "measure again"),
        (
            {"server": ServerMetrics(version="2", exchanged="version 1, then 2")},
            "more than one version of the model answered",
            "measure again",
        ),
        (
            {"server": dataclasses.replace(SERVER, cache_hits=1000)},
            "the response cache answered 1,000 of 1,005 requests in the model's place",
            "response_cache { enable: false }",
        ),
        (
            {"server": dataclasses.replace(SERVER, parts=(CACHED_PART,))},
            "the response cache answered 500 of 1,005 requests",
            "--response-cache",
        ),
        (
            {"host": dataclasses.replace(BUSY, foreign_cpu=1.3)},
            "short of a core for 30.0% of its time (other processes used 1.30 cores there; its",
            "keep other work off its machine",
        ),
        (
            {"host": dataclasses.replace(BUSY, server_foreign_wait_cores=0.0, cpu_steal=0.2)},
            "the hypervisor took 20.0% of its machine's time (steal)",
            "measure again",
        ),
        ({"measured": load(cpu=(0.9,))}, "90.0% of a core", "add workers: --workers 2"),
        ({"measured": load(cpu=(0.95, 0.97))}, "97.0% of a core", "add workers: --workers 4"),
        (
            {"measured": load(lambda index: {"delay_us": 19_000})},
            "sent late (p99 19.0 ms",
            "--cpus-generator 1",
        ),
        (
            {"measured": load(lambda index: {"delay_us": 19_000}, cpu=(0.7,))},
            "sent late",
            "add workers: --workers 2",
        ),
        (
            {"workload": dataclasses.replace(CLOSED, concurrency=6)},
            "slow to send the next request (4.00 ms on average, so that 4.00 of 6 were in flight)",
            "--cpus-generator 1",
        ),
        ({"measured": load(lag_us=20_000)}, "woke late", "--cpus-server 0 --cpus-generator 1"),
        (
            {"measured": streaming(gap_us=9000, lag_us=9600)},
            "tokens follow one another in 9.00 ms on average), so that tokens were read together",
            "--cpus-generator 1",
        ),
        (
            {"measured": streaming(gap_us=500, lag_us=2200), "objective": "goodput > 1/s"},
            "2.00 ms are tolerated where tokens follow one another in 0.500 ms",
            "--cpus-generator 1",
        ),
        (
            {"measured": streaming(gap_us=500, lag_us=5400), "objective": STREAMED},
            "5.00 ms are tolerated where tokens follow one another in 0.500 ms",
            "--cpus-generator 1",
        ),
        (
            {"measured": streaming(gap_us=9000, lag_us=200, latency_us=6000)},
            "2.00 ms on average, so that 3.00 of 4 were in flight",
            "--cpus-generator 1",
        ),
        (
            {"server": dataclasses.replace(SERVER, requests=1200)},
            "Triton answered 1,200 requests, the load generator saw 1,000",
            "keep other clients away",
        ),
        (
            {"server": dataclasses.replace(SERVER, requests=800)},
            "Triton answered 800",
            "another server",
        ),
        (
            {"workload": dataclasses.replace(OPEN, rate_per_s=700.0)},
            "500 of 700 requests/s fell due",
            "lower the rate",
        ),
        (
            {"measured": load(lost(5), cpu=(0.95,)), "workload": OPEN, "server": no_server()},
            "200 of 1,000 requests were dropped while the load generator lagged",
            "--workers 2",
        ),
        (
            {"measured": load(lambda index: {"latency_us": 40_000 if index < 8 else 8000})},
            "not steady yet when the window opened (latency fell for another 0.4 s)",
            "raise warmup_s to 1.3",
        ),
    ],
)
def test_an_invalid_trial_says_why_and_what_to_do(changes, problem, remedy):
    valid, reason = judge(**changes)
    assert not valid
    assert problem in reason
    assert remedy in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"measured": load(cpu=(0.89, 0.4))},
        {"measured": load(lambda _: {"failures": {"timeout": 24}})},
        {"server": no_server()},
        {"server": dataclasses.replace(SERVER, requests=1070)},
        {
            "server": dataclasses.replace(SERVER, requests=1300),
            "measured": load(lambda _: {"failures": {"empty-tensor": 8}}),
        },
        {"measured": load(lambda _: {"delay_us": 8000}, lag_us=8000)},
        {"measured": load(lambda _: {"delay_us": 19_000, "latency_us": 200_000}, lag_us=19_000)},
        {"measured": load(lag_us=20_000, stamped=True)},
        {"measured": streaming(gap_us=9000, lag_us=8500)},
        {"measured": streaming(gap_us=100, lag_us=1900)},
        # What is judged at 50 ms may be wrong by a tenth of it.
        {"measured": streaming(gap_us=500, lag_us=4800), "objective": STREAMED},
        # A stream holds its slot until it ends.
        {"measured": streaming(gap_us=9000, lag_us=200, latency_us=6000, closing_us=2000)},
        # Clients that left on purpose were sent all the same.
        {
            "measured": streaming(gap_us=9000, lag_us=200, left=5),
            "workload": OPEN,
            "server": no_server(),
        },
        {"workload": dataclasses.replace(CLOSED, concurrency=5)},
        {
            "measured": load(lambda _: {"latency_us": 300, "requests": 100}),
            "workload": dataclasses.replace(CLOSED, concurrency=1),
            "server": no_server(),
        },
        # Slots that rest for a third of the time, while somebody thinks of the next turn.
        {
            "workload": dataclasses.replace(
                CLOSED, concurrency=6, generation=Generation(StreamApi.CHAT, converses=True)
            )
        },
        # Two slots that never rest, of which each sends once within the window of 2 s.
        {
            "measured": load(lambda index: {"latency_us": 1_500_000, "requests": 2 * (index == 0)}),
            "workload": dataclasses.replace(CLOSED, concurrency=2),
            "server": no_server(),
        },
        {"measured": load(slices=2), "server": ServerMetrics(requests=50)},
        # The server's limit, not the generator's: the error rate counts what was dropped, and
        # completions that lag behind the rate are latency.
        {"measured": load(lost(10)), "workload": OPEN, "server": no_server()},
        {
            "measured": load(lambda index: {"latency_us": 8000 + 1000 * index, "completed": 10}),
            "workload": OPEN,
            "server": no_server(),
        },
        # Random arrivals are fewer by chance, shaped ones on purpose.
        {"workload": dataclasses.replace(OPEN, rate_per_s=580.0)},
        {
            "workload": dataclasses.replace(
                OPEN, rate_per_s=900.0, arrivals=ArrivalProcess(ArrivalKind.GAMMA, 8.0)
            )
        },
        {
            "workload": dataclasses.replace(
                OPEN,
                rate_per_s=1000.0,
                arrivals=ArrivalProcess(shape=LoadShape(ShapeKind.RAMP, 0.0, 1.0)),
            )
        },
    ],
    ids=[
        "cpu below the limit", "failures are the objective's business", "no server metrics",
        "counts within the skew", "answers that the client rejects", "a tolerable delay",
        "late, but little of a long latency", "late, but the kernel says when answers came",
        "late by less than tokens are apart", "late, but by very little",
        "late by less than a tenth of the bound", "slots that wait for a stream to end",
        "clients that left on purpose",
        "slots that rest for a fifth of the time", "slots that rest for less than a millisecond",
        "time to think between turns", "answers almost as long as the window",
        "few requests", "dropped by the server",
        "a server that falls behind", "a thin draw of Poisson", "bursts", "a ramp",
    ],
)  # fmt: skip
def test_what_does_not_make_a_trial_invalid(changes):
    assert judge(**changes) == (True, "")


def test_constant_arrivals_keep_to_their_rate():
    workload = dataclasses.replace(
        OPEN, rate_per_s=540.0, arrivals=ArrivalProcess(ArrivalKind.CONSTANT)
    )
    valid, reason = judge(workload=workload)
    assert not valid
    assert "did not keep to the rate" in reason


def test_every_reason_is_told():
    _, reason = judge(load(cpu=(0.95,)), server=ServerMetrics(counters_reset=True))
    assert "counters were reset" in reason
    assert "95.0% of a core" in reason


def test_what_a_restart_brings_about_is_told_as_the_restart_alone():
    """Failures, slots that rest, counts that differ and a warm-up again all follow from it."""
    shaken = load(
        lambda index: {
            "failures": {"connection": 60} if index > 5 else {},
            "delay_us": 19_000,
            "latency_us": 40_000 if index < 8 else 8000,
        }
    )
    _, alone = judge(shaken)
    assert "requests failed" in alone
    valid, reason = judge(shaken, server=ServerMetrics(requests=100, counters_reset=True))
    assert not valid
    assert reason.startswith("the server's counters were reset inside the window")
    assert "failed" not in reason
    assert "answered" not in reason
    assert "late" not in reason


def test_a_few_answers_of_the_cache_move_no_percentile():
    assert judge(server=dataclasses.replace(SERVER, cache_hits=10)) == (True, "")
    assert not judge(server=dataclasses.replace(SERVER, cache_hits=11))[0]


def test_a_cache_that_is_meant_to_answer_may():
    wanted = dataclasses.replace(CLOSED, cached_answers=True)
    cached = dataclasses.replace(SERVER, cache_hits=1000)
    assert judge(server=cached, workload=wanted) == (True, "")


def test_a_server_that_waits_for_its_own_threads_is_measured_well():
    host = dataclasses.replace(BUSY, server_foreign_wait_cores=0.05)
    assert judge(host=host) == (True, "")
    assert judge(host=HostMetrics(cpu_utilization=1.0, foreign_cpu=2.0)) == (True, "")


def test_the_warm_up_that_was_missing_is_half_a_second_and_twice_the_slow_start():
    slow_start = load(lambda index: {"latency_us": 40_000 if index < 8 else 8000})
    assert steadier_warmup_s(slow_start) == pytest.approx(0.5 + 2 * 8 * 0.05)
    assert steadier_warmup_s(HEALTHY) is None


def test_a_load_that_is_not_whole_decides_nothing_and_names_who_did_not_tell():
    said = "2 of 40 reports of load generator 1 did not arrive: what it saw is not counted"
    assert judge(dataclasses.replace(HEALTHY, troubles=(said,))) == (False, said)


@pytest.mark.parametrize(("answered", "disagree"), [(900, False), (800, False), (700, True)])
def test_an_edge_that_a_burst_lies_at_may_hold_as_many_as_the_burst(answered, disagree):
    """After a standstill 90 requests end in each of five slices of 50 ms, 1,800 a second."""
    bursts = [90] * 5 + [0] * (SLICES - 5)
    uneven = load(lambda index: {"requests": bursts[index] if index >= 0 else 25})
    server = dataclasses.replace(SERVER, requests=answered - 450)
    _, reason = judge(uneven, server=server, workload=dataclasses.replace(CLOSED, concurrency=4))
    assert ("counts are missing" in reason) is disagree
