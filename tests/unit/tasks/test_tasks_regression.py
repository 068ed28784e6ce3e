"""Rows with a number each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.study.file import load_study
from harness.tasks.regression.rows import Regression, read_numbered
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import read_table
from harness.tasks.section import CsvData, JsonLinesData


def read(tmp_path, values, **settings):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"t{v}", "label": v}) for v in values))
    data = JsonLinesData(source="jsonl", path=path)
    task = Regression(kind="regression", data=data, **settings)
    return read_numbered(task, Reading(read_table(data, None), 3))


def test_numbers_however_they_are_written(tmp_path):
    found = read(tmp_path, [0, 2.5, "-1", "3.25", "1e2", " 4 "])

    assert found.labels == (0.0, 2.5, -1.0, 3.25, 100.0, 4.0)
    assert not found.label_note


def test_numbers_of_a_csv(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a,b,score\nx,y,4.5\nz,w,0\n")
    data = CsvData(source="csv", path=path)
    task = Regression(kind="regression", data=data, text="a", text_pair="b", label="score")

    found = read_numbered(task, Reading(read_table(data, None), 0))

    assert (found.texts, found.pairs, found.labels) == (("x", "z"), ("y", "w"), (4.5, 0.0))


@pytest.mark.parametrize(
    ("value", "said", "step"),
    [
        (None, "it is missing", "drop rows without one"),
        ("", '""', "drop rows without one"),
        ("good", '"good"', "a finite number"),
        ("3,5", '"3,5"', "write decimals with a point"),
        ("1_000", '"1_000"', "a finite number"),
        ("nan", '"nan"', "a finite number"),
        (float("inf"), "Infinity", "a finite number"),
        (True, "true", "a finite number"),
        ([1.0], "[1.0]", "a finite number"),
    ],
)
def test_what_is_no_number_is_refused_with_its_line(tmp_path, value, said, step):
    with pytest.raises(DataError) as caught:
        read(tmp_path, [1.0, value])

    assert f"line 2: 'label' is not a number: {said}" in str(caught.value)
    assert step in caught.value.next_step


def test_labels_that_are_all_alike_are_told(tmp_path):
    assert "no correlation" in read(tmp_path, [2.0, 2.0]).label_note


def test_a_draw_keeps_texts_and_numbers_together(tmp_path):
    drawn = read(tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0], samples=2)

    assert [f"t{label}" for label in drawn.labels] == list(drawn.texts)


def test_the_example_study_is_valid():
    root = Path(__file__).parents[3]

    task = load_study(root / "studies" / "regression.yaml").families[0].task

    assert isinstance(task, Regression)
    assert task.text_pair == "sentence2"


def test_two_rows_have_no_correlation(tmp_path):
    assert "needs three" in read(tmp_path, [1, 2]).undefined_metrics["spearman"]
    assert not read(tmp_path, [1, 2, 2]).undefined_metrics
    assert set(read(tmp_path, [2, 2, 2]).undefined_metrics) == {"pearson", "spearman"}
