"""The benchmark `server_overhead` runs and writes its rows; how fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.serving.embedded.environment import ServerEnvironment
from tests.held_up import PATIENCE_S

pytestmark = [pytest.mark.triton, pytest.mark.slow]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "server_overhead.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_rows_are_written(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path
):
    options = ["--repository", str(tiny_repository), "--model", "tiny", "--json"]
    done = run(*options, str(tmp_path / "rows.json"), "--rounds=1", "--seconds=0.2", "--tokens=8")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["client_batch_size"] for row in rows] == [16, 1]
    for row in rows:
        assert (row["model"], row["batch"], row["threads"]) == ("tiny", 16, 1)
        assert row["ratio"] == pytest.approx(
            row["served_inferences_per_s"] / row["bare_inferences_per_s"]
        )
        assert 1 <= row["executed_batch_mean"] <= 16
    assert rows[0]["executed_batch_mean"] == 16
    assert "tiny" in done.stdout


def test_missing_models_are_named(tmp_path: Path, server_environment: ServerEnvironment):
    done = run("--repository", str(tmp_path), "--model", "nowhere")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "harness export studies/reference.yaml" in done.stderr
