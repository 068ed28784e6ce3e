"""One trial on a terminal: both latencies, the evidence, and what it was judged by."""

import dataclasses
import io

import pytest
from rich.console import Console
from sample_run import sample_run

from harness.report.terminal.trial import trial_table
from harness.study.objective import parse_objective
from harness.types import (
    RESPONSE,
    SERVICE,
    ArrivalProcess,
    Decision,
    Generation,
    LoadMode,
    Percentile,
    ServingConfig,
    StreamApi,
)
from harness.types.streams import StreamCounts, StreamFigures

SLO = parse_objective("p95 < 50 ms")


def printed(renderable, width=100):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(renderable)
    return stream.getvalue()


@pytest.fixture
def result():
    """An open loop behind a server that stalled: what was sent late was answered fast."""
    plain = next(one for one in sample_run().trials if one.valid)
    workload = dataclasses.replace(
        plain.trial.workload, load_mode=LoadMode.OPEN, rate_per_s=250.0, arrivals=ArrivalProcess()
    )
    assert plain.latency is not None
    p95 = Percentile(812.0, 700.0, 950.0)
    return dataclasses.replace(
        plain,
        trial=dataclasses.replace(plain.trial, workload=workload),
        latencies={
            RESPONSE: dataclasses.replace(
                plain.latency, percentiles={**plain.latency.percentiles, "p95": p95}
            )
        },
        values_ms={SERVICE: {"p50": 4.0, "p95": 7.5, "p99": 1003.0}},
        offered_requests_per_s=249.6,
        dropped=17,
        loop_lag_p99_ms=0.4,
        warmup_s=0.85,
        decision=Decision.FAIL,
        reason="p95 is 812 ms",
    )


def line(text, start):
    return next(one for one in text.splitlines() if one.startswith(start))


def test_response_stands_beside_service_latency(result):
    row = line(printed(trial_table(result)), "p95")
    for part in ("812", "700\u2013950", "7.50"):
        assert part in row


def test_an_open_loop_shows_what_fell_due_and_what_was_dropped(result):
    text = printed(trial_table(result))
    assert "250 of 250 requests/s fell due" in line(text, "rate")
    assert "17" in line(text, "dropped")
    assert "0.85 s cut" in line(text, "warm-up")
    assert "0.400 ms" in line(text, "event loop lag")


@pytest.mark.parametrize(("prompts", "said"), [(0, False), (256, True), (10**9, False)])
def test_prompts_that_were_sent_again_are_told(result, prompts, said):
    generation = Generation(StreamApi.CHAT, prompts=prompts)
    workload = dataclasses.replace(result.trial.workload, generation=generation)
    trial = dataclasses.replace(result.trial, workload=workload)
    streams = StreamFigures(StreamCounts(), 0.0)
    told = dataclasses.replace(result, trial=trial, streams=streams, requests=3000, failures=7)
    text = printed(trial_table(told), width=300)
    assert ("3,007 requests were sent of 256 different ones" in text) == said


def test_the_decision_is_shown_only_where_an_objective_was_asked_for(result):
    assert "decision" not in printed(trial_table(result))
    row = line(printed(trial_table(result, SLO)), "decision")
    assert "✕ Fail, p95 < 50 ms: p95 is 812 ms" in row


def test_quality_is_said_to_be_not_judged_here(result):
    both = parse_objective("p95 < 50 ms, accuracy >= 90% of teacher")
    text = printed(trial_table(result, both))
    assert "Fail, p95 < 50 ms" in line(text, "decision")
    assert "accuracy >= 90% of teacher: a load test" in line(text, "not judged here")
    quality = parse_objective("accuracy >= 90%")
    assert "decision" not in printed(trial_table(result, quality)), "nothing of it was measured"


def test_a_window_without_bounds_says_so(result):
    latency = result.latency
    unknown = {name: Percentile(1.0, 0.0, 3_600_000.0) for name in latency.percentiles}
    nothing_known = dataclasses.replace(latency, percentiles=unknown)
    blind = dataclasses.replace(result, latencies={RESPONSE: nothing_known})
    assert "window too short" in line(printed(trial_table(blind)), "p50")


def test_a_server_that_tells_nothing_is_said_to(result):
    trial = dataclasses.replace(result.trial, serving=ServingConfig(0, 0, 0, "cpu", 0))
    text = printed(trial_table(dataclasses.replace(result, trial=trial)))
    assert "as the server has it: no batching told" in line(text, "serving")


def test_nothing_answered_is_no_error(result):
    empty = dataclasses.replace(result, latencies={}, values_ms={})
    assert printed(trial_table(empty))
