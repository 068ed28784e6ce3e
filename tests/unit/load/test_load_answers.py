"""Every answer is checked: each way of being wrong has its kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.load.requests import answers
from harness.load.requests.answers import AnswerCheck, decode
from harness.load.requests.payloads import EncodedRequest
from harness.load.transports.contract import OutputTensor, RequestFailure, WireAnswer, layout_of
from harness.types import FREE_SIZE, TensorSpec

LOGITS = TensorSpec("logits", "FP32", (3,))
TOKENS = TensorSpec("token_logprobs", "FP32", (-1,))
TYPES = {"FP32": "<f4", "FP16": "<f2", "FP64": "<f8", "INT64": "<i8", "BF16": "<u2", "BYTES": "u1"}
Part = tuple[str, str, tuple[int, ...], bytes]


def request_of(
    known: Mapping[str, NDArray[np.float32]] | None = None, tolerance: float = 0.01
) -> EncodedRequest:
    return EncodedRequest(
        b"", batch_size=2, lengths=frozenset({16}), known=known, tolerance=tolerance
    )


def part(*shape: int, name: str = "logits", datatype: str = "FP32", fill: float = 0.5) -> Part:
    return name, datatype, shape, np.full(shape, fill).astype(TYPES[datatype]).tobytes()


def answer_of(*parts: Part) -> WireAnswer:
    outputs, data = [], b"head and header"
    for name, datatype, shape, raw in parts:
        outputs.append(OutputTensor(name, datatype, shape, len(data), len(data) + len(raw)))
        data += raw
    return WireAnswer(layout_of(tuple(outputs)), data)


def kind_of(check: AnswerCheck, request: EncodedRequest, *parts: Part) -> str | None:
    try:
        check.check(answer_of(*parts), request)
    except RequestFailure as failure:
        return failure.kind
    return None


def test_a_right_answer_passes_and_its_form_is_remembered() -> None:
    request = request_of()
    assert kind_of(AnswerCheck([LOGITS]), request, part(2, 3)) is None
    assert request.layout is answer_of(part(2, 3)).layout


def test_an_output_nobody_asked_for_is_no_failure() -> None:
    parts = part(2, 3), part(2, 1, name="extra")
    assert kind_of(AnswerCheck([LOGITS]), request_of(), *parts) is None


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ((), "missing_output"),
        ((part(2, 3, name="other"),), "missing_output"),
        ((("logits", "FP32", (2, 3), b""),), "empty_output"),
        ((("logits", "FP32", (0,), b""),), "empty_output"),
        ((part(2, 3, datatype="FP16"),), "wrong_datatype"),
        ((part(2, 4),), "wrong_shape"),
        ((part(1, 3),), "wrong_shape"),
        ((part(2, 3, 1),), "wrong_shape"),
        ((part(6),), "wrong_shape"),
        ((("logits", "FP32", (), bytes(4)),), "wrong_shape"),
        ((("logits", "FP32", (2, 3), bytes(23)),), "wrong_size"),
        ((part(2, 3, fill=np.nan),), "non_finite"),
        ((part(2, 3, fill=np.inf),), "non_finite"),
    ],
)
def test_each_fault_has_its_kind_every_time(parts: tuple[Part, ...], kind: str) -> None:
    check, request = AnswerCheck([LOGITS]), request_of()
    assert [kind_of(check, request, *parts) for _ in range(3)] == [kind] * 3
    assert request.layout is None


def test_a_fault_after_right_answers_is_found_and_the_right_form_still_known() -> None:
    check, request = AnswerCheck([LOGITS]), request_of()
    kinds = [
        kind_of(check, request, *parts)
        for parts in ((part(2, 3),), (part(2, 4),), (("logits", "FP32", (2, 3), b""),))
    ]
    assert kinds == [None, "wrong_shape", "empty_output"]
    assert request.layout is answer_of(part(2, 3)).layout


def test_the_second_output_is_checked_too() -> None:
    check = AnswerCheck([LOGITS, TOKENS])
    scores = part(2, 16, name="token_logprobs")
    assert kind_of(check, request_of(), part(2, 3), scores) is None
    assert kind_of(check, request_of(), part(2, 3)) == "missing_output"
    too_long = part(2, 17, name="token_logprobs")
    assert kind_of(check, request_of(), part(2, 3), too_long) == "wrong_shape"


def test_a_dynamic_size_follows_the_request() -> None:
    with pytest.raises(RequestFailure, match="9 should be 16"):
        AnswerCheck([TOKENS]).check(answer_of(part(2, 9, name="token_logprobs")), request_of())


def test_an_output_of_free_size_may_be_empty_and_one_that_follows_may_not() -> None:
    free = AnswerCheck([TensorSpec("logits", "FP32", (FREE_SIZE, 4))])
    for length in (0, 1, 7):
        assert kind_of(free, request_of(), part(2, length, 4)) is None
    assert kind_of(free, request_of(), ("logits", "FP32", (2, 3, 4), b"")) == "empty_output"
    assert kind_of(free, request_of(), part(2, 0, 3)) == "wrong_shape"
    assert kind_of(AnswerCheck([TOKENS]), request_of(), part(2, 0, name=TOKENS.name)) == (
        "empty_output"
    )


def test_an_output_without_a_batch_dimension_is_checked_as_it_is_declared() -> None:
    declared = AnswerCheck([TensorSpec("logits", "FP32", (4, FREE_SIZE), batched=False)])
    assert kind_of(declared, request_of(), part(4, 9)) is None
    assert kind_of(declared, request_of(), part(2, 9)) == "wrong_shape"
    assert kind_of(declared, request_of(), part(2, 4, 9)) == "wrong_shape"
    scalar = AnswerCheck([TensorSpec("logits", "FP64", (), batched=False)])
    assert kind_of(scalar, request_of(), part(datatype="FP64")) is None
    assert kind_of(scalar, request_of(), part(2, datatype="FP64")) == "wrong_shape"


def test_what_is_wrong_with_an_output_nobody_asked_for_is_nobody_s_business() -> None:
    for extra in (
        part(7, name="extra"),
        part(2, 1, name="extra", fill=-np.inf),
        ("extra", "FP32", (0,), b""),
    ):
        assert kind_of(AnswerCheck([LOGITS]), request_of(), part(2, 3), extra) is None


def test_a_missing_output_is_named_with_those_there_are() -> None:
    with pytest.raises(RequestFailure, match="lacks logits; it has odds, scores"):
        AnswerCheck([LOGITS]).check(
            answer_of(part(2, 3, name="scores"), part(2, 3, name="odds")), request_of()
        )


def test_outputs_that_are_not_known_are_held_against_the_request_and_themselves() -> None:
    check = AnswerCheck()
    assert kind_of(check, request_of(), part(2, 7, name="anything")) is None
    assert kind_of(check, request_of(), part(3, 7, name="anything")) == "wrong_shape"
    assert kind_of(check, request_of(), ("x", "FP32", (2, -1, -3), bytes(24))) == "wrong_shape"
    assert kind_of(check, request_of(), part(2, 7, fill=-np.inf)) == "non_finite"
    assert kind_of(check, request_of()) == "missing_output"


def test_each_datatype_is_decoded_or_left_alone() -> None:
    check = AnswerCheck()
    assert kind_of(check, request_of(), part(2, 3, datatype="INT64")) is None
    assert kind_of(check, request_of(), part(2, 3, datatype="BF16", fill=0x3FC0)) is None
    assert kind_of(check, request_of(), part(2, 3, datatype="BF16", fill=0x7F80)) == "non_finite"
    assert kind_of(check, request_of(), ("text", "BYTES", (2, 1), b"\3\0\0\0abc\0\0\0\0")) is None
    assert kind_of(check, request_of(), ("x", "BF16", (2, 3), bytes(11))) == "wrong_size"


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    answer = answer_of(("x", "BF16", (2,), np.array([0x3FC0, 0xC000], "<u2").tobytes()))
    decoded = decode(answer.layout.outputs[0], answer)
    assert decoded is not None
    assert decoded.tolist() == [1.5, -2.0]


KNOWN = np.array([[1.0, -4.0, 2.0], [0.5, 0.25, 3.0]], np.float32)


def numbers(array: NDArray[np.float32]) -> Part:
    return "logits", "FP32", array.shape, array.astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("came", "kind"),
    [
        (KNOWN, None),
        (KNOWN + 0.039, None),  # a hundredth of the largest element, 4, is rounding
        (KNOWN + 0.041, "wrong_answer"),
        (KNOWN[::-1], "wrong_answer"),
        (KNOWN * 0, "wrong_answer"),
        (KNOWN * np.nan, "non_finite"),
    ],
)
def test_an_answer_is_held_against_the_known_one_every_time(
    came: NDArray[np.float32], kind: str | None
) -> None:
    check, request = AnswerCheck([LOGITS]), request_of({"logits": KNOWN})
    assert kind_of(check, request, numbers(KNOWN)) is None
    assert [kind_of(check, request, numbers(came)) for _ in range(2)] == [kind] * 2


def test_a_known_output_that_does_not_come_or_has_another_shape_is_a_failure() -> None:
    check = AnswerCheck()
    request = request_of({"logits": KNOWN})
    assert kind_of(check, request, part(2, 3, name="other")) == "missing_output"
    assert kind_of(check, request, part(2, 4)) == "wrong_answer"


def test_integers_are_compared_too() -> None:
    request = request_of({"ids": np.array([[7], [100]])})
    right = ("ids", "INT64", (2, 1), np.array([7, 100], "<i8").tobytes())
    wrong = ("ids", "INT64", (2, 1), np.array([9, 100], "<i8").tobytes())
    assert kind_of(AnswerCheck(), request, right) is None
    assert kind_of(AnswerCheck(), request, wrong) == "wrong_answer"


def test_an_accepted_form_without_a_known_answer_is_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check, request = AnswerCheck([LOGITS]), request_of()
    check.check(answer_of(part(2, 3)), request)
    monkeypatch.setattr(answers, "decode", lambda *_: pytest.fail("looked at again"))
    check.check(answer_of(part(2, 3)), request)
