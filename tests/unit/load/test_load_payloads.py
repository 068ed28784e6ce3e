"""Payload files and the requests drawn from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.errors import DataError, StorageError
from harness.load import payloads
from harness.load.payloads import draw_payloads, read_payloads, write_payloads


def group(rows: int, length: int, *, start: int = 0) -> dict[str, np.ndarray]:
    ids = np.arange(start, start + rows)[:, None] * np.ones((1, length), np.int64)
    return {"input_ids": ids.astype(np.int64), "attention_mask": np.ones((rows, length), np.int64)}


def test_groups_survive_the_file(tmp_path: Path) -> None:
    written = [group(3, 8), group(2, 16)]
    write_payloads(tmp_path / "deep" / "topics.npz", written)
    read = read_payloads(tmp_path / "deep" / "topics.npz")
    assert [list(one) for one in read] == [["input_ids", "attention_mask"]] * 2
    for before, after in zip(written, read, strict=True):
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array)
            assert after[name].dtype == array.dtype


def test_the_name_is_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_payloads(tmp_path / "p.bin", [group(1, 4)])
    assert [file.name for file in tmp_path.iterdir()] == ["p.bin"]


def test_the_same_seed_draws_the_same_requests() -> None:
    groups = [group(40, 8), group(20, 16)]
    drawn = [draw_payloads(groups, batch_size=4, seed=seed) for seed in (7, 7, 8)]
    ids = [[one.inputs["input_ids"].tolist() for one in pool] for pool in drawn]
    assert ids[0] == ids[1] != ids[2]


def test_a_request_holds_rows_of_one_group_and_pairs_its_inputs() -> None:
    groups = [group(50, 8), group(50, 16, start=1000)]
    for one in groups:
        one["attention_mask"] = one["input_ids"] + 5
    for payload in draw_payloads(groups, batch_size=4, seed=0):
        ids = payload.inputs["input_ids"]
        assert payload.batch_size == 4
        assert payload.lengths == {ids.shape[1]}
        assert set((ids >= 1000).ravel()) == {ids.shape[1] == 16}
        assert len(set(ids[:, 0].tolist())) == 4  # no row twice
        np.testing.assert_array_equal(payload.inputs["attention_mask"], ids + 5)


def test_groups_are_drawn_in_proportion_to_their_rows() -> None:
    pool = draw_payloads([group(300, 8), group(100, 16)], batch_size=1, seed=3)
    counts = Counter(length for payload in pool for length in payload.lengths)
    assert len(pool) == payloads.POOL_REQUESTS
    assert 0.15 < counts[16] / len(pool) < 0.35


def test_a_group_smaller_than_the_batch_repeats_rows() -> None:
    pool = draw_payloads([group(3, 8)], batch_size=16, seed=0)
    assert {payload.batch_size for payload in pool} == {16}


def test_large_requests_make_a_small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    request_bytes = 2 * 4 * 128 * 8
    monkeypatch.setattr(payloads, "POOL_BYTES", 20 * request_bytes)
    assert len(draw_payloads([group(9, 128)], batch_size=4, seed=0)) == 20
    monkeypatch.setattr(payloads, "POOL_BYTES", 1)
    assert len(draw_payloads([group(9, 128)], batch_size=4, seed=0)) == payloads.FEWEST_REQUESTS


def test_inputs_that_differ_in_rows_are_refused(tmp_path: Path) -> None:
    bad = {"input_ids": np.ones((3, 4), np.int64), "attention_mask": np.ones((2, 4), np.int64)}
    with pytest.raises(DataError, match="'input_ids': 3, 'attention_mask': 2"):
        write_payloads(tmp_path / "p.npz", [group(1, 4), bad])


def test_what_is_not_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text holds object, not numbers"):
        write_payloads(tmp_path / "p.npz", [{"text": np.array([["a"]], object)}])


@pytest.mark.parametrize("groups", [[], [group(0, 4)]])
def test_no_rows_are_refused(tmp_path: Path, groups: list[dict[str, np.ndarray]]) -> None:
    with pytest.raises(DataError, match="no rows"):
        write_payloads(tmp_path / "p.npz", groups)


def test_a_place_that_cannot_be_written_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write to"):
        write_payloads(tmp_path / "file" / "p.npz", [group(1, 4)])


@pytest.mark.parametrize("content", [None, b"not a zip"])
def test_what_is_no_payload_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"p\.npz: not a payload file"):
        read_payloads(path)
