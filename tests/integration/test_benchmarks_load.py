"""The benchmarks of the load engine run and write their rows; how fast it is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import hdr
from harness.load.engine.recorder import Recorder
from harness.load.records.requests import RecordWriter
from harness.serving.embedded.environment import ServerEnvironment
from harness.types import LoadResult

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from fidelity import RATE_PER_S
from latency_cases import STEADY_CASES
from request_errors import request_errors
from scale_out import merged_equals_union

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LIMIT_S = 540
"""For a benchmark that ends by itself, in half a minute on a machine of its own."""


def rows_of(benchmark: str, tmp_path: Path, *options: str) -> list[dict[str, Any]]:
    rows = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARKS / benchmark), "--quick", "--json", str(rows)]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    print(done.stderr)  # noqa: T201  (who was skipped, and why: shown where a test fails)
    assert done.returncode == 0, done.stderr
    return json.loads(rows.read_text())


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_generator_capacity(server_environment: ServerEnvironment, tmp_path: Path, protocol: str):
    grpcio = ["harness-grpcio"] if protocol == "grpc" else []
    clients = ["harness-locust", *grpcio, "harness", "locust-tritonclient"]
    rows = rows_of(
        "generator_capacity.py", tmp_path, "--protocols", protocol, "--clients", *clients
    )
    assert [row["client"] for row in rows] == clients
    for row in rows:
        assert (row["protocol"], row["in_flight"]) == (protocol, 16)
        # A core gives 1e6 us of processor time a second; the client has two at most here.
        assert 0 < row["requests_per_s"] * row["cpu_us_per_request"] < 4e6
        assert 0 <= row["latency_p50_ms"] <= row["latency_p99_ms"]


@pytest.mark.slow
@pytest.mark.triton
def test_scale_out(server_environment: ServerEnvironment, tmp_path: Path):
    size, *truths = rows_of("scale_out.py", tmp_path, "--simulated", "3", "--workers", "1", "2")
    assert (size["workers"], size["requests_lost"]) == (3, 0)
    assert [(one["workers"], one["merged_equals_union"]) for one in truths] == [
        (1, True), (2, True),
    ]  # fmt: skip
    # Of the load as a whole: a machine that works for others may give none in the window of 1 s.
    assert all(one["requests"] > 0 for one in truths)


@pytest.mark.slow
@pytest.mark.triton
def test_soak(server_environment: ServerEnvironment, tmp_path: Path):
    # At half of the most, a machine that stalls for 60 ms fills the bound of requests in flight.
    rows = rows_of("soak.py", tmp_path, "--load-share", "0.05")
    assert [row["minute"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["failures"] == 0
        assert row["requests_per_s"] > 0
        assert row["harness_rss_mib"] > 10
        assert row["workers_rss_mib"] > 10


@pytest.mark.slow
def test_a_stall_is_seen_by_the_open_loop_alone(tmp_path: Path):
    rows = rows_of("fidelity.py", tmp_path, "--parts", "stall")
    found = {(row["client"], row["protocol"], row["percentile"]): row for row in rows}
    for protocol in ("http", "grpc"):
        ours = found["harness-locust", protocol, "p99"]
        # The stall is 200 ms; theory gives 182 ms, a busy machine some more. Requests at equal
        # distances may all fall due up to one distance after the instants that theory has.
        assert ours["truth_ms"] - 1000 / RATE_PER_S < ours["answered_ms"]
        # So said the server of itself, and who waits for an answer waits at least as long.
        assert ours["answered_ms"] <= ours["recovered_ms"] < 2 * ours["answered_ms"]
        # Of a closed loop's four requests in flight each stall meets those alone: one in twenty, as
        # here of the open loop's, would be 60 requests a second and fewer.
        open_ms, closed_ms = (
            found[client, protocol, "p95"]["recovered_ms"]
            for client in ("harness-locust", "harness-locust-closed")
        )
        assert closed_ms < open_ms


@pytest.mark.slow
@pytest.mark.parametrize("cases", [["lognormal"], STEADY_CASES], ids=["one", "all"])
def test_every_request_is_found_in_the_servers_own_log_by_its_id(
    tmp_path: Path, cases: Sequence[str]
):
    written = rows_of("fidelity.py", tmp_path, "--parts", "known", "--cases", *cases)
    rows = [row for row in written if "joined" in row]
    assert {(row["case"], row["protocol"]) for row in rows} == {
        (case, protocol) for case in cases for protocol in ("http", "grpc")
    }
    for row in rows:
        assert row["requests"] > 0
        assert row["joined"] == row["requests"]
        # Whoever waits for an answer waits at least as long as the server took over it.
        assert row["median_error_us"] is None or row["median_error_us"] > 0


def test_errors_are_of_the_same_request_and_leave_out_what_stood_still(tmp_path: Path):
    ids = [b"%024d" % number for number in range(4)]
    with RecordWriter(tmp_path / "worker-0.parquet") as writer:
        recorder = Recorder(0, 50_000_000, listeners=[writer.add], keep_ids=True)
        for number, identity in enumerate(ids):
            sent_ns = number * 10_000_000
            recorder.add(sent_ns, sent_ns, sent_ns + 5_000_000 + 1_000 * (number + 1), 1, identity)
        recorder.take()
    # Of another order, and the last is unknown to the server.
    truth = {ids[n].decode(): (n * 10_000_000, n * 10_000_000 + 5_000_000) for n in (2, 0, 1)}
    errors = request_errors(tmp_path, truth, [(24_000_000, 25_000_000)])
    assert (errors.requests, errors.joined, errors.quiet) == (4, 3, 2)
    assert (errors.median_us, errors.worst_us) == (1.5, 2.0)
    assert not errors.recovered


def recorded(tmp_path: Path) -> LoadResult:
    """A load of 100 requests, its slices, and its records in a file."""
    slice_ns = 50_000_000
    writer = RecordWriter(tmp_path / "records" / "worker-0.parquet")
    recorder = Recorder(0, slice_ns, listeners=[writer.add])
    for number in range(100):
        scheduled_ns = number * 1_000_000
        recorder.add(scheduled_ns, scheduled_ns + 5_000, scheduled_ns + 5_000 + 1000 * number, 1)
    slices = tuple(recorder.take())
    assert writer.close() == ""
    end_ns = 2 * slice_ns
    return LoadResult(0, slice_ns / 1e9, slices, 0, end_ns, generators=())


def test_equality_of_merged_and_union_is_no_formality(tmp_path: Path):
    result = recorded(tmp_path)
    folder = tmp_path / "records"
    assert hdr.total(hdr.merge(one.ok.response for one in result.slices)) == 100
    assert merged_equals_union(result, folder)
    table = pq.read_table(folder / "worker-0.parquet")
    pq.write_table(table.slice(1), folder / "worker-0.parquet")
    assert not merged_equals_union(result, folder)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), folder / "worker-0.parquet")
    assert not merged_equals_union(result, folder)
