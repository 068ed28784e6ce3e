"""Known answers: what an independent client was answered to the requests of the pool.

Asked for row by row at batch 1, before the load: so a server that mixes up rows when it batches,
or the transports of this harness when they cut an answer, cannot agree with itself in error.
The file is a plain `.npz`: arrays `<request>/<output name>`, with the batch dimension, and the
scalar `tolerance`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.requests.payloads import KnownAnswers, Payload, Tensors
from harness.system.storage import whole_file
from harness.types import FREE_SIZE, Precision, TensorSpec

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
