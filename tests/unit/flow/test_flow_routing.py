"""A router from a run folder: its rows read off the files, and `harness route` on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy
from sample_run import MANIFEST, sample_run

from harness.cli.main import run_command
from harness.errors import RunFolderError, UsageError
from harness.flow.routing import RouteRequest, read_rows, route_run
from harness.runs.documents import documents_of, read_document
from harness.runs.folder import RunFolder
from harness.types.routing import Route

STUDENT, TEACHER = "topics-student-fp32", "topics-teacher-fp32"
ROWS = 4000


def write_samples(folder: Path, variant: str, labels: np.ndarray, logits: np.ndarray) -> None:
    """A file of answers as the format is documented, by pyarrow alone."""
    unanswered = np.isnan(logits).any(axis=1)
    predictions = np.where(unanswered, -1, np.nan_to_num(logits).argmax(axis=1))
    table = pa.table(
        {
            "row": np.arange(len(labels)),
            "label": labels,
            "prediction": predictions,
            "correct": predictions == labels,
            "logits": pa.array([row.tolist() for row in logits], pa.list_(pa.float32(), 2)),
            "unanswered": unanswered,
        }
    ).replace_schema_metadata(
        {"kind": "sequence-classification", "variant": variant, "sha256": "", "label_names": "null"}
    )
    pq.write_table(table, folder / "samples" / f"{variant}.parquet")


def logits_of(confidence: np.ndarray, says: np.ndarray) -> np.ndarray:
    """Of two classes, so that the one that is said has this probability."""
    away = scipy.special.logit(confidence)
    return np.column_stack([np.where(says == 0, away, 0.0), np.where(says == 1, away, 0.0)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sure from 0.7 on, the student is right; below it is wrong. The teacher is always right."""
    path = tmp_path / "run"
    run = RunFolder.create(path, MANIFEST)
    stored = sample_run()
    for variant in stored.variants:
        run.journal.add(variant)
    for trial in stored.trials:
        run.journal.add(trial)
    run.write_verdicts(stored.verdicts)
    draws = np.random.default_rng(1)
    labels, confidence = draws.integers(0, 2, ROWS), draws.uniform(0.5, 1.0, ROWS)
    said = np.where(confidence >= 0.7, labels, 1 - labels)
    write_samples(path, STUDENT, labels, logits_of(confidence, said))
    write_samples(path, TEACHER, labels, logits_of(np.full(ROWS, 0.9), labels))
    return path


def test_rows_are_read_as_they_were_answered(folder: Path) -> None:
    rows = read_rows(folder, STUDENT, TEACHER)
    assert rows.teacher_right.all()
    assert np.array_equal(rows.student_right, rows.confidence >= 0.7)
    confidence = np.random.default_rng(1)
    confidence.integers(0, 2, ROWS)
    assert rows.confidence == pytest.approx(confidence.uniform(0.5, 1.0, ROWS), abs=1e-6)


def test_a_row_without_an_answer_goes_to_the_teacher(folder: Path) -> None:
    labels = np.zeros(60, dtype=np.int64)
    logits = logits_of(np.full(60, 0.9), labels)
    logits[7] = np.nan
    write_samples(folder, STUDENT, labels, logits)
    write_samples(folder, TEACHER, labels, logits_of(np.full(60, 0.9), labels))
    rows = read_rows(folder, STUDENT, TEACHER)
    assert np.flatnonzero(rows.deferred(0.01)).tolist() == [7]
    assert np.flatnonzero(~rows.student_right).tolist() == [7]


def test_the_threshold_is_the_one_that_is_known(folder: Path) -> None:
    """A tenth of the rows may be lost: from 0.65 on (0.05 of the 0.5) the router keeps 90%."""
    found = route_run(folder, RouteRequest(0.9, 0.95, STUDENT))
    assert 0.65 <= found.chosen.threshold < 0.69
    assert (found.teacher, found.family, found.seed) == (TEACHER, "topics", 20)
    assert (found.chosen.rows, found.held_out_rows) == (2000, 2000)
    assert found.at.kept is not None
    assert found.at.kept.low >= 0.9
    assert found.at.routed.value == pytest.approx((found.chosen.threshold - 0.5) / 0.5, abs=0.04)
    means = [one.latency_ms for one in found.served]
    by_id = {trial.trial.trial_id: trial for trial in sample_run().trials}
    assert means == [by_id[one].latency.mean_ms for one in found.trials]
    assert found.at.latency_ms == pytest.approx(means[0] + found.at.routed.value * means[1])


def test_the_command_writes_the_document_and_prints_the_curve(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = ["--student-cost", "0.5", "--teacher-cost", "4"]
    arguments = ["route", str(folder), "--keep", "90%", "--student", STUDENT, *costs]
    assert run_command(arguments) == 0
    said = capsys.readouterr().out
    found = read_document(folder, "route", Route)
    assert found == route_run(folder, RouteRequest(0.9, 0.95, STUDENT, "", 0.5, 4.0))
    assert "keeps at least 90% of the teacher's accuracy (2,000 calibration rows)" in said
    assert f"{found.chosen.threshold:.4g} *" in said
    assert "all 100.0% (99.8\u2013100.0%)" in said
    assert run_command([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"]["threshold"] == found.chosen.threshold
    assert len(documents_of(folder, "route")) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--keep", "120%"], "--keep 120%: a share is above 0% and below 100%"),
        (["--keep", "most"], "--keep most: a share"),
        (["--confidence", "95"], "--confidence 95: a share"),
        (["--student", "topics-nobody"], "has no student 'topics-nobody'"),
        (["--student", STUDENT, "--teacher", "nobody"], "has no teacher 'nobody'"),
        (["--student", STUDENT, "--keep", "99.99%"], "cannot show 99.99% of the teacher's"),
        (["--student", "topics-tiny-fp32"], "topics-tiny-fp32.parquet holds no outcomes"),
        (["--teacher-cost", "-1"], "Invalid value"),
        (["--teacher-cost", "4"], "--teacher-cost says something of --student-cost"),
        (["--student-cost", "4"], "--student-cost says something of --teacher-cost"),
    ],
)
def test_what_cannot_be_routed_is_refused_before_anything_is_written(
    folder: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["route", str(folder), *arguments]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())
    assert documents_of(folder, "route") == {}


def test_files_of_other_rows_are_refused(folder: Path) -> None:
    labels = np.zeros(60, dtype=np.int64)
    write_samples(folder, TEACHER, labels, logits_of(np.full(60, 0.9), labels))
    with pytest.raises(RunFolderError, match="on 4000 rows and topics-teacher-fp32 on 60"):
        read_rows(folder, STUDENT, TEACHER)


def test_answers_without_scores_are_refused(folder: Path) -> None:
    path = folder / "samples" / f"{STUDENT}.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["logits"]), path)
    with pytest.raises(UsageError, match="needs the student's confidence"):
        read_rows(folder, STUDENT, TEACHER)
