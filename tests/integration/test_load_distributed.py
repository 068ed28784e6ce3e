"""Locust's master and workers, as separate processes: nothing is lost, nothing counted twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_server import Behaviour, FakeServer, constant
from locust_command import end, read, response_of
from locust_fleet import Fleet, master_that_waits, plan, wait_until_all_have_told

from harness import hdr
from tests.ports import free_port


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.02))) as made:
        yield made


@pytest.mark.slow
def test_a_killed_worker_is_named_and_what_it_reported_stays(
    server: FakeServer, tmp_path: Path
) -> None:
    records, metrics = tmp_path / "records", free_port()
    arguments = plan(
        server, tmp_path, "--users", "4", "--spawn-rate", "4", "--records", str(records),
        "--metrics-port", str(metrics),
    )  # fmt: skip
    fleet = Fleet(
        tmp_path, *arguments, worker_cwd=tmp_path,
        masters_locustfile=master_that_waits(tmp_path, seconds=1.0),
    )  # fmt: skip
    try:
        wait_until_all_have_told(server, metrics)
        fleet.workers[0].send_signal(signal.SIGKILL)
        fleet.wait_until_said("is gone; the test goes on")
    except BaseException:
        end(fleet.master, *fleet.workers)
        raise
    before = len(server.served)
    assert fleet.end_when(lambda: len(server.served) > before + 50) == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    assert sorted(worker["lost"] for worker in document["workers"]) == [False, True]
    assert any("was lost" in warning for warning in document["warnings"])
    (survivors,) = records.glob("*.parquet")
    told = hdr.total(response_of(document))
    assert pq.read_metadata(survivors).num_rows < told <= len(server.served)


def test_a_worker_needs_no_files_of_its_own(server: FakeServer, tmp_path: Path) -> None:
    """What is sent, and where, comes from the master."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fleet = Fleet(tmp_path, *plan(server, tmp_path, "--users", "2"), worker_cwd=elsewhere)
    assert fleet.end_when(lambda: len(server.served) > 100) == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    assert hdr.total(response_of(document)) == len(server.served)
    assert list(elsewhere.iterdir()) == []
