"""A live scaler on real servers: killed, it leaves none behind, and goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import endpoint_models
import numpy as np
import pytest
from load_rig import environment
from prometheus_process import PATIENCE_S, wait_until

from harness.errors import ServerError
from harness.export.convert import artefact_files
from harness.export.folders import digest_files
from harness.flow.live_scaling import LIVE, arrivals_of
from harness.load.requests.payloads import REPOSITORY_FILE, write_payloads
from harness.runs.documents import read_document
from harness.runs.folder import RunFolder
from harness.serving.embedded.environment import ServerEnvironment
from harness.types import ServingConfig
from harness.types.autoscaling import AutoscalePlan, LiveState
from tests.server_processes import servers_on
from tests.simulated_server import SimulatedServer, measure

pytestmark = [pytest.mark.triton, pytest.mark.slow]

LENGTH_S = 60
MANIFEST = {
    "schema_version": 1,
    "study_digest": "",
    "artefacts": {},
    "seeds": {"study": 4},
    "study": {"name": "s", "objective": "p95 < 300 ms", "families": [{"name": "family"}]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of the tiny classifier whose trials say that a replica carries 25 requests/s."""
    variant = endpoint_models.classifier(tmp_path / "repository")
    ids = np.arange(320, dtype=np.int64).reshape(40, 8) % 50
    tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    write_payloads(variant.path / REPOSITORY_FILE, [tensors])
    sha256 = digest_files(artefact_files(variant.path / "1" / "model.onnx"))
    serving = ServingConfig(1)
    with RunFolder.create(tmp_path / "run", MANIFEST) as run:
        run.journal.add(replace(variant, sha256=sha256, family="family"))
        for clients in (1, 2, 4):
            server = SimulatedServer(serving, lambda *_: 0.04)
            one = measure(server, seed=clients, clients=clients, requests=400, variant=variant.name)
            run.journal.add(replace(one, sha256=sha256))
    # Six of eight parts want two replicas: 45 s, of which the second may take most to start.
    rates = "".join(f"{10 * n},{rate}\n" for n, rate in enumerate([10] + [45] * 6 + [10]))
    (tmp_path / "rates.csv").write_text(f"timestamp_s,rps\n{rates}")
    return tmp_path / "run"


def command(folder: Path, *arguments: str) -> list[str]:
    repository = ["--repository", str(folder.parent / "repository")]
    return [sys.executable, "-m", "harness", "autoscale", str(folder), *arguments, *repository]


def begin_live(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A live run over the trace beside the folder."""
    trace = ("--trace", str(folder.parent / "rates.csv"), "--live", f"{LENGTH_S}s")
    return subprocess.Popen(
        command(folder, *trace, "--start-time", "3s", "--own-machines", *more),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip


def servers(folder: Path) -> list[int]:
    return servers_on(folder.parent / "repository")


def test_a_live_run_that_is_killed_leaves_no_replica_and_goes_on(
    server_environment: ServerEnvironment, folder: Path
) -> None:
    begun = begin_live(folder, "--down-stabilization", "5s")

    def scaled() -> LiveState | None:
        assert begun.poll() is None, begun.stderr and begun.stderr.read()
        state = read_document(folder, LIVE, LiveState)
        return state if state and state.steps and state.steps[-1].ready >= 2 else None

    try:
        killed = wait_until(scaled, lambda: "it never had two replicas")
        assert len(servers(folder)) >= 2
    finally:
        begun.send_signal(signal.SIGKILL)
        begun.wait(60)
    wait_until(lambda: not servers(folder), lambda: f"left behind: {servers(folder)}")

    done = subprocess.run(
        command(folder, "--resume", "--json"),
        capture_output=True, text=True, env=environment(), timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not servers(folder)
    state = read_document(folder, LIVE, LiveState)
    plan = read_document(folder, "autoscale", AutoscalePlan)
    assert (state.finished, state.resumed) == (True, 1)
    assert state.steps[: len(killed.steps)] == killed.steps
    live = plan.live
    assert json.loads(done.stdout)["live"]["requests"] == live.requests
    # Every arrival counts once, but for the last second, which the load leaves out.
    due_s = arrivals_of(plan.trace, plan.seed)
    last = killed.steps[-1]
    assert 0 < last.requests == int((due_s < last.counted_s).sum())
    assert len(due_s[due_s < due_s[-1] - 2.0]) <= live.requests <= len(due_s)
    assert live.failed == 0
    assert live.scalings >= 1
    assert live.most_replicas >= 2
    assert "on real replicas, and as it was predicted" in (folder / "report.html").read_text()

    again = subprocess.run(
        command(folder, "--resume"), capture_output=True, text=True, env=environment(), timeout=400,
        check=False,
    )  # fmt: skip
    assert again.returncode == 2
    assert "no live run that was interrupted" in again.stderr


def test_a_replica_that_is_killed_ends_the_run_with_an_error(
    server_environment: ServerEnvironment, folder: Path
) -> None:
    """The balancer would send the dead one nearly everything; nothing of that is a measurement."""
    begun = begin_live(folder, "--min-replicas", "2")

    def serving() -> LiveState | None:
        assert begun.poll() is None, begun.stderr and begun.stderr.read()
        state = read_document(folder, LIVE, LiveState)
        return state if state and state.steps else None

    try:
        first = wait_until(serving, lambda: "its load never began").steps[0]
        assert (first.at_s, first.ordered, first.ready) == (0.0, 2, 2)
        os.kill(servers(folder)[-1], signal.SIGKILL)
        _, said = begun.communicate(timeout=PATIENCE_S)
    finally:
        begun.kill()
        begun.wait(60)
    assert begun.returncode == ServerError.exit_code
    assert "Triton ended" in said
    assert not servers(folder)
    assert read_document(folder, "autoscale", AutoscalePlan) is None
