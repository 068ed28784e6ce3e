"""Payloads compared with the inputs that a model declares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.errors import DataError
from harness.load.requests.fit import cast_payloads, check_payloads_fit
from harness.load.transports.contract import datatype_of
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
        ([IDS], "have attention_mask, which is not an input of the model: input_ids$"),
        ([TensorSpec("input_ids", "INT32", (-1,)), MASK], "input_ids: .* hold INT64, not INT32"),
        ([TensorSpec("input_ids", "INT64", (-1, 4)), MASK], r"\[8\], the model's \[-1, 4\]"),
        ([TensorSpec("input_ids", "INT64", (32,)), MASK], r"\[8\], the model's \[32\]"),
    ],
)
def test_what_does_not_fit_is_named(inputs: list[TensorSpec], why: str) -> None:
    with pytest.raises(DataError, match=why):
        check_payloads_fit([GROUP], inputs, 16, batch_size=1)


def test_an_optional_input_may_be_left_out() -> None:
    inputs = [IDS, MASK, TensorSpec("token_type_ids", "INT64", (-1,))]
    check_payloads_fit([GROUP], inputs, 16, batch_size=1, optional={"token_type_ids"})
    with pytest.raises(DataError, match="lack the model's input input_ids"):
        check_payloads_fit([{"attention_mask": GROUP["attention_mask"]}], inputs, 16, batch_size=1)


@pytest.mark.parametrize(
    ("held", "datatype"),
    [
        (np.array([[0, 1, 30521]], np.int32), "INT64"),
        (np.array([[0, 1, 30521]], np.int64), "INT32"),
        (np.array([[0, 1, 30521]], np.int64), "UINT16"),
        (np.array([[True, False]]), "INT64"),
        (np.array([[1, 0]], np.int64), "BOOL"),
        (np.array([[1, 0]], np.int64), "FP32"),
        (np.array([[1.0, 101.0]], np.float32), "INT64"),
        (np.array([[0.1, -2.5, np.inf]]), "FP32"),
        (np.array([[0.1, -2.5]], np.float32), "FP16"),
        (np.array([[0.1, -2.5]], np.float32), "BF16"),
    ],
)
def test_payloads_are_cast_to_what_the_model_declares(held: Any, datatype: str) -> None:
    ((cast,),) = (one.values() for one in cast_payloads([{"x": held}], [spec(datatype)]))
    assert datatype_of(cast) == datatype
    tolerance = {"FP16": 2**-11, "BF16": 2**-8, "FP32": 2**-24}.get(datatype, 0.0)
    np.testing.assert_allclose(cast.astype(float), held.astype(float), rtol=tolerance)


@pytest.mark.parametrize(
    ("held", "datatype", "lost"),
    [
        (np.array([[1, 70_000]], np.int64), "INT16", "70000"),
        (np.array([[1, -1]], np.int64), "UINT64", "-1"),
        (np.array([[2**63]], np.uint64), "INT64", str(2**63)),
        (np.array([[2**24 + 1]], np.int64), "FP32", str(2**24 + 1)),
        (np.array([[2**53 + 1]], np.int64), "FP64", str(2**53 + 1)),
        (np.array([[2**63 - 1]], np.int64), "FP64", str(2**63 - 1)),
        (np.array([[2**64 - 1]], np.uint64), "FP64", str(2**64 - 1)),
        (np.array([[1, 2]], np.int64), "BOOL", "2"),
        (np.array([[1.5]], np.float32), "INT64", "1.5"),
        (np.array([[np.nan]], np.float32), "INT64", "nan"),
        (np.array([[1e5]], np.float32), "FP16", "1"),
    ],
)
def test_what_the_declared_type_does_not_hold_is_refused(
    held: Any, datatype: str, lost: str
) -> None:
    with pytest.raises(DataError, match=f"not {datatype}, which cannot hold {lost}"):
        cast_payloads([{"x": held}], [spec(datatype)])


def test_texts_are_not_cast() -> None:
    texts = {"x": np.array([["a"]], object)}
    assert cast_payloads([texts], [spec("INT64")]) == [texts]


def spec(datatype: str) -> TensorSpec:
    return TensorSpec("x", datatype, (-1,))


def test_every_group_is_looked_at() -> None:
    other = {**GROUP, "attention_mask": np.ones((3, 8), np.float32)}
    with pytest.raises(DataError, match="attention_mask: the payloads hold FP32, not INT64"):
        check_payloads_fit([GROUP, other], [IDS, MASK], 16, batch_size=1)


def test_a_batch_above_the_models_is_refused() -> None:
    with pytest.raises(DataError, match="17 rows: the model takes at most 16") as caught:
        check_payloads_fit([GROUP], [IDS, MASK], 16, batch_size=17)
    assert caught.value.next_step == "choose a client batch size up to 16"
