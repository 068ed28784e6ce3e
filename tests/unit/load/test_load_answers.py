"""Every answer is checked: each way of being wrong has its kind."""

from __future__ import annotations

import numpy as np
import pytest

from harness.load.answers import AnswerCheck
from harness.load.payloads import EncodedRequest
from harness.load.transports.contract import OutputTensor, RequestFailure
from harness.types import TensorSpec

LOGITS = TensorSpec("logits", "FP32", (3,))
TOKENS = TensorSpec("token_logprobs", "FP32", (-1,))
REQUEST = EncodedRequest(b"", batch_size=2, lengths=frozenset({16}))


def tensor(
    *shape: int, name: str = "logits", datatype: str = "FP32", fill: float = 0.5
) -> OutputTensor:
    types = {"FP32": "<f4", "FP16": "<f2", "INT64": "<i8", "BF16": "<u2", "BYTES": "u1"}
    return OutputTensor(
        name, datatype, shape, np.full(shape, fill).astype(types[datatype]).tobytes()
    )


def kind_of(check: AnswerCheck, *answer: OutputTensor) -> str | None:
    try:
        check.check(answer, REQUEST)
    except RequestFailure as failure:
        return failure.kind
    return None


def test_a_right_answer_passes() -> None:
    assert kind_of(AnswerCheck([LOGITS]), tensor(2, 3)) is None


def test_an_output_nobody_asked_for_is_no_failure() -> None:
    assert kind_of(AnswerCheck([LOGITS]), tensor(2, 3), tensor(2, 1, name="extra")) is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((), "missing_output"),
        ((tensor(2, 3, name="other"),), "missing_output"),
        ((OutputTensor("logits", "FP32", (2, 3), b""),), "empty_output"),
        ((OutputTensor("logits", "FP32", (0,), b""),), "empty_output"),
        ((tensor(2, 3, datatype="FP16"),), "wrong_datatype"),
        ((tensor(2, 4),), "wrong_shape"),
        ((tensor(1, 3),), "wrong_shape"),
        ((tensor(2, 3, 1),), "wrong_shape"),
        ((tensor(6),), "wrong_shape"),
        ((OutputTensor("logits", "FP32", (), bytes(4)),), "wrong_shape"),
        ((OutputTensor("logits", "FP32", (2, 3), bytes(23)),), "wrong_size"),
        ((tensor(2, 3, fill=np.nan),), "non_finite"),
        ((tensor(2, 3, fill=np.inf),), "non_finite"),
    ],
)
def test_each_fault_has_its_kind(answer: tuple[OutputTensor, ...], kind: str) -> None:
    assert kind_of(AnswerCheck([LOGITS]), *answer) == kind


def test_the_second_output_is_checked_too() -> None:
    check = AnswerCheck([LOGITS, TOKENS])
    assert kind_of(check, tensor(2, 3), tensor(2, 16, name="token_logprobs")) is None
    assert kind_of(check, tensor(2, 3)) == "missing_output"
    assert kind_of(check, tensor(2, 3), tensor(2, 17, name="token_logprobs")) == "wrong_shape"


def test_a_dynamic_size_follows_the_request() -> None:
    with pytest.raises(RequestFailure, match="9 should be 16"):
        AnswerCheck([TOKENS]).check([tensor(2, 9, name="token_logprobs")], REQUEST)


def test_outputs_that_are_not_known_are_held_against_the_request_and_themselves() -> None:
    check = AnswerCheck()
    assert kind_of(check, tensor(2, 7, name="anything")) is None
    assert kind_of(check, tensor(3, 7, name="anything")) == "wrong_shape"
    assert kind_of(check, tensor(2, 7, fill=-np.inf)) == "non_finite"
    assert kind_of(check) == "missing_output"


def test_datatypes_without_finiteness_or_size_still_pass() -> None:
    check = AnswerCheck()
    assert kind_of(check, tensor(2, 3, datatype="INT64")) is None
    assert kind_of(check, tensor(2, 3, datatype="BF16")) is None
    assert kind_of(check, OutputTensor("text", "BYTES", (2, 1), b"\3\0\0\0abc")) is None
    assert kind_of(check, OutputTensor("x", "BF16", (2, 3), bytes(11))) == "wrong_size"
