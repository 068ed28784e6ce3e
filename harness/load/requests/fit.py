"""Payloads as the model that is to get them declares its inputs: cast, and refused before any load.

What is cast stays what it was: whole numbers keep their value in every type, and fractions are
rounded only to a shorter type of floating point.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.requests.payloads import Group
from harness.load.transports.contract import ELEMENTS, datatype_of
from harness.types import TensorSpec

ANY_SIZE = -1
_FLOATS = {"FP16", "FP32", "FP64", "BF16"}


def cast_payloads(groups: Sequence[Group], inputs: Sequence[TensorSpec]) -> list[Group]:
    """The payloads in the datatypes that a model declares.

    Args:
        groups: arrays (n, ...) by input name.
        inputs: what the model declares; what it does not stays as it is.

    Raises:
        DataError: an element that the declared type does not hold.
    """
    wanted = {spec.name: spec.datatype for spec in inputs}
    return [
        {name: cast_array(name, array, wanted.get(name)) for name, array in group.items()}
        for group in groups
    ]


def cast_array(name: str, array: NDArray[Any], datatype: str | None) -> NDArray[Any]:
    """One input's array in a datatype of KServe v2; None leaves it as it is.

    Raises:
        DataError: an element that the type does not hold.
    """
    held = datatype_of(array)
    if datatype in {None, held} or datatype not in ELEMENTS or held in {None, "BYTES"}:
        return array
    wanted = ELEMENTS[datatype]
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wanted)
    if held in _FLOATS and datatype in _FLOATS:
        kept = np.isfinite(cast.astype(np.float64)) == np.isfinite(array.astype(np.float64))
    else:
        kept = (cast == array) & ((cast < 0) == (array < 0))
        if datatype in _FLOATS and array.dtype.kind in "iu":
            kept &= _is_exact(cast, array)
    if not kept.all():
        lost = array[~kept].reshape(-1)[0]
        raise DataError(
            f"input {name}: the payloads hold {held}, not {datatype}, which cannot hold {lost}"
        )
    return cast


def _is_exact(cast: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether floats are the very integers: numpy compares the two as floats, rounded alike."""
    values = cast.astype(np.float64)
    held = np.abs(values) < float(np.iinfo(whole.dtype).max)
    exact: NDArray[np.bool_] = held & (np.where(held, values, 0).astype(whole.dtype) == whole)
    return exact


def check_payloads_fit(
    groups: Sequence[Group],
    inputs: Sequence[TensorSpec],
    max_batch_size: int,
    *,
    batch_size: int,
    optional: Container[str] = (),
) -> None:
    """Refuse payloads that the server would refuse, with the first reason.

    Args:
        groups: arrays (n, length) by input name.
        inputs: what the model declares.
        max_batch_size: the model's; 0 does not batch, and its input shapes are then whole ones.
        batch_size: rows of the largest request.
        optional: names of the inputs that may be left out.

    Raises:
        DataError: an input too many or too few, another type, rank or fixed size, or a batch
            above the model's.
    """
    if 0 < max_batch_size < batch_size:
        raise DataError(
            f"requests of {batch_size} rows: the model takes at most {max_batch_size}",
            next_step=f"choose a client batch size up to {max_batch_size}",
        )
    declared = {spec.name: spec for spec in inputs}
    for group in groups:
        _check_names(group, declared, optional)
    for name, array in chain.from_iterable(group.items() for group in groups):
        shape = array.shape[1:] if max_batch_size else (batch_size, *array.shape[1:])
        _check_tensor(declared[name], array, shape)


def _check_names(group: Group, declared: dict[str, TensorSpec], optional: Container[str]) -> None:
    absent = sorted(declared.keys() - group.keys())
    missing = ", ".join(name for name in absent if name not in optional)
    if missing:
        there = ", ".join(group)
        raise DataError(
            f"the payloads lack the model's input {missing}", next_step=f"they have {there}"
        )
    extra = ", ".join(sorted(group.keys() - declared.keys()))
    if extra:
        names = ", ".join(declared)
        raise DataError(f"the payloads have {extra}, which is not an input of the model: {names}")


def _check_tensor(spec: TensorSpec, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    datatype = datatype_of(array) or array.dtype.name
    if datatype != spec.datatype:
        raise DataError(f"input {spec.name}: the payloads hold {datatype}, not {spec.datatype}")
    fits = len(shape) == len(spec.shape) and all(
        promised in {ANY_SIZE, size} for size, promised in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"input {spec.name}: a payload's shape is {list(shape)}, the model's {list(spec.shape)}"
        )
