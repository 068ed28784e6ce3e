"""Another latency span is one entry of the table: from there on it is found wherever spans are."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from harness import hdr
from harness.flow.results import (
    BegunTrial,
    assess_trial,
    client_side,
    generator_side,
    write_load,
)
from harness.load.engine.recorder import Recorder
from harness.load.generators.driver import Collector
from harness.load.generators.messages import ANSWERS, LoadProgress
from harness.load.records.requests import RecordWriter
from harness.load.records.series import series_rows
from harness.load.transports.contract import RequestFailure
from harness.report.tables.trust import spans_table
from harness.report.terminal.trial import trial_table
from harness.runs.folder import RunFolder, read_run
from harness.runs.tables import trials_table
from harness.study.objective import parse_objective
from harness.telemetry.exposition.monitor import LoadMonitor, labels_of
from harness.telemetry.exposition.page import MonitorCollector
from harness.types import (
    SPANS,
    Decision,
    LatencySpan,
    LoadResult,
    Moment,
    ServingConfig,
    SparseHistogram,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)
from harness_locust.results import MEASURED, Results
from harness_locust.summary import latency_rows

MS = 1_000_000
SLICE_NS = 50 * MS
SLO = parse_objective("p95 < 50 ms")
GAP = LatencySpan(
    "gap", "gap between parts", "part", "next part", "harness_gap_seconds",
    "From one part of an answer to the next.", judged=True,
)  # fmt: skip
TO_THE_END = LatencySpan(
    "last_leg", "last leg", Moment.SENT, Moment.COMPLETED, "", "Measured by the recorder."
)
MEASURED_SPANS = [*(name for name, span in SPANS.items() if span.is_between_moments), GAP.name]
"""That the requests of this file have: no stream is among them."""


@pytest.fixture(autouse=True)
def _one_entry_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPANS, GAP.name, GAP)


def of_ms(*values: float) -> SparseHistogram:
    return hdr.of_nanoseconds(hdr.integers([int(value * MS) for value in values]))


def exposition_of(monitor: LoadMonitor) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MonitorCollector(monitor))
    return generate_latest(registry).decode()


def recorded(records: Path) -> list[LoadProgress]:
    """2 s of a request each 10 ms that takes 20 ms and has gaps of 3 and 7 ms; 2 of 200 fail."""
    with RecordWriter(records) as writer:
        recorder = Recorder(0, SLICE_NS, listeners=[writer.add])
        for at in range(200):
            due_ns = at * 10 * MS
            moments = (due_ns, due_ns, due_ns + 20 * MS)
            if at % 100 == 99:
                failure = RequestFailure("timeout", "no answer")
                recorder.fail(*moments, failure, spans_ns={"gap": [9 * MS]})
            else:
                recorder.add_with_spans(*moments, 1, {"gap": [3 * MS, 7 * MS]})
        slices = tuple(recorder.take())
    return [LoadProgress(2_000 * MS, 2_000 * MS, slices, 0.1, SparseHistogram(), 1)]


@pytest.fixture
def load(tmp_path: Path) -> LoadResult:
    """What the parent knows after the reports have gone over the wire."""
    collector = Collector([0], 0, SLICE_NS)
    for report in recorded(tmp_path / "records.parquet"):
        answer = ANSWERS.validate_json(ANSWERS.dump_json(report))
        assert isinstance(answer, LoadProgress)
        collector.add(0, answer)
    return LoadResult(
        0, SLICE_NS / 1e9, tuple(collector.complete()), 1_000 * MS, 2_000 * MS,
        collector.health(0, 2_000 * MS),
    )  # fmt: skip


@pytest.fixture
def begun() -> BegunTrial:
    workload = Workload(WireProtocol.GRPC, 1, 2, 1.0, 1.0, seed=1)
    return BegunTrial(Trial("student", "topics", ServingConfig(), workload), "ab", "2026-01-01")


@pytest.fixture
def result(load: LoadResult, begun: BegunTrial) -> TrialResult:
    clients = client_side(load.window, load.slice_s, begun.trial.workload, 0.95)
    return assess_trial(begun, SLO, clients, generators=generator_side(load)).result


def test_it_is_in_each_slice_apart_by_outcome(load: LoadResult) -> None:
    assert load.slices[0].ok.of("gap") == of_ms(3, 3, 3, 3, 3, 7, 7, 7, 7, 7)
    assert load.slices[0].failed.of("gap") == SparseHistogram()
    last = load.slices[-1]
    assert (last.ok.of("gap"), last.failed.of("gap")) == (of_ms(3, 3, 3, 3, 7, 7, 7, 7), of_ms(9))
    assert [*last.ok.names()] == MEASURED_SPANS


def test_the_other_spans_are_what_they_would_be_without_it(load: LoadResult) -> None:
    assert load.slices[0].ok.response == of_ms(20, 20, 20, 20, 20)
    assert load.completed == 99


def test_it_has_a_summary_with_bounds_in_the_result_and_survives_the_journal(
    result: TrialResult, tmp_path: Path
) -> None:
    gap = result.latencies["gap"]
    assert gap.count == 2 * result.requests == 198
    assert gap.mean_ms == pytest.approx(5, rel=1e-3)
    assert gap.percentiles["p50"].value_ms == pytest.approx(3, rel=1e-3)
    p95 = gap.percentiles["p95"]
    assert p95.value_ms == pytest.approx(7, rel=1e-3)
    assert p95.low_ms <= p95.value_ms <= p95.high_ms
    assert result.latency_ms("gap", "p95") == p95.value_ms
    assert result.latency is result.latencies["response"]
    with RunFolder.create(tmp_path / "run", {"schema_version": 1}) as folder:
        folder.journal.add(result)
    assert read_run(tmp_path / "run").trials == (result,)


def test_it_is_in_the_histograms_file_by_phase_and_outcome(
    load: LoadResult, begun: BegunTrial, tmp_path: Path
) -> None:
    with RunFolder.create(tmp_path / "run", {"schema_version": 1}) as folder:
        write_load(folder, begun.trial, load)
    written = tmp_path / "run" / "histograms" / f"{begun.trial.trial_id}.json"
    phases = json.loads(written.read_text(encoding="utf-8"))
    assert hdr.decode(phases["measured"]["ok"]["gap"]) == of_ms(*[3] * 99, *[7] * 99)
    assert hdr.decode(phases["warmup"]["failed"]["gap"]) == of_ms(9)
    assert {*phases["measured"]["ok"]} == {*MEASURED_SPANS}


def test_its_values_stand_in_the_records_by_request(load: LoadResult, tmp_path: Path) -> None:
    written = pq.read_table(tmp_path / "records.parquet").to_pylist()
    assert sum(one["status"] == "ok" for one in written) == 198
    assert all(
        one["gap_ns"] == ([3 * MS, 7 * MS] if one["status"] == "ok" else [9 * MS])
        for one in written
    )


def test_it_is_exposed(load: LoadResult, begun: BegunTrial) -> None:
    monitor = LoadMonitor()
    monitor.begin_trial(begun.trial, SLO)
    monitor.add(load.slices)
    families = text_string_to_metric_families(exposition_of(monitor))
    family = next(one for one in families if one.name == GAP.exposed_as)
    assert (family.type, family.documentation) == ("histogram", GAP.meaning)
    values = {
        one.name.removeprefix(GAP.exposed_as) + one.labels.get("le", ""): one.value
        for one in family.samples
    }
    assert values["_count"] == 2 * 198
    assert values["_sum"] == pytest.approx(198 * 0.010, rel=1e-3)
    assert values["_bucket0.004"] == 198
    labels = labels_of("student", begun.trial.workload)
    assert family.samples[0].labels["variant"] == labels.variant


def test_an_objective_may_bound_it_and_its_events_are_its_values(
    load: LoadResult, begun: BegunTrial
) -> None:
    slo = parse_objective("p95 < 50 ms, gap_p95 < 5 ms")
    clients = client_side(load.window, load.slice_s, begun.trial.workload, 0.95, only_judged=True)
    judged = assess_trial(begun, slo, clients)
    assert (judged.decision, judged.cause) == (Decision.FAIL, "latency")
    assert judged.reason.startswith("gap between parts p95 7.00 ms")
    monitor = LoadMonitor()
    monitor.begin_trial(begun.trial, slo)
    monitor.add(load.slices)
    ((_, totals),) = monitor.loads.items()
    counted = {one.text: (totals.events[one], totals.bad_events[one]) for one in totals.events}
    assert counted == {"p95 < 50 ms": (198, 0), "gap_p95 < 5 ms": (396, 198)}


def test_it_is_a_row_of_the_report_and_a_column_of_the_terminal(result: TrialResult) -> None:
    rows = {row[0].text: row for row in spans_table(result).rows}
    assert [*rows] == [SPANS[name].title for name in MEASURED_SPANS]
    assert [cell.text for cell in rows["gap between parts"][1:4]] == ["5.00", "3.00", "7.00"]
    assert rows["gap between parts"][0].detail == GAP.meaning
    stream = io.StringIO()
    Console(file=stream, width=120, color_system=None).print(trial_table(result))
    lines = stream.getvalue().splitlines()
    assert next(one for one in lines if "Latency, ms" in one).endswith("gap between parts")
    assert next(one for one in lines if one.startswith("p95")).rstrip().endswith("7.00")


def test_it_is_in_the_tidy_table(result: TrialResult) -> None:
    table = trials_table((result,), ())
    (row,) = csv.DictReader(io.StringIO(table.to_csv(index=False)))
    assert float(row["gap_p95_ms"]) == pytest.approx(7, rel=1e-3)
    assert float(row["service_p90_ms"]) == pytest.approx(20, rel=1e-3)


def test_it_is_in_the_series_second_by_second(load: LoadResult) -> None:
    warmup, measured = series_rows(load)
    assert (warmup["phase"], measured["phase"]) == ("warm-up", "measured")
    assert measured["p95_ms"] == measured["service_p95_ms"] == pytest.approx(20, rel=1e-3)
    gap = [measured[f"gap_{name}_ms"] for name in ("p50", "p95", "p99")]
    assert gap == [pytest.approx(value, rel=1e-3) for value in (3, 7, 7)]


def test_it_is_a_row_of_locusts_page(load: LoadResult) -> None:
    results = Results("t")
    results.begin(MEASURED, 0.0)
    at_ns = 2_000 * MS
    told = LoadProgress(at_ns, at_ns, load.slices, 0.1, SparseHistogram(), 1, load="t")
    results.add("w", told)
    rows = [one for one in latency_rows(results, 10.0) if one["window"] == "whole test"]
    assert [one["latency"] for one in rows] == [SPANS[name].title for name in MEASURED_SPANS]
    gap = rows[-1]
    assert (gap["count"], gap["p50"], gap["p95"]) == (2 * 198, "3.00", "7.00")


def test_a_span_between_two_moments_needs_no_values_and_takes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SPANS, TO_THE_END.name, TO_THE_END)
    recorder = Recorder(0, SLICE_NS)
    recorder.add(0, 2 * MS, 7 * MS, 1)
    (only,) = recorder.take()
    assert only.ok.of("last_leg") == of_ms(5)
    with pytest.raises(KeyError):
        recorder.add_with_spans(0, 0, 0, 1, {"last_leg": [1]})
    with pytest.raises(KeyError):
        recorder.fail(0, 0, 0, RequestFailure("timeout", ""), spans_ns={"nobody_knows": [1]})
    assert recorder.take() == []


def test_a_span_that_no_request_has_is_nowhere(tmp_path: Path) -> None:
    recorder = Recorder(0, SLICE_NS)
    recorder.add(0, 0, MS, 1)
    (only,) = recorder.take()
    assert "gap" not in only.ok.spans
    monitor = LoadMonitor()
    assert GAP.exposed_as not in exposition_of(monitor)
