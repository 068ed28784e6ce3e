"""What the locustfiles make of reports and arguments; without Locust, which patches its process."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import hdr
from harness.errors import UsageError
from harness.load.generators.messages import LoadProgress
from harness.types import RESPONSE, SCHEDULE_DELAY, SERVICE, Latencies, SparseHistogram, TimeSlice
from harness_locust.judgement import warnings_of
from harness_locust.plan import LEAD_S, make_plan
from harness_locust.results import (
    DRAINING,
    MEASURED,
    RAMP_UP,
    SLICE_S,
    Results,
)
from harness_locust.summary import as_text

NS = 1_000_000_000
TEN_MS = hdr.of_nanoseconds(hdr.integers([10_000_000]))


def slice_at(index: int, count: int = 1) -> TimeSlice:
    response = SparseHistogram(TEN_MS.buckets, (count,))
    at_once = SparseHistogram((0,), (count,))
    spans = {SCHEDULE_DELAY: at_once, SERVICE: response, RESPONSE: response}
    return TimeSlice(index, ok=Latencies(spans), completed=count)


def report(
    *slices: TimeSlice, at_s: float = 1.0, test: str = "t", cpu_s: float = 0.1, number: int = 0
) -> LoadProgress:
    at_ns = round(at_s * NS)
    return LoadProgress(
        at_ns, at_ns, slices, cpu_s, SparseHistogram(), 2**20, at_ns - NS, number, load=test
    )


@given(
    marks_s=st.lists(st.floats(0, 20), max_size=6),
    slices=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 5)), max_size=40),
)
def test_no_request_is_lost_between_phases(
    marks_s: list[float], slices: list[tuple[int, int]]
) -> None:
    """However phases begin, earlier ones replaced by later marks included."""
    results = Results("t")
    steps = [*enumerate(slices)]
    for mark_s in marks_s:
        results.begin(MEASURED, mark_s)
        if steps:
            number, one = steps.pop()
            results.add("w", report(slice_at(*one), number=number))
    for number, one in steps:
        results.add("w", report(slice_at(*one), number=number))
    sent = sum(count for _, count in slices)
    assert hdr.total(results.everything().ok.response) == sent
    phases = results.phases(now_s=100.0)
    assert sum(one.total.completed for one in phases) == sent
    assert sum(one.duration_s for one in phases) == pytest.approx(100.0)


def test_phases_are_cut_at_slices_and_the_transient_ones_do_not_count() -> None:
    results = Results("t")
    results.begin(MEASURED, 1.1)
    results.begin(DRAINING, 3.0)
    edge = round(1.25 / SLICE_S)
    results.add("w", report(slice_at(0), slice_at(edge - 1), slice_at(edge, 8), slice_at(12)))
    shape = [(one.name, one.duration_s, one.total.completed) for one in results.phases(4.0)]
    assert shape == [(RAMP_UP, 1.25, 2), (MEASURED, 1.75, 8), (DRAINING, 1.0, 1)]
    whole = results.whole(4.0)
    assert (whole.total.completed, whole.duration_s) == (8, 1.75)


def test_a_report_of_another_test_is_not_added() -> None:
    results = Results("t")
    results.add("w", report(slice_at(0), test="earlier"))
    assert not results.workers
    assert results.everything().completed == 0


def test_a_saturated_or_lost_worker_is_named_in_words() -> None:
    results = Results("t")
    results.begin(MEASURED, 0.0)
    results.add("worker 0", report(slice_at(1), cpu_s=0.97))
    results.add("worker 1", report(slice_at(1), cpu_s=0.2))
    results.worker("worker 1").lost = True
    warnings = warnings_of(results, 2.0)
    assert len(warnings) == 2
    assert "worker 1 was lost 1 s into the test" in warnings[0]
    assert "worker 0 was the limit (it used 97.0% of a core)" in warnings[1]
    assert "WARNING: worker 0 was the limit" in as_text(results, 2.0)
    reset = results.continued(3.0)
    assert "worker 1 was lost 1 s into the test" in warnings_of(reset, 4.0)[0]


OPTIONS = {
    "model": "m", "payloads": "p.npz", "client_batch_size": "", "batch_mix": "", "length_mix": "",
    "seed": "0", "known_answers": "", "rate": "", "arrivals": "", "trace_unit": "auto", "shape": "",
    "max_in_flight": "1000", "users_shape": "", "sweep": "", "step_time": "10",
    "transport": "native", "request_timeout": "30", "ca_file": "", "insecure": False, "header": [],
    "histograms": "", "records": "", "run_time": None, "repository": "nowhere", "variant": "",
    "response_cache": False, "generate": "no",
    "objective": "", "protocol": "auto", "load_mode": "auto", "metrics_url": "",
}  # fmt: skip


def options(changes: dict[str, object]) -> Namespace:
    return Namespace(**{**OPTIONS, **changes})


def test_the_scheme_chooses_the_protocol_and_a_rate_the_open_loop() -> None:
    made = make_plan(options({"rate": "50", "run_time": 20, "header": ["a: b"]}), "grpcs://h:1/")
    assert (made.workload.protocol, made.is_open_loop, made.target.encrypted) == (
        "grpc",
        True,
        True,
    )
    assert made.target.headers == (("a", "b"),)
    assert made.end_s == LEAD_S + 20
    assert not make_plan(options({}), "https://h").is_open_loop


def test_a_trace_is_read_before_the_test_and_never_in_it(tmp_path: Path) -> None:
    """Its end is asked for every second, by the process whose users send the load."""
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp_s\n0\n1\n2\n3\n")
    made = make_plan(options({"arrivals": f"trace:{trace}"}), "http://h:8000")
    trace.unlink()
    assert made.end_s == LEAD_S + 4
    assert make_plan(options({"rate": "5"}), "http://h:8000").end_s is None


@pytest.mark.parametrize("api", ["completions", "triton"])
def test_messages_are_not_sent_as_empty_texts(tmp_path: Path, api: str) -> None:
    prompts = tmp_path / "chats.jsonl"
    prompts.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    asked: dict[str, object] = {"payloads": str(prompts)}
    with pytest.raises(UsageError, match=f"messages alone, and --generate {api} sends texts"):
        make_plan(options({**asked, "generate": api}), "http://h:8000").prompts()
    (found,) = make_plan(options({**asked, "generate": "chat"}), "http://h:8000").prompts()
    assert found.messages


@pytest.mark.parametrize("variant", ["", "none"])
def test_without_a_variant_the_named_model_is_asked(variant: str) -> None:
    made = make_plan(options({"variant": variant}), "h:8000")
    assert (made.model, made.payloads, made.from_repository) == ("m", Path("p.npz"), False)


def test_a_chosen_protocol_moves_between_tritons_own_ports_and_no_others() -> None:
    made = make_plan(options({"protocol": "grpc"}), "http://h:8000")
    assert (made.host, made.workload.protocol) == ("grpc://h:8001", "grpc")
    assert made.metrics_url == "http://h:8002/metrics"
    assert make_plan(options({"protocol": "http"}), "grpcs://h:8001").host == "https://h:8000"
    with pytest.raises(UsageError, match="does not say where grpc is spoken"):
        make_plan(options({"protocol": "grpc"}), "http://h:9000")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": "fast"}, "--rate 'fast' is not a number"),
        ({"load_mode": "open"}, "an open loop without a rate"),
        ({"load_mode": "closed", "rate": "5"}, "a closed loop with a rate"),
        ({"generate": "triton", "batch_mix": "1:1"}, "--batch-mix is of answers that come in one"),
        ({"generate": "chat", "protocol": "grpc"}, "--generate chat is spoken over HTTP"),
        ({"objective": "p96 < 50 ms"}, "unknown metric 'p96'"),
        ({"objective": "accuracy >= 90%"}, "a load test does not measure quality"),
        ({"objective": "itl p99 < 9 ms"}, "itl_p99, which only models that write have"),
        ({"model": "", "payloads": "", "variant": "v"}, "nowhere has no variant 'v'"),
        ({"model": "", "payloads": "", "variant": "none"}, "nothing to send"),
        ({"variant": "v"}, "the variant v and the model m"),
        ({"rate": "nan"}, "a rate of nan"),
        ({"rate": "-1"}, "a rate of -1"),
        ({"rate": "0"}, "a rate of 0 requests/s"),
        ({"rate": "9", "shape": "up"}, "'up' is not a shape of a load"),
        ({"model": "", "payloads": ""}, "--model and --payloads say what"),
        ({"rate": "5", "sweep": "1,2"}, "these are for a closed loop"),
        ({"arrivals": "poisson"}, "without a rate"),
        ({"arrivals": "weekly", "rate": "5"}, "'weekly' is not an arrival process"),
        ({"sweep": "1,x"}, "--sweep 'x' is not a whole number"),
        ({"sweep": "0"}, "at least one user"),
        ({"sweep": "1,4,1"}, "the same step twice"),
        ({"sweep": "1", "step_time": "1"}, "3 s are the shortest"),
        ({"sweep": "1", "users_shape": "ramp:0..1/9s"}, "choose one"),
        ({"client_batch_size": "2", "batch_mix": "1:1,2:1"}, "leave --client-batch-size out"),
        ({"client_batch_size": "0"}, "at least one row"),
        ({"request_timeout": "0"}, "must be above 0"),
        ({"header": ["nothing"]}, "'nothing' is not a header"),
    ],
)
def test_what_cannot_be_is_said_in_words(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(options(changes), "http://h:8000")
    assert words in f"{caught.value}; {caught.value.next_step}"


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a server address"):
        make_plan(options({}), "ftp://h:1")
