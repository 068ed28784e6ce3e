import numpy as np
import pytest

from harness.profiling.timing import batch_of, draw_samples, lengths_of, throughput_shapes
from harness.tasks.encoding import EncodedDataset, EncodedGroup


def dataset(**rows_by_length):
    groups, at = [], 0
    for key, rows in rows_by_length.items():
        length = int(key[1:])
        ids = np.arange(rows * length).reshape(rows, length) + 1000 * length
        groups.append(
            EncodedGroup(
                {"input_ids": ids, "attention_mask": np.ones_like(ids)}, np.arange(at, at + rows)
            )
        )
        at += rows
    return EncodedDataset(
        groups=tuple(groups), size=at, truncated=0, padding_share=0.0, digest="", pad_token_id=0
    )


def test_samples_are_drawn_without_repetition_while_there_are_any():
    data = dataset(n8=5, n16=7)
    batches, distinct = draw_samples(data, 12, np.random.default_rng(1))
    assert distinct == len({one["input_ids"].tobytes() for one in batches}) == 12
    assert {one["input_ids"].shape for one in batches} == {(1, 8), (1, 16)}
    again, distinct = draw_samples(data, 30, np.random.default_rng(1))
    assert len(again) == 30
    assert distinct == 12


def test_the_same_seed_draws_the_same_samples():
    data = dataset(n8=50)
    first, second = (draw_samples(data, 20, np.random.default_rng(4))[0] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def test_lengths_are_the_datas_buckets_or_parts_of_the_only_one():
    assert lengths_of(dataset(n8=1, n16=1)) == (8, 16)
    assert lengths_of(dataset(n32=1)) == (8, 16, 32)
    assert throughput_shapes(dataset(n32=1), (1, 4, 16)) == (
        (1, 32), (4, 32), (16, 32), (1, 8), (16, 8), (1, 16), (16, 16),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 8), (6, 8), (4, 12), (30, 16)])
def test_a_batch_has_its_shape_whatever_the_data_has(shape):
    batch = batch_of(dataset(n8=5, n16=7), shape, np.random.default_rng(2))
    assert {array.shape for array in batch.values()} == {shape}
