"""Payloads held against the inputs that a model declares."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import DataError
from harness.load.payload_fit import check_payloads_fit
from harness.types import TensorSpec

IDS = TensorSpec("input_ids", "INT64", (-1,))
MASK = TensorSpec("attention_mask", "INT64", (-1,))
GROUP = {"input_ids": np.ones((3, 8), np.int64), "attention_mask": np.ones((3, 8), np.int64)}


def test_payloads_of_the_declared_form_pass() -> None:
    longer = {name: np.ones((2, 16), np.int64) for name in GROUP}
    check_payloads_fit([GROUP, longer], [MASK, IDS], 16, batch_size=16)


def test_a_model_that_does_not_batch_declares_whole_shapes() -> None:
    whole = TensorSpec("image", "FP32", (1, 4))
    image = {"image": np.ones((5, 4), np.float32)}
    check_payloads_fit([image], [whole], 0, batch_size=1)
    with pytest.raises(DataError, match=r"shape is \[2, 4\], the model's \[1, 4\]"):
        check_payloads_fit([image], [whole], 0, batch_size=2)


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ([IDS, MASK, TensorSpec("token_type_ids", "INT64", (-1,))], "lack .* token_type_ids$"),
        ([IDS], "have attention_mask, which is no input of the model: input_ids$"),
        ([TensorSpec("input_ids", "INT32", (-1,)), MASK], "input_ids: .* hold INT64, not INT32"),
        ([TensorSpec("input_ids", "INT64", (-1, 4)), MASK], r"\[8\], the model's \[-1, 4\]"),
        ([TensorSpec("input_ids", "INT64", (32,)), MASK], r"\[8\], the model's \[32\]"),
    ],
)
def test_what_does_not_fit_is_named(inputs: list[TensorSpec], why: str) -> None:
    with pytest.raises(DataError, match=why):
        check_payloads_fit([GROUP], inputs, 16, batch_size=1)


def test_every_group_is_looked_at() -> None:
    other = {**GROUP, "attention_mask": np.ones((3, 8), np.float32)}
    with pytest.raises(DataError, match="attention_mask: the payloads hold FP32, not INT64"):
        check_payloads_fit([GROUP, other], [IDS, MASK], 16, batch_size=1)


def test_a_batch_above_the_models_is_refused() -> None:
    with pytest.raises(DataError, match="17 rows: the model takes at most 16") as caught:
        check_payloads_fit([GROUP], [IDS, MASK], 16, batch_size=17)
    assert caught.value.next_step == "choose a client batch size up to 16"
