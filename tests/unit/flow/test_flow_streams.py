"""What a trial says of streams: tokens per second, goodput, and how an objective judges both."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from harness import hdr
from harness.errors import ObjectiveError, UsageError
from harness.flow.results import BegunTrial, assess_trial, client_side
from harness.planning.assessment import assess
from harness.report.terminal.trial import trial_table
from harness.runs.folder import RunFolder, read_run
from harness.runs.tables import trials_table
from harness.study.clauses import check_counted, request_bounds
from harness.study.objective import parse_objective
from harness.types import (
    ArrivalProcess,
    Decision,
    Generation,
    Latencies,
    LoadMode,
    LoadShape,
    RequestBound,
    ServingConfig,
    ShapeKind,
    SparseHistogram,
    StreamApi,
    StreamCounts,
    TimeSlice,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)
from harness.types.latency import UNBOUNDED_MS

MS = 1_000_000
SINE = ArrivalProcess(shape=LoadShape(ShapeKind.SINE, 0.0, 1.0, 60.0))
SLICE_S = 0.05
SLO = parse_objective(
    "ttft p95 < 200ms, itl p99 < 50ms, goodput >= 15/s, output_tokens_per_s > 1/s"
)


def of_ms(*values: float) -> SparseHistogram:
    return hdr.of_nanoseconds(hdr.integers([int(value * MS) for value in values]))


def result_of(slo_text: str = SLO.text, *, good: int = 1, slices: int = 400) -> TrialResult:
    """A request a slice (20/s), `good` or not, with 10 tokens (200/s)."""
    slo = parse_objective(slo_text)
    workload = Workload(
        WireProtocol.HTTP, 1, 64, 20.0, 1.0, seed=1, load_mode=LoadMode.OPEN, rate_per_s=20.0
    )
    begun = BegunTrial(Trial("m", "f", ServingConfig(), workload), "0" * 64, "2026-01-01")
    spans = {"response": of_ms(120), "ttft": of_ms(30), "itl": of_ms(*[10] * 9), "tpot": of_ms(10)}
    window = [
        TimeSlice(
            at,
            ok=Latencies(spans),
            completed=1,
            inferences=1,
            good=good,
            streams=StreamCounts(5, 10, 0, {"no_usage": 1}),
        )
        for at in range(slices)
    ]
    clients = client_side(window, SLICE_S, workload, 0.95, bounds=request_bounds(slo))
    return assess_trial(begun, slo, clients).result


def test_tokens_and_good_requests_per_second() -> None:
    result = result_of()
    assert result.streams is not None
    assert result.goodput is not None
    assert result.streams.output_tokens_per_s == pytest.approx(200)
    assert result.streams.counts == StreamCounts(2000, 4000, 0, {"no_usage": 400})
    assert result.goodput.requests_per_s == pytest.approx(20)
    assert result.goodput.bounds is not None
    assert result.goodput.bounds.low == pytest.approx(20 * 0.025 ** (1 / 400), abs=0.1)
    assert result.latency_ms("itl", "p99") == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "good", "decision", "said"),
    [
        (SLO.text, 1, Decision.PASS, ""),
        (SLO.text, 0, Decision.FAIL, "goodput 0 requests/s"),
        ("p95 < 1 s, goodput >= 19.8/s", 1, Decision.PASS, ""),
        ("ttft p95 < 20ms", 1, Decision.FAIL, "TTFT p95 30.0 ms"),
        ("p95 < 1 s, goodput >= 25/s", 1, Decision.FAIL, "is under 25 requests/s"),
        ("output_tokens_per_s >= 300/s", 1, Decision.FAIL, "is under 300 tokens/s"),
        ("tpot mean < 11 ms, tpot_p95 <= 10.1 ms", 1, Decision.PASS, ""),
    ],
)
def test_an_objective_judges_them(text: str, good: int, decision: Decision, said: str) -> None:
    result = result_of(text, good=good)
    assert (result.decision, said in result.reason) == (decision, True)


def test_goodput_of_other_clauses_says_nothing() -> None:
    """It was counted request by request, so it cannot be had again from percentiles."""
    other = assess(parse_objective("ttft p95 < 100 ms, goodput >= 15/s"), result_of())
    assert other.decision is Decision.UNDECIDED
    assert "not counted by the clauses of this objective" in other.reason


def test_goodput_of_the_same_clauses_in_another_order_is_the_same() -> None:
    clauses = SLO.text.split(", ")
    other = assess(parse_objective(", ".join(reversed(clauses))), result_of())
    assert len(clauses) > 2
    assert other.decision is Decision.PASS


def test_the_journal_the_tidy_table_and_the_terminal_have_them(tmp_path) -> None:
    result = result_of()
    with RunFolder.create(tmp_path / "run", {"schema_version": 1}) as folder:
        folder.journal.add(result)
    assert read_run(tmp_path / "run").trials == (result,)
    row = trials_table((result,), ()).iloc[0]
    assert row["output_tokens_per_s"] == pytest.approx(200)
    assert row["goodput_requests_per_s"] == pytest.approx(20)
    assert row["ttft_p95_ms"] == pytest.approx(30, rel=1e-3)
    stream = io.StringIO()
    Console(file=stream, width=140, color_system=None).print(trial_table(result, SLO))
    shown = stream.getvalue()
    for words in ("2,000 in, 4,000 out", "200 tokens/s", "20.0 requests/s", "no_usage 400", "TTFT"):
        assert words in shown


def test_a_load_without_streams_shows_nothing_of_them() -> None:
    result = dataclasses.replace(result_of("p95 < 1 s"), streams=None, goodput=None)
    stream = io.StringIO()
    Console(file=stream, width=140, color_system=None).print(trial_table(result))
    assert "tokens" not in stream.getvalue()
    assert "goodput_requests_per_s" not in trials_table((result,), ()).columns


@pytest.mark.parametrize(
    ("apart", "joined"),
    [("ttft p95 < 200ms", "ttft_p95 < 200 ms"), ("response p99 < 1 s", "p99 < 1 s"),
     ("itl mean <= 2ms", "itl_mean <= 2ms")],
)  # fmt: skip
def test_a_statistic_may_stand_apart_from_its_span(apart: str, joined: str) -> None:
    (one,), (other,) = (parse_objective(text).constraints for text in (apart, joined))
    assert (one.metric, one.operator, one.value) == (other.metric, other.operator, other.value)
    assert one.text == apart


@pytest.mark.parametrize("text", ["ttft < 200ms", "itl p97 < 50 ms", "service p95 < 1 s"])
def test_a_span_without_a_statistic_is_told_which_there_are(text: str) -> None:
    with pytest.raises(ObjectiveError, match="p95"):
        parse_objective(text)


def test_a_goodput_needs_a_clause_that_says_what_is_good() -> None:
    with pytest.raises(UsageError, match="goodput counts the requests that meet all clauses"):
        check_counted(parse_objective("goodput >= 5/s, error_rate < 1%"))
    check_counted(parse_objective("ttft p95 < 200ms, goodput >= 5/s"))


def test_the_clauses_of_a_goodput_are_those_on_latencies() -> None:
    bounds = request_bounds(parse_objective("p95 < 1 s, error_rate < 1%, itl mean <= 50 ms"))
    assert bounds == (
        RequestBound("response", 0.95, 1_000_000_000, inclusive=False),
        RequestBound("itl", None, 50_000_000, inclusive=True),
    )


def test_a_loop_whose_slots_think_remembers_longer_than_its_requests_take() -> None:
    """Latency and rate drift through the window: a closed loop that never rests has decided by its
    blocks' extremes, one of conversations has not."""
    busy = Workload(WireProtocol.HTTP, 1, 64, 8.0, 1.0, seed=1)
    talks = dataclasses.replace(busy, generation=Generation(StreamApi.CHAT, converses=True))
    window = [
        TimeSlice(
            at,
            ok=Latencies({"response": of_ms(*[10 if at < 80 else 12] * 30)}),
            completed=30 if at < 80 else 25,
            inferences=30 if at < 80 else 25,
        )
        for at in range(160)
    ]
    loop, conversations, shaped = (
        client_side(window, SLICE_S, one, 0.99)
        for one in (busy, talks, dataclasses.replace(busy, arrivals=SINE))
    )
    assert loop.latencies["response"].percentiles["p95"].high_ms < 16
    for one in (conversations, shaped):
        assert one.latencies["response"].percentiles["p95"].high_ms == UNBOUNDED_MS
    assert loop.throughput_low_inferences_per_s == pytest.approx(500 / 1.25)
    assert conversations.throughput_low_inferences_per_s is None
