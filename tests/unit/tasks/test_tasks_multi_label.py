"""Rows with several labels: every way to write them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.study.file import load_study
from harness.tasks.multi_label.rows import read_label_sets
from harness.tasks.multi_label.section import MultiLabelClassification
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, read_table
from harness.tasks.section import CsvData, JsonLinesData

ROOT = Path(__file__).parents[3]
NAMES = ("joy", "love", "anger")


def task(tmp_path, **settings):
    (tmp_path / "d.jsonl").write_text("{}")
    data = {"source": "jsonl", "path": str(tmp_path / "d.jsonl")}
    return MultiLabelClassification(kind="multi-label-classification", data=data, **settings)


def rows_of(tmp_path, values):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"text": f"text {n}", **(v if isinstance(v, dict) else {"labels": v})})
            for n, v in enumerate(values)
        )
    )
    return read_table(JsonLinesData(source="jsonl", path=path), None)


def read(tmp_path, values, names=NAMES, teacher=None, table=None, **settings):
    table = table or rows_of(tmp_path, values)
    return read_label_sets(
        task(tmp_path, **settings), Reading(table, 0, names, "the model", teacher)
    )


@pytest.mark.parametrize(
    "values",
    [
        [["joy", "anger"], [], ["love"]],
        ["joy, anger", "", "Love"],
        ["joy,anger", " ", '["love"]'],
        ["['joy', 'anger']", "[]", "['love']"],
        [[0, 2], [], [1]],
        ["0,2", "", 1],
        [[1, 0, 1], [0, 0, 0], [0, 1, 0]],
        [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        ["[1, 0, 1]", "[0, 0, 0]", "[0, 1, 0]"],
        [[True, False, True], [False, False, False], [False, True, False]],
        [
            {"joy": 1, "love": 0, "anger": 1},
            {"joy": "0", "love": "false", "anger": 0.0},
            {"joy": False, "love": True, "anger": "0"},
        ],
    ],
)  # fmt: skip
def test_every_way_to_write_them_says_the_same(tmp_path, values):
    settings = {"label_columns": list(NAMES)} if isinstance(values[0], dict) else {}

    found = read(tmp_path, values, **settings)

    assert found.labels == ((0, 2), (), (1,))
    assert found.label_names == NAMES
    assert found.label_texts == ("joy, anger", "(no label)", "love")


def test_another_separator_and_a_csv(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('text,labels\na,joy|anger\nb,""\nc,love\n')
    table = read_table(CsvData(source="csv", path=path), None)

    found = read(tmp_path, [], table=table, separator="|")

    assert found.labels == ((0, 2), (), (1,))


def test_indexes_count_in_the_datas_order_where_the_study_names_it(tmp_path):
    order = ["anger", "joy", "love"]

    as_indexes = read(tmp_path, [[0, 1], [2]], labels=order)
    as_places = read(tmp_path, [[1, 1, 0], [0, 0, 1]], labels=order)

    assert as_indexes.labels == as_places.labels == ((0, 2), (1,))


def test_indexes_count_in_the_order_that_the_data_declares(tmp_path):
    table = rows_of(tmp_path, [[0, 1], [2], [0, 1, 2]])
    declared = DataTable(
        table.source, table.columns, table.rows, class_names={"labels": ("anger", "joy", "love")}
    )

    found = read(tmp_path, [], table=declared)

    assert found.labels == ((0, 2), (1,), (0, 1, 2))


def test_a_student_that_numbers_its_labels_otherwise_has_the_same_labels_by_name(tmp_path):
    for values in ([["joy"], ["anger", "love"]], [[1, 0, 0], [0, 1, 1]], [[0], [1, 2]]):
        teacher = read(tmp_path, values)
        student = read(tmp_path, values, names=("Anger", "Love", "Joy"), teacher=teacher.reader)

        assert teacher.labels == ((0,), (1, 2))
        assert student.labels == ((2,), (0, 1))
        assert student.class_names == ("anger", "love", "joy")


def test_columns_under_other_names_than_the_classes(tmp_path):
    values = [{"is_a": 1, "is_j": 0, "is_l": 1}, {"is_a": 0, "is_j": 1, "is_l": 0}]

    found = read(
        tmp_path, values, label_columns=["is_a", "is_j", "is_l"], labels=["anger", "joy", "love"]
    )

    assert found.labels == ((1, 2), (0,))


@pytest.mark.parametrize(
    ("values", "settings", "said"),
    [
        ([["joy"], None], {}, "line 2: 'labels' is missing"),
        ([["joy"], ["pride"]], {}, 'line 2: ["pride"]'),
        ([["joy"], [7]], {}, "line 2: [7]"),
        ([["joy"], [-1]], {}, "line 2: [-1]"),
        ([["joy"], ["joy", "joy"]], {}, "line 2: 'labels' has \"joy\" twice"),
        ([["joy"], {"labels": {"joy": 1}}], {}, "line 2: 'labels' is"),
        ([["joy"], [["joy"]]], {}, "line 2: 'labels' is"),
        ([["joy"], "[joy"], {}, "line 2: 'labels' is \"[joy\""),
        ([["joy"], "joy,,love"], {}, "line 2: 'labels' is \"joy,,love\""),
        (["joy|love", "joy"], {}, "line 1: [\"joy|love\"]"),
        ([[], []], {}, "no row has a label"),
        ([[1, 0, 1, 0], [0, 0, 0, 0]], {}, "every 'labels' has 4 numbers, all of them 0 or 1"),
        ([[0.5, 0, 1], [0, 0, 1]], {}, "twice"),
        (
            [{"joy": 1, "love": -1, "anger": 0}],
            {"label_columns": list(NAMES)},
            "line 1: 'love' is -1",
        ),
        (
            [{"joy": 1, "love": "", "anger": None}],
            {"label_columns": list(NAMES)},
            "line 1: 'anger' is missing",
        ),
        (
            [{"joy": 1, "love": 0}],
            {"label_columns": ["joy", "love"]},
            "no column of label_columns says whether 'anger' is a label",
        ),
        (
            [{"joy": 1, "pride": 0, "anger": 1}],
            {"label_columns": ["joy", "pride", "anger"]},
            "pride is not among them",
        ),
    ],
)  # fmt: skip
def test_what_is_no_set_of_labels_is_refused_with_its_line(tmp_path, values, settings, said):
    with pytest.raises(DataError) as caught:
        read(tmp_path, values, **settings)

    assert said in str(caught.value)


@pytest.mark.parametrize("values", [[[0, 1], [1, 0]], ["0,1", "1, 0"], [["0", "1"], ["1", "0"]]])
def test_zeros_and_ones_that_may_be_indexes_are_refused(tmp_path, values):
    with pytest.raises(DataError, match="one for each of 2 classes, or the indexes of classes"):
        read(tmp_path, values, names=("no", "yes"))


def test_zeros_and_ones_with_a_number_twice_in_a_row_are_no_indexes(tmp_path):
    assert read(tmp_path, [[0, 1], [1, 1]], names=("no", "yes")).labels == ((1,), (0, 1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 0}, "greater than 0"),
        ({"threshold": 1.0}, "less than 1"),
        ({"label_columns": []}, "label_columns is empty"),
        ({"label_columns": ["a", "a"]}, "names a twice"),
        ({"label_columns": ["a", "b"], "labels": ["x"]}, "they go together one by one"),
    ],
)
def test_a_section_that_cannot_be_is_refused(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        task(tmp_path, **settings)


def test_a_draw_keeps_texts_and_labels_together(tmp_path):
    values = [["joy"], ["love"], ["anger"], [], ["joy", "love"]]

    whole, drawn = read(tmp_path, values), read(tmp_path, values, samples=3)

    assert len(drawn.labels) == 3
    for text, labels, row in zip(drawn.texts, drawn.labels, drawn.rows, strict=True):
        assert (text, labels) == (whole.texts[row], whole.labels[row])


def test_the_example_study_is_valid_beside_a_checkpoint_of_ones_own(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "emotions-student"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "multi-label.yaml"
    shutil.copyfile(ROOT / "studies" / "multi-label.yaml", path)

    task = load_study(path).families[0].task

    assert isinstance(task, MultiLabelClassification)
    assert task.threshold == 0.5


def test_drawn_rows_without_a_label_leave_what_is_told_of_labels_undefined(tmp_path):
    values = [["joy"], *[[]] * 50]
    found = read(tmp_path, values, samples=2)
    assert found.labels == ((), ())
    assert "micro_f1" in found.undefined_metrics
    assert "subset_accuracy" not in found.undefined_metrics
    assert not read(tmp_path, values).undefined_metrics
