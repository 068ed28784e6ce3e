"""An objective on a metric that the samples leave undefined is refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.flow.input_checks import check_inputs
from harness.study.file import load_study
from tests.row_studies import write_regression_study

pytest.importorskip("transformers")


def change_rows(file: Path, **values: object) -> None:
    """Give every row the same values."""
    rows = [json.loads(line) | values for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_correlation_with_labels_that_are_all_the_same(tmp_path: Path) -> None:
    study = write_regression_study(tmp_path)
    change_rows(tmp_path / "grades.jsonl", label=2.5)

    with pytest.raises(StudyError) as caught:
        check_inputs(load_study(study))

    (problem,) = caught.value.problems
    assert problem == (
        "family grades, data: the objective asks for pearson, which is not defined on these "
        "samples: every label is the same number (choose other samples, or set the objective on "
        "mae or rmse)"
    )


def test_such_labels_under_an_objective_on_the_error(tmp_path: Path) -> None:
    study = write_regression_study(tmp_path, objective="p95 < 10 s, mae <= 2x teacher")
    change_rows(tmp_path / "grades.jsonl", label=2.5)

    check_inputs(load_study(study))
