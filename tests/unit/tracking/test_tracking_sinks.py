"""A run sent to the real wandb (offline) and the real MLflow (a local store)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.main import run_command
from harness.errors import EnvironmentFailure, UsageError
from harness.flow.manifest import bare_manifest
from harness.flow.run import write_results
from harness.runs.folder import RunFolder
from harness.runs.journal import QualityEntry
from harness.tracking.record import record_of, track
from harness.tracking.trackers import Tracker, check_trackers
from tests.sample_run import sample_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of two families on disk."""
    run = sample_run()
    path = tmp_path / "runs" / "sample"
    manifest = {**bare_manifest("sample", 1), "study": dict(run.manifest["study"])}
    with RunFolder.create(path, manifest) as made:
        for variant in run.variants:
            made.journal.add(variant)
        for variant in {score.variant: score.sha256 for score in run.scores}.items():
            own = tuple(score for score in run.scores if score.variant == variant[0])
            made.journal.add(QualityEntry(*variant, own))
        for trial in run.trials:
            made.journal.add(trial)
        made.write_verdicts(run.verdicts)
    write_results(path)
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "mlruns"


def test_a_record_holds_verdict_latencies_quality_and_study(folder: Path) -> None:
    record = record_of(folder)

    run = sample_run()
    assert record.tags["decision"] == str(run.decision)
    for verdict in run.verdicts:
        assert record.tags[f"{verdict.family}.objective"] == verdict.slo
    best = next(v for v in run.verdicts if v.recommended)
    trial = next(t for t in run.trials if t.trial.trial_id == best.recommended)
    place = f"{best.family}/recommended"
    assert record.metrics[f"{place}/throughput_inferences_per_s"] == (
        trial.throughput_inferences_per_s
    )
    assert record.metrics[f"{place}/latency_p95_ms"] == trial.latency.percentiles["p95"].value_ms
    score = run.scores[0]
    assert record.metrics[f"quality/{score.variant}/{score.metric}"] == score.value
    assert len(list(record.trial_metrics())) == len(record.trials) == len(run.trials)
    assert {file.name for file in record.artefacts} >= {"report.html", "verdict.json"}
    assert record.identity == record_of(folder).identity


def test_mlflow_holds_the_run_once_however_often_it_is_told(folder: Path, offline: Path) -> None:
    import mlflow

    track(folder, Tracker.MLFLOW)
    track(folder, Tracker.MLFLOW)

    record = record_of(folder)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(record.study)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["decision"] == record.tags["decision"]
    assert run.data.params.keys() == record.parameters.keys()
    name, value = next(iter(record.metrics.items()))
    assert run.data.metrics[name] == value
    steps = client.get_metric_history(run.info.run_id, "trial/throughput_inferences_per_s")
    assert len(steps) == len(record.trials)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {
        "report.html", "verdict.json", "tables",
    }  # fmt: skip


BLOCK_BYTES, HEADER_BYTES = 32 * 1024, 7
"""Of LevelDB's log format, in which W&B keeps its records: what does not fit into a block goes on
in the next, behind a header of its own (checksum, length, type)."""


def joined(file: bytes) -> bytes:
    """The records of a W&B file, without what lies between them and inside of them."""
    payload, at = bytearray(), HEADER_BYTES  # the file begins with a header too
    while at + HEADER_BYTES <= len(file):
        if at % BLOCK_BYTES > BLOCK_BYTES - HEADER_BYTES:
            at += -at % BLOCK_BYTES  # no room for a header: padding
            continue
        length = int.from_bytes(file[at + 4 : at + 6], "little")
        payload += file[at + HEADER_BYTES : at + HEADER_BYTES + length]
        at += HEADER_BYTES + length
    return bytes(payload)


def test_wandb_off_line_holds_history_tables_and_report(folder: Path, offline: Path) -> None:
    track(folder, Tracker.WANDB)

    record = record_of(folder)
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    told = joined(file.read_bytes())  # protobuf, uncompressed: names and values as they are
    assert told.count(b"trial/throughput_inferences_per_s") >= len(record.trials)
    assert b"/recommended/latency_p95_ms" in told
    assert record.study.encode() in told
    assert b"report.html" in told
    tables = [path.name for path in folder.glob("wandb/offline-run-*/files/media/table/*.json")]
    assert {name.partition("_")[0] for name in tables} == {"trials", "quality"}


def test_a_tracker_that_fails_says_so_and_leaves_the_run(
    folder: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = sorted(path.name for path in folder.iterdir())

    with pytest.raises(EnvironmentFailure, match="was not sent to mlflow") as failed:
        track(folder, Tracker.MLFLOW)

    assert f"harness track {folder} --to mlflow" in failed.value.next_step
    assert sorted(path.name for path in folder.iterdir()) == before


def test_nobody_logged_in_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(UsageError, match="not logged in"):
        check_trackers([Tracker.WANDB])


def test_a_folder_that_is_no_run_is_refused(
    tmp_path: Path, offline: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["track", str(tmp_path), "--to", "mlflow"]) == 2
    assert "is not a run folder" in capfd.readouterr().err
