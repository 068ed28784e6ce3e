"""Checks of every answer, and the known answers that some are compared with.

A fast server that answers wrongly has answered nothing: Triton with a broken python stub answers
HTTP 200 with empty tensors, so a status code proves little. An answer whose form was accepted for
this request before, and for which no known answer is at hand, needs no check: its layout is the
same object. Whoever drives the load asks for that first.

Known answers are what an independent client was answered to the requests of the pool, asked for row
by row at batch 1, before the load: so a server that mixes up rows when it batches, or the
transports of this harness when they cut an answer, cannot agree with itself in error. Their file is
a plain `.npz`: arrays `<request>/<output name>`, with the batch dimension, and the scalar
`tolerance`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.requests.payloads import EncodedRequest, KnownAnswers, Payload, Tensors
from harness.load.transports.contract import (
    ELEMENTS,
    OutputTensor,
    RequestFailure,
    WireAnswer,
)
from harness.system.storage import whole_file
from harness.types import FREE_SIZE, Precision, TensorSpec
from harness.words.numbers import number

_LENGTH_BYTES = 4
"""Bytes of the length that stands before each element of BYTES."""


class AnswerCheck:
    """Holds answers against the model's outputs, and against known answers where there are some.

    Args:
        outputs: what the model answers with; others that it sends besides are not looked at. None
            when it is not known, and then an answer is only compared with its request and itself.
    """

    def __init__(self, outputs: Sequence[TensorSpec] = ()) -> None:
        self._expected = {spec.name: spec for spec in outputs}

    def check(self, answer: WireAnswer, request: EncodedRequest) -> None:
        """Accept an answer in silence, or say what is wrong.

        What depends on the form alone is checked once for each form and request, and the accepted
        form stays in `request.layout`. The first answer of a form is decoded too, and every one
        whose request has a known answer.

        Raises:
            RequestFailure: of kind missing_output, empty_output, wrong_datatype, wrong_shape,
                wrong_size, non_finite or wrong_answer.
        """
        if answer.layout is request.layout and request.known is None:
            return
        if answer.layout is not request.layout:
            self._check_form(answer.layout.outputs, request)
        for output in answer.layout.outputs:
            if not self._expected or output.name in self._expected:
                _check_elements(output, answer, request)
        request.layout = answer.layout

    def _check_form(self, outputs: Sequence[OutputTensor], request: EncodedRequest) -> None:
        present = {output.name for output in outputs}
        expected = self._expected.keys() | (request.known or {}).keys()
        missing = sorted(expected - present)
        if missing or not outputs:
            wanted = ", ".join(missing) or "any output"
            there = f"; it has {', '.join(sorted(present))}" if present else ""
            raise RequestFailure("missing_output", f"the answer lacks {wanted}{there}")
        for output in outputs:
            spec = self._expected.get(output.name)
            if spec is None and self._expected:
                continue
            if output.start == output.end and not _may_be_empty(output, spec):
                raise _wrong("empty_output", output, "has no bytes")
            if spec is not None and output.datatype != spec.datatype:
                raise _wrong("wrong_datatype", output, f"the model promises {spec.datatype}")
            _check_shape(output, spec, request)
            _check_size(output)


def decode(output: OutputTensor, answer: WireAnswer) -> NDArray[Any] | None:
    """An output's elements in its shape; bfloat16 as float32; None for a type without a size."""
    elements = ELEMENTS.get(output.datatype)
    if elements is None:
        return None
    array = np.frombuffer(answer.bytes_of(output), elements).reshape(output.shape)
    return array.astype(np.float32) if output.datatype == "BF16" else array


def _may_be_empty(output: OutputTensor, spec: TensorSpec | None) -> bool:
    """Whether it says that it has no elements, where the model promises none."""
    if spec is None or 0 not in output.shape or len(output.shape) < len(spec.shape):
        return False
    sizes = output.shape[len(output.shape) - len(spec.shape) :]
    return all(
        size or promised == FREE_SIZE for size, promised in zip(sizes, spec.shape, strict=True)
    )


def _check_shape(output: OutputTensor, spec: TensorSpec | None, request: EncodedRequest) -> None:
    if min(output.shape, default=0) < 0:
        raise _wrong("wrong_shape", output, "a size below zero")
    sizes = list(output.shape)
    if spec is None or spec.batched:
        batch, *sizes = output.shape or (0,)
        if batch != request.batch_size:
            raise _wrong("wrong_shape", output, f"the request has a batch of {request.batch_size}")
    if spec is None:
        return
    if len(sizes) != len(spec.shape):
        after = " after the batch" if spec.batched else ""
        raise _wrong("wrong_shape", output, f"the model promises {spec.shape}{after}")
    for size, promised in zip(sizes, spec.shape, strict=True):
        if promised == FREE_SIZE:
            continue
        # A dynamic size follows the request: scores of a sequence are as many as its tokens.
        allowed = request.lengths if promised == -1 else {promised}
        if size not in allowed:
            wanted = " or ".join(str(one) for one in sorted(allowed))
            raise _wrong("wrong_shape", output, f"{size} should be {wanted}")


def _check_size(output: OutputTensor) -> None:
    elements = ELEMENTS.get(output.datatype)
    size = output.end - output.start
    if elements is not None and size != elements.itemsize * prod(output.shape):
        raise _wrong("wrong_size", output, f"has {size} bytes")
    if output.datatype == "BYTES" and size < _LENGTH_BYTES * prod(output.shape):
        raise _wrong("wrong_size", output, f"has {size} bytes, too few for its elements' lengths")


def _check_elements(output: OutputTensor, answer: WireAnswer, request: EncodedRequest) -> None:
    elements = decode(output, answer)
    if elements is None:
        return
    if elements.dtype.kind == "f" and not np.isfinite(elements).all():
        raise _wrong("non_finite", output, "holds NaN or infinity")
    known = (request.known or {}).get(output.name)
    if known is not None:
        _check_known(output, elements, known, request.tolerance)


def _check_known(
    output: OutputTensor, elements: NDArray[Any], known: NDArray[Any], tolerance: float
) -> None:
    if elements.shape != known.shape:
        raise _wrong("wrong_answer", output, f"the known answer has the shape {list(known.shape)}")
    wanted = known.astype(np.float64)
    difference = float(np.abs(elements - wanted).max(initial=0.0))
    allowed = tolerance * float(np.abs(wanted).max(initial=0.0))
    if difference > allowed:
        raise _wrong(
            "wrong_answer",
            output,
            f"differs by {number(difference)} from what an independent client was answered "
            f"(at most {number(allowed)} is rounding)",
        )


def _wrong(kind: str, output: OutputTensor, why: str) -> RequestFailure:
    what = f"output {output.name} ({output.datatype} {list(output.shape)})"
    return RequestFailure(kind, f"{what}: {why}")


TOLERANCE: dict[Precision, float] = {
    Precision.FP32: 0.01,
    Precision.FP16: 0.05,
    Precision.INT8: 0.5,
}
"""Largest difference of a right answer, as a share of the known answer's largest element.

Not of its range: that of two logits is next to nothing where the model cannot decide.
The same row gives other last digits in another batch, as kernels sum in another order: a ten
thousandth at most in 32 bits, some per cent in 16. Dynamic quantisation takes its scale from the
activations of the whole batch, so there a row's answer depends on its neighbours; what is left to
find are answers of no row at all, and those of very different rows.
"""

_TOLERANCE_KEY = "tolerance"


def make_known_answers(
    payloads: Sequence[Payload],
    infer: Callable[[Tensors], Tensors],
    outputs: Sequence[TensorSpec] = (),
) -> list[dict[str, NDArray[Any]]]:
    """Ask for every row by itself and put the rows of a request together again.

    Left out are outputs that are not numbers, and those whose rows may differ in size. For what
    has no batch dimension the request is asked as it is.

    Args:
        payloads: as many of the pool's first requests as shall have known answers.
        infer: an independent client: inputs (1, ...) to outputs (1, ...).
        outputs: those that are held against; none holds all.

    Raises:
        DataError: the model answers with NaN or infinity, or not with one row for one row: it
            cannot be load-tested for right answers.
    """
    known: list[dict[str, NDArray[Any]]] = [{} for _ in payloads]
    by_row = {one.name for one in outputs if one.batched and FREE_SIZE not in one.shape}
    whole = {one.name for one in outputs if not one.batched}
    for index, payload in enumerate(payloads):
        if by_row or not outputs:
            known[index] |= _answer_by_rows(payload, infer, by_row)
        if whole:
            asked = infer(payload.inputs)
            known[index] |= {name: asked[name] for name in _numbers(asked) if name in whole}
        _check_finite(index, known[index])
    return known


def _answer_by_rows(
    payload: Payload, infer: Callable[[Tensors], Tensors], wanted: Collection[str]
) -> dict[str, NDArray[Any]]:
    rows = [
        infer({name: array[row : row + 1] for name, array in payload.inputs.items()})
        for row in range(payload.batch_size)
    ]
    names = [name for name in _numbers(rows[0]) if not wanted or name in wanted]
    for name in names:
        if any(row[name].shape[:1] != (1,) for row in rows):
            raise DataError(f"known answers: {name} does not answer one row with one row")
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def _numbers(outputs: Tensors) -> list[str]:
    return [name for name, array in outputs.items() if array.dtype.kind in "biuf"]


def _check_finite(index: int, known: Tensors) -> None:
    for name, array in known.items():
        if not np.isfinite(array).all():
            raise DataError(
                f"known answers: request {index}, output {name} holds NaN or infinity",
                next_step="check the model's export: even a single row at batch 1 is not finite",
            )


def write_known_answers(path: Path, answers: Sequence[Tensors], tolerance: float) -> None:
    """Write a file of known answers, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    arrays = {f"{i}/{name}": array for i, one in enumerate(answers) for name, array in one.items()}
    arrays[_TOLERANCE_KEY] = np.array(tolerance)
    with whole_file(path, parents=True) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # of allow_pickle, not of ours


def read_known_answers(path: Path) -> KnownAnswers:
    """Read a file of known answers back.

    Raises:
        DataError: not a file of known answers.
    """
    answers: dict[int, dict[str, NDArray[Any]]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            tolerance = float(archive[_TOLERANCE_KEY])
            for key in archive.files:
                index, slash, name = key.partition("/")
                if slash:
                    answers.setdefault(int(index), {})[name] = archive[key]
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
        raise DataError(f"{path}: not a file of known answers: {error}") from error
    count = max(answers, default=-1) + 1
    return KnownAnswers(tuple(answers.get(index, {}) for index in range(count)), tolerance)
