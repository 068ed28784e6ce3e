"""A run folder as it was written before spans were a keyed set is read, and reported, as it was.

`tests/former_run` was written by revision 43f05e2: a closed loop, and an open one that failed and
dropped requests.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness import hdr
from harness.cli.report import report
from harness.report.tables.trust import spans_table, trust_table
from harness.runs.folder import StoredRun, read_run
from harness.runs.tables import trials_table
from harness.types import RESPONSE, SCHEDULE_DELAY, SERVICE, Decision, Percentile
from tests.stored_records import histogram_of_records

FORMER = Path(__file__).parents[1] / "former_run"
CLOSED = "topics-student-fp32--mb16-qd0-i1-t1--grpc-b2-c4"
OPEN = "topics-student-fp32--mb16-qd0-i1-t1--http-b1-r400-poisson"


@pytest.fixture(scope="module")
def run() -> StoredRun:
    return read_run(FORMER)


def test_its_trials_are_read_with_all_their_values(run: StoredRun) -> None:
    closed, opened = run.trials
    assert (closed.trial.trial_id, opened.trial.trial_id) == (CLOSED, OPEN)
    assert (closed.requests, closed.decision) == (400, Decision.PASS)
    assert (opened.requests, opened.failures, opened.dropped) == (387, 8, 5)
    assert (opened.decision, opened.failures_by_kind) == (Decision.FAIL, {"timeout": 8})
    assert closed.latency is closed.latencies[RESPONSE]
    assert closed.latency.percentiles["p95"] == Percentile(11.199, 10.591, 12.175)
    assert closed.latency_ms(RESPONSE, "p95") == 11.199
    known = {name: closed.latency_ms(SERVICE, name) for name in ("p50", "p90", "p95", "p99")}
    assert known == {"p50": 7.815, "p90": None, "p95": 11.047, "p99": 13.159}
    assert (closed.latency_ms(SCHEDULE_DELAY, "p99"), closed.client_ms) == (
        0.443,
        pytest.approx(8.1407 - 5.2, abs=1e-3),
    )


def test_what_had_no_interval_then_has_none_now(run: StoredRun) -> None:
    closed = run.trials[0]
    assert [*closed.latencies] == [RESPONSE]
    rows = {row[0].text: row for row in spans_table(closed).rows}
    assert [cell.text for cell in rows["service"][1:]] == [
        "\u2013",
        "7.82",
        "\u2013",
        "11.0",
        "13.2",
    ]
    assert not any(cell.detail for cell in rows["service"][1:])
    assert [cell.text for cell in rows["schedule delay"][1:]] == [*["\u2013"] * 4, "0.443"]
    evidence = {row[0].text: row[1].text for row in trust_table(closed).rows}
    assert evidence["Schedule delay (sent after due), p99"] == "0.443 ms"


def test_its_tables_have_the_same_numbers(run: StoredRun) -> None:
    row = trials_table(run.trials, run.variants).iloc[0]
    assert row["latency_p95_ms"] == 11.199
    assert [row[f"service_{name}_ms"] for name in ("p50", "p95", "p99")] == [7.815, 11.047, 13.159]
    assert row["schedule_delay_p99_ms"] == 0.443


def test_its_histograms_series_and_records_are_read(run: StoredRun) -> None:
    text = (FORMER / "histograms" / f"{CLOSED}.json").read_text(encoding="utf-8")
    measured = json.loads(text)["measured"]["ok"]
    found = {name: hdr.decode(encoded) for name, encoded in measured.items()}
    assert {name: hdr.total(one) for name, one in found.items()} == dict.fromkeys(
        (RESPONSE, SERVICE, SCHEDULE_DELAY), 400
    )
    assert hdr.value_at(found[SERVICE], 0.95) == 11.047
    assert run.series[CLOSED].warmup_s == 0.5
    assert [one.p95_ms for one in run.series[CLOSED].measured] == [11.199]
    assert hdr.total(histogram_of_records(FORMER / "records" / CLOSED)) == 600


def test_it_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(FORMER, folder)
    report(folder)  # as the command does
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Latency by span" in page
    assert "11.2" in page
    assert (folder / "trials.csv").is_file()
