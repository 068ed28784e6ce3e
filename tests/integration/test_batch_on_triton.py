"""`harness batch RUN --measure` on the real server: batches are executed as they are asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cli.main import run_command
from harness.flow.offline import walk
from harness.profiling.scaling import WalkTerms
from harness.runs.documents import read_document
from harness.runs.folder import read_run
from harness.types.offline import CurveSource, OfflinePlan

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment")]

JOB = ["--documents", "1M", "--deadline", "6h", "--start-time", "1s"]
SLO = ["--slo", "accuracy >= 70% of teacher"]


@pytest.fixture
def run(routed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(routed / "scored", folder)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("undisturbed")
def test_a_scored_run_is_measured_and_counted_with(
    run: Path, routed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few and small rounds: how fast it is does not matter here."""
    monkeypatch.setattr(walk, "SERVED", WalkTerms(looks=(3,), largest_batch=2))
    monkeypatch.setattr(walk, "WINDOW_S", 0.6)
    named = ["--measure", "--variant", "fair-fp32"]
    named += ["--repository", str(routed / "repository")]
    assert run_command(["batch", str(run), *JOB, *SLO]) == 2
    assert "--measure --variant" in " ".join(capsys.readouterr().err.split())
    assert run_command(["batch", str(run), *JOB, *SLO, *named]) == 0
    stored = read_run(run)
    assert stored.batches
    assert not stored.trials
    for one in stored.batches:
        asked = one.trial.workload.client_batch_size
        assert one.trial.serving.max_batch_size == asked
        assert set(one.server.batch_sizes) == {asked}
    plan = read_document(run, "batch", OfflinePlan)
    assert plan is not None
    (found,) = plan.variants
    assert found.served.source is CurveSource.WALK
    assert found.in_process is not None
    assert found.in_process.source is CurveSource.PROCESS
    assert found.in_process.at(1) is not None
    assert plan.choices[0].variant == "fair-fp32"
    capsys.readouterr()
    assert run_command(["batch", str(run), *JOB, *SLO]) == 0
    assert len(read_run(run).batches) == len(stored.batches)
