"""Payload files and the requests drawn from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.errors import DataError, StorageError
from harness.load.requests import payloads
from harness.load.requests.payloads import (
    KnownAnswers,
    draw_payloads,
    encode_payloads,
    read_payloads,
    write_payloads,
)


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


def test_what_no_tensor_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="x holds complex64, neither numbers nor texts"):
        write_payloads(tmp_path / "p.npz", [{"x": np.array([[1j]], np.complex64)}])


@pytest.mark.parametrize("groups", [[], [group(0, 4)]])
def test_no_rows_are_refused(tmp_path: Path, groups: list[dict[str, np.ndarray]]) -> None:
    with pytest.raises(DataError, match="no rows"):
        write_payloads(tmp_path / "p.npz", groups)


def test_a_place_that_cannot_be_written_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write to"):
        write_payloads(tmp_path / "file" / "p.npz", [group(1, 4)])


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_what_is_no_payload_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"p\.npz: not a payload file"):
        read_payloads(path)


def test_an_array_without_rows_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", **{"0/input_ids": np.int64(3)})
    with pytest.raises(DataError, match="payload group 0"):
        read_payloads(tmp_path / "p.npz")


def test_batch_sizes_come_in_their_stated_shares() -> None:
    pool = draw_payloads([group(50, 8)], batch_size=8, seed=1, batch_mix=((1, 7), (4, 2), (8, 1)))
    counts = Counter(payload.batch_size for payload in pool)
    assert len(pool) == 256
    for size, share in ((1, 0.7), (4, 0.2), (8, 0.1)):
        assert abs(counts[size] - 256 * share) < 1


def test_lengths_come_in_their_stated_shares_whatever_the_rows() -> None:
    groups = [group(900, 8), group(30, 16), group(70, 16, start=5000), group(500, 32)]
    pool = draw_payloads(groups, batch_size=1, seed=1, length_mix=((8, 1), (16, 3)))
    counts = Counter(next(iter(payload.lengths)) for payload in pool)
    assert counts == {8: 64, 16: 192}
    later = sum(int(payload.inputs["input_ids"].max()) >= 5000 for payload in pool)
    assert abs(later - 192 * 0.7) <= 1  # groups of one length share it by their rows


def test_batch_sizes_and_lengths_are_mixed_independently() -> None:
    pool = draw_payloads(
        [group(50, 8), group(50, 16)], batch_size=4, seed=5, batch_mix=((1, 1), (4, 1))
    )
    both = Counter((payload.batch_size, next(iter(payload.lengths))) for payload in pool)
    assert all(40 < both[size, length] < 90 for size in (1, 4) for length in (8, 16))
    assert [payload.batch_size for payload in pool[:128]].count(1) not in {0, 128}


def test_a_length_that_no_payload_has_is_named_with_those_there_are() -> None:
    with pytest.raises(DataError, match="names 24, and no payload") as caught:
        draw_payloads(
            [group(5, 16), group(5, 8)], batch_size=1, seed=0, length_mix=((8, 1), (24, 1))
        )
    assert caught.value.next_step == "the padded lengths there are: 8, 16"


class Spelling:
    """Encodes a request as the numbers of its first input."""

    def encode(self, model: str, inputs: dict[str, np.ndarray]) -> bytes:
        return f"{model} {inputs['input_ids'][:, 0].tolist()}".encode()


def test_requests_carry_the_known_answers_of_the_first_of_them() -> None:
    pool = draw_payloads([group(50, 8)], batch_size=2, seed=0)
    answers = ({"scores": np.ones((2, 3))}, {}, {"scores": np.zeros((2, 3))})
    requests = encode_payloads(pool, Spelling(), "bert", KnownAnswers(answers, 0.25))
    assert requests[1].body == f"bert {pool[1].inputs['input_ids'][:, 0].tolist()}".encode()
    assert [one.batch_size for one in requests] == [2] * len(pool)
    assert requests[0].known is answers[0]
    assert requests[0].tolerance == 0.25
    assert [one.known is None for one in requests[:4]] == [False, True, False, True]


def test_known_answers_of_another_draw_are_refused() -> None:
    pool = draw_payloads([group(50, 8)], batch_size=2, seed=0)
    answers = tuple({"scores": np.ones(1)} for _ in range(len(pool) + 1))
    with pytest.raises(DataError, match="257 known answers for 256 requests"):
        encode_payloads(pool, Spelling(), "bert", KnownAnswers(answers, 0.25))


def test_arrays_by_the_inputs_names_are_one_group(tmp_path: Path) -> None:
    ids = np.arange(12).reshape(3, 4)
    np.savez(tmp_path / "p.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    (read,) = read_payloads(tmp_path / "p.npz")
    assert list(read) == ["input_ids", "attention_mask"]
    np.testing.assert_array_equal(read["input_ids"], ids)
    np.savez_compressed(tmp_path / "q.npz", **{"serving_default/ids": ids})
    assert list(read_payloads(tmp_path / "q.npz")[0]) == ["serving_default/ids"]


def test_what_is_no_payload_file_says_what_is_there(tmp_path: Path) -> None:
    ids = np.arange(12).reshape(3, 4)
    np.savez(tmp_path / "p.npz", **{"0/input_ids": ids, "attention_mask": ids})
    with pytest.raises(DataError, match="its arrays are 0/input_ids, attention_mask") as caught:
        read_payloads(tmp_path / "p.npz")
    assert "numpy.savez(path, input_ids=..., attention_mask=...)" in caught.value.next_step
    np.savez(tmp_path / "q.npz", input_ids=ids, threshold=0.5)
    with pytest.raises(DataError, match=r"'input_ids': 3, 'threshold': None"):
        read_payloads(tmp_path / "q.npz")
    np.save(tmp_path / "r.npy", ids)
    with pytest.raises(DataError, match="it is a single array without a name"):
        read_payloads(tmp_path / "r.npy")
    np.savez(tmp_path / "s.npz")
    with pytest.raises(DataError, match="there are no rows to send"):
        read_payloads(tmp_path / "s.npz")


def test_rows_of_texts_count_for_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = np.empty((9, 1), object)
    texts[:, 0] = [b"x" * 1000] * 9
    monkeypatch.setattr(payloads, "POOL_BYTES", 20_000)
    assert len(draw_payloads([{"TEXT": texts}], batch_size=2, seed=0)) == 10
