"""Locust's master and workers, as separate processes: nothing is lost, nothing counted twice."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_server import Behaviour, FakeServer, constant
from locust_command import end, read, response_of
from locust_fleet import WORKERS, Fleet, plan, wait_until_served

from harness import hdr
from harness.load.records.requests import histogram_of_records


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.02))) as made:
        yield made


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_masters_histogram_is_the_union_of_all_requests(
    server: FakeServer, tmp_path: Path, protocol: str
) -> None:
    records = tmp_path / "records"
    arguments = plan(
        server, tmp_path, "--records", str(records), "--users", "5", "--spawn-rate", "5",
        "--run-time", "4s", protocol=protocol,
    )  # fmt: skip
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path)
    assert fleet.wait() == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    merged = response_of(document)
    assert merged == histogram_of_records(records)
    assert hdr.total(merged) == len(server.served) > 100
    assert len(list(records.glob("*.parquet"))) == WORKERS
    assert len(document["workers"]) == WORKERS
    assert f" {len(server.served)} " in fleet.said()  # Locust's own table


def test_an_open_loop_is_split_over_the_workers_exactly(server: FakeServer, tmp_path: Path) -> None:
    records = tmp_path / "records"
    arguments = plan(
        server, tmp_path, "--records", str(records), "--rate", "100", "--run-time", "4s",
        "--arrivals", "constant", "--users", "1",
    )  # fmt: skip
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path)
    assert fleet.wait() == 0, fleet.said()
    parts = [pq.read_table(file) for file in sorted(records.glob("*.parquet"))]
    for part in parts:
        gaps_ms = [
            (later - sooner) / 1e6
            for sooner, later in zip(
                part["scheduled_ns"].to_pylist()[:-1], part["scheduled_ns"].to_pylist()[1:],
                strict=True,
            )
        ]  # fmt: skip
        assert all(abs(abs(gap) - 20) < 1e-3 or gap % 20 < 1e-3 for gap in gaps_ms)
    rows = [part.num_rows for part in parts]
    assert rows == [200, 200]
    merged = response_of(read(tmp_path / "histograms.json"))
    assert merged == histogram_of_records(records)
    assert hdr.total(merged) == len(server.served) == sum(rows)


def test_a_killed_worker_is_named_and_what_it_reported_stays(
    server: FakeServer, tmp_path: Path
) -> None:
    arguments = plan(server, tmp_path, "--users", "4", "--spawn-rate", "4", "--run-time", "14s")
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path)
    try:
        wait_until_served(server, 1)
        time.sleep(5)  # Locust's workers report every 3 s
        fleet.workers[0].send_signal(signal.SIGKILL)
        fleet.wait_until_said("is gone; the test goes on")
    except BaseException:
        end(fleet.master, *fleet.workers)
        raise
    assert fleet.wait() == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    assert sorted(worker["lost"] for worker in document["workers"]) == [False, True]
    assert any("was lost" in warning for warning in document["warnings"])
    assert 100 < hdr.total(response_of(document)) <= len(server.served)


def test_a_worker_that_lacks_the_payloads_ends_the_test_with_exit_2(
    server: FakeServer, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = plan(server, tmp_path, "--users", "2", "--run-time", "20s")
    fleet = Fleet(tmp_path, *arguments, worker_cwd=elsewhere)
    assert fleet.wait() == 2, fleet.said()
    assert "payloads.npz: not a payload file" in fleet.said()
    assert "worker " in fleet.said()
    assert not server.served


def test_processes_are_gone_after_ctrl_c_on_the_master(server: FakeServer, tmp_path: Path) -> None:
    arguments = plan(server, tmp_path, "--users", "2", "--run-time", "60s")
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path)
    try:
        fleet.wait_until_said("Shape test updating to 2 users")
        wait_until_served(server, 20)
        fleet.master.send_signal(signal.SIGINT)
        assert fleet.master.wait(30) in {0, 1}
        for worker in fleet.workers:
            worker.wait(20)
    except subprocess.TimeoutExpired:
        pytest.fail(fleet.said())
    finally:
        end(fleet.master, *fleet.workers)
    assert hdr.total(response_of(read(tmp_path / "histograms.json"))) == len(server.served) > 0
