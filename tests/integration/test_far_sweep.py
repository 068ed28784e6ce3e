"""A study's sweep by workers on other machines: the same winner as by this one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from far_workers import PORT, TOKEN, far_workers
from net_spaces import NetSpaces, refusal
from net_wire import Link

from harness.cli.main import run_command
from harness.errors import EXIT_OK
from harness.load.generators.master_endpoint import TOKEN_VARIABLE
from harness.runs.folder import read_run
from harness.serving.embedded import server
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from tests.held_up import unhurried
from tests.local_study import write_local_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.triton,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(refusal()), reason=refusal()),
]

LINES = [(0.0025, 3), (0.02, -3), (0.01, 1), (0.0, 0)]
"""Delay each way, and the clock's shift."""


@dataclass
class Site:
    """A study, and the server that has its models, which the machines reach."""

    study: Path
    url: str
    net: NetSpaces

    def sweep(self, out: Path, *options: str) -> dict[str, Any]:
        """Its verdict."""
        command = ["sweep", str(self.study), "--url", self.url, "--search", "grid", *options]
        with unhurried():
            assert run_command([*command, "--out", str(out)]) == EXIT_OK
        verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
        return verdict


@pytest.fixture
def site(
    server_environment: ServerEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    (tmp_path / "study").mkdir()
    # One student and one client batch: which of several equal ones wins is chance.
    traffic = {"protocols": ["grpc"], "client_batch_sizes": [4], "concurrencies": [8]}
    times = {"duration_s": 2.0, "warmup_s": 0.5, "saturation_shares": []}
    study = write_local_study(tmp_path / "study", objective="p95 < 5 s", traffic=traffic | times)
    repository = tmp_path / "model_repository"
    assert run_command(["export", str(study), "--repository", str(repository)]) == EXIT_OK
    with NetSpaces() as net:
        monkeypatch.setattr(server, "_HOST", net.server_address)
        log = tmp_path / "triton.log"
        with EmbeddedTriton(server_environment, repository, log_file=log) as triton:
            yield Site(study, f"grpc://{triton.endpoint.grpc}", net)


@pytest.mark.parametrize("count", [2, 4])
def test_workers_elsewhere_name_the_winner_that_this_machine_names(
    site: Site, tmp_path: Path, count: int
) -> None:
    here = site.sweep(tmp_path / "here")
    spaces = [
        site.net.add(Link(delay_s=delay_s), clock_shift_s=shift_s)
        for delay_s, shift_s in LINES[:count]
    ]
    with far_workers(site.net, spaces, tmp_path):
        there = site.sweep(
            tmp_path / "there",
            *("--listen", f"{site.net.address}:{PORT}", "--expect-workers", str(count)),
        )
    assert here["decision"] == there["decision"] == "pass"
    assert here["recommended"]
    assert there["recommended"] == here["recommended"]
    trials = read_run(tmp_path / "there").trials
    assert all(one.failures == 0 for one in trials)
    assert any(one.trial.trial_id == there["recommended"] for one in trials)
