"""Whether payloads fit the model that is to get them: asked of its metadata, before any load."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.payloads import Group
from harness.load.transports.contract import datatype_of
from harness.types import TensorSpec

ANY_SIZE = -1


def check_payloads_fit(
    groups: Sequence[Group],
    inputs: Sequence[TensorSpec],
    max_batch_size: int,
    *,
    batch_size: int,
) -> None:
    """Refuse payloads that the server would refuse, with the first reason.

    Args:
        groups: arrays (n, length) by input name.
        inputs: what the model declares.
        max_batch_size: the model's; 0 does not batch, and its input shapes are then whole ones.
        batch_size: rows of the largest request.

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
        _check_names(group, declared)
    for name, array in chain.from_iterable(group.items() for group in groups):
        shape = array.shape[1:] if max_batch_size else (batch_size, *array.shape[1:])
        _check_tensor(declared[name], array, shape)


def _check_names(group: Group, declared: dict[str, TensorSpec]) -> None:
    missing = ", ".join(sorted(declared.keys() - group.keys()))
    if missing:
        raise DataError(f"the payloads lack the model's input {missing}")
    extra = ", ".join(sorted(group.keys() - declared.keys()))
    if extra:
        names = ", ".join(declared)
        raise DataError(f"the payloads have {extra}, which is no input of the model: {names}")


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
