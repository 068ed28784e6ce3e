"""Known answers: asked for row by row, kept in a file, compared with what the load is answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import DataError, StorageError
from harness.load.requests.answers import (
    TOLERANCE,
    make_known_answers,
    read_known_answers,
    write_known_answers,
)
from harness.load.requests.payloads import Payload
from harness.types import Precision

Tensors = Mapping[str, NDArray[Any]]


def payload(rows: int, length: int, start: int = 0) -> Payload:
    ids = np.arange(start, start + rows * length, dtype=np.int64).reshape(rows, length)
    return Payload({"input_ids": ids, "attention_mask": np.ones_like(ids)})


def model(inputs: Tensors) -> dict[str, NDArray[Any]]:
    ids = inputs["input_ids"].astype(np.float32)
    text = np.array([[b"text"]] * len(ids), object)
    return {"sum": ids.sum(1, keepdims=True), "each": ids * 2, "label": text}


def test_each_row_is_asked_by_itself_and_the_rows_come_back_in_order() -> None:
    asked = []

    def infer(inputs: Tensors) -> dict[str, NDArray[Any]]:
        asked.append({name: array.shape for name, array in inputs.items()})
        return model(inputs)

    payloads = [payload(3, 4), payload(1, 8, start=100)]
    answers = make_known_answers(payloads, infer)
    assert asked == [{"input_ids": (1, 4), "attention_mask": (1, 4)}] * 3 + [
        {"input_ids": (1, 8), "attention_mask": (1, 8)}
    ]
    for one, answer in zip(payloads, answers, strict=True):
        whole = model(one.inputs)
        assert set(answer) == {"sum", "each"}  # no text: it is nothing to compute a distance of
        np.testing.assert_array_equal(answer["sum"], whole["sum"])
        np.testing.assert_array_equal(answer["each"], whole["each"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(DataError, match="request 1, output sum holds NaN or infinity"):
        make_known_answers(
            [payload(1, 4), payload(2, 4, start=50)],
            lambda inputs: {"sum": np.full((1, 1), value if inputs["input_ids"][0, 0] else 0.0)},
        )


@pytest.mark.parametrize("shape", [(), (2,), (0, 3)])
def test_a_model_without_a_row_for_a_row_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="sum does not answer one row with one row"):
        make_known_answers([payload(1, 4)], lambda _: {"sum": np.zeros(shape)})


def test_answers_survive_the_file(tmp_path: Path) -> None:
    written = make_known_answers([payload(2, 4), payload(12, 4, start=9)], model)
    path = tmp_path / "deep" / "known.npz"
    write_known_answers(path, written, TOLERANCE[Precision.FP16])
    read = read_known_answers(path)
    assert read.tolerance == TOLERANCE[Precision.FP16]
    assert len(read.answers) == 2
    for before, after in zip(written, read.answers, strict=True):
        assert set(before) == set(after)
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array)
            assert after[name].dtype == array.dtype
    assert [file.name for file in path.parent.iterdir()] == ["known.npz"]


def test_more_than_ten_answers_keep_their_places(tmp_path: Path) -> None:
    written = [{"a/b": np.array([[i]])} for i in range(25)]
    write_known_answers(tmp_path / "known.npz", written, 0.1)
    read = read_known_answers(tmp_path / "known.npz").answers
    assert [int(one["a/b"][0, 0]) for one in read] == list(range(25))


def test_an_answer_without_numbers_keeps_the_places_of_the_others(tmp_path: Path) -> None:
    write_known_answers(tmp_path / "known.npz", [{}, {"a": np.ones((1, 1))}], 0.1)
    assert [set(one) for one in read_known_answers(tmp_path / "known.npz").answers] == [
        set(),
        {"a"},
    ]


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\3\4 truncated"])
def test_what_is_no_file_of_known_answers_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "known.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"known\.npz: not a file of known answers"):
        read_known_answers(path)


def test_other_arrays_are_no_known_answers(tmp_path: Path) -> None:
    np.savez(tmp_path / "payloads.npz", **{"0/ids": np.ones(3)})
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in ("payloads.npz", "array.npy"):
        with pytest.raises(DataError, match="not a file of known answers"):
            read_known_answers(tmp_path / name)


def test_a_place_that_cannot_be_written_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write to"):
        write_known_answers(tmp_path / "file" / "known.npz", [{}], 0.1)
