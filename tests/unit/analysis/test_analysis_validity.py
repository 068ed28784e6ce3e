import dataclasses

import pytest
from hdrh.histogram import HdrHistogram

from harness.analysis.validity import judge_validity
from harness.types import LoadResult, ServerMetrics, WireProtocol, Workload

WORKLOAD = Workload(WireProtocol.GRPC, 4, concurrency=8, duration_s=2.0, warmup_s=0.5, seed=1)
SERVER = ServerMetrics(requests=1005, inferences=4020, executions=500)


def encode(*latencies_us):
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    for latency_us in latencies_us:
        histogram.record_value(latency_us)
    return histogram.encode().decode()


HEALTHY = LoadResult(
    window_start_ns=0,
    window_end_ns=2_000_000_000,
    histograms=(encode(*[8000] * 100),) * 10,
    schedule_delay=encode(*[100] * 1000),
    completed=1000,
    failures={},
    generator_cpu=0.4,
)


def judge(*, server=SERVER, workload=WORKLOAD, alive=True, **changes):
    return judge_validity(dataclasses.replace(HEALTHY, **changes), server, workload, alive)


def test_a_healthy_trial_is_valid():
    assert judge() == (True, "")


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"alive": False}, "the server died", "log"),
        ({"completed": 0, "histograms": ()}, "no request completed", "raise duration_s"),
        (
            {"completed": 0, "failures": {"http-500": 9}, "first_failure": "boom"},
            "9 of 9 requests failed (the first: boom)",
            "log",
        ),
        ({"failures": {"timeout": 1001}}, "1,001 of 2,001 requests failed", "log"),
        (
            {"server": ServerMetrics(counters_reset=True)},
            "counters were reset",
            "measure again",
        ),
        ({"generator_cpu": 0.9}, "90% of a core", "raise generator_processes"),
        (
            {"schedule_delay": encode(*[100] * 90, *[9000] * 10)},
            "sent late",
            "raise generator_processes",
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
            {"workload": dataclasses.replace(WORKLOAD, rate_per_s=600.0)},
            "500 of 600 requests/s",
            "lower the rate",
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
        {"generator_cpu": 0.89},
        {"failures": {"timeout": 900}},
        {"server": ServerMetrics()},
        {"server": dataclasses.replace(SERVER, requests=1070)},
        {"server": dataclasses.replace(SERVER, requests=1300), "failures": {"empty-tensor": 300}},
        {"schedule_delay": encode(*[100] * 90, *[4000] * 10)},
        {"schedule_delay": encode(*[9000] * 9), "histograms": (encode(100_000),)},
        {"completed": 5, "histograms": (encode(8000),) * 5, "server": ServerMetrics(requests=5)},
    ],
    ids=[
        "cpu below the limit", "failures are the objective's business", "no server metrics",
        "counts within the skew", "answers that the client rejects", "a tolerable delay",
        "late, but little of a long latency", "few requests",
    ],
)  # fmt: skip
def test_what_does_not_make_a_trial_invalid(changes):
    assert judge(**changes) == (True, "")


def test_every_reason_is_told():
    _, reason = judge(generator_cpu=0.95, server=ServerMetrics(counters_reset=True))
    assert "counters were reset" in reason
    assert "95% of a core" in reason
