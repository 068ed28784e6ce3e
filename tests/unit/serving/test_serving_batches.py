"""The backend's joining and splitting, without Triton."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_batches import Joiner, groups, split


def request(rows: int, length: int = 4, fill: int = 1) -> dict[str, np.ndarray]:
    ids = np.full((rows, length), fill, np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_a_single_request_is_not_copied():
    only = request(3)
    assert Joiner(16).join([only])["input_ids"] is only["input_ids"]


def test_the_buffer_is_used_again():
    joiner = Joiner(16)
    first = joiner.join([request(2), request(3)])["input_ids"]
    second = joiner.join([request(1), request(4)])["input_ids"]
    assert np.shares_memory(first, second)


def test_more_rows_than_the_configuration_allows_still_join():
    joined = Joiner(2).join([request(2), request(2)])["input_ids"]
    assert joined.shape == (4, 4)


def test_many_shapes_do_not_pile_up():
    joiner = Joiner(4, max_shapes=3)
    for length in range(1, 30):
        joiner.join([request(1, length), request(1, length)])
    assert len(joiner._buffers) <= 3


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_split_undoes_join(row_counts: list[int]):
    requests = [request(rows, fill=position) for position, rows in enumerate(row_counts)]
    joined = Joiner(64).join(requests)["input_ids"]
    for before, after in zip(requests, split(joined, row_counts), strict=True):
        np.testing.assert_array_equal(before["input_ids"], after)
        assert after.flags.c_contiguous  # Triton's stub would copy it otherwise
        assert np.shares_memory(after, joined)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=10))
def test_groups_hold_every_request_once_and_one_shape_each(lengths: list[int]):
    requests = [request(1, length) for length in lengths]
    found = list(groups(requests, batching=True))
    assert sorted(position for group in found for position in group) == list(range(len(lengths)))
    for group in found:
        assert len({lengths[position] for position in group}) == 1
        assert group == sorted(group)
    assert len(found) == len(set(lengths))


def test_inputs_may_come_in_any_order():
    first = request(1)
    second = dict(reversed(first.items()))
    assert list(groups([first, second], batching=True)) == [[0, 1]]
    assert Joiner(4).join([first, second])["input_ids"].shape == (2, 4)


def test_without_a_batch_dimension_each_runs_alone():
    assert list(groups([request(1), request(1)], batching=False)) == [[0], [1]]


@pytest.mark.parametrize("output", [np.float32(1.0).reshape(()), np.ones((3, 2), np.float32)])
def test_an_output_without_the_batch_dimension_is_refused(output):
    with pytest.raises(ValueError, match="for a batch of 4"):
        split(output, [2, 2])
