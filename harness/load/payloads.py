"""Payloads: tensors of the real test split, on disk, and the requests drawn from them.

They reach the load generators as arrays, so a generator needs no tokenizer and no torch.
A payload file is a plain `.npz`: arrays `<group>/<input name>` of shape (n, length). Rows of one
group are equally long, so that a request of several rows needs no padding of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.transports.contract import DATATYPES, Transport
from harness.storage import storage_errors

POOL_REQUESTS = 256
"""Distinct requests: enough that a response cache or a lucky sample does not decide."""
POOL_BYTES = 64 * 2**20
"""The pool holds fewer requests where they are large, but at least `FEWEST_REQUESTS`."""
FEWEST_REQUESTS = 8

Group = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Payload:
    """The tensors of one request."""

    inputs: Group
    """Arrays (batch, length)."""

    @property
    def batch_size(self) -> int:
        """Rows of the request."""
        return int(next(iter(self.inputs.values())).shape[0])

    @property
    def lengths(self) -> frozenset[int]:
        """Every size of the request beside its batch: what a dynamic output may be as long as."""
        return frozenset(size for array in self.inputs.values() for size in array.shape[1:])


class EncodedRequest(NamedTuple):
    """A request in its protocol's bytes, and what its answer must look like."""

    body: bytes
    batch_size: int
    lengths: frozenset[int]


def write_payloads(path: Path, groups: Sequence[Group]) -> None:
    """Write a payload file, whole or not at all.

    Args:
        path: the `.npz` file.
        groups: arrays (n, length) by input name; within a group all of the same n.

    Raises:
        DataError: no rows, inputs of one group that disagree about n, or a type of element that
            no tensor has.
        StorageError: the file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for index, group in enumerate(groups):
        _check_group(index, group)
        arrays.update({f"{index}/{name}": array for name, array in group.items()})
    if not sum(len(array) for array in arrays.values()):
        raise DataError(f"{path}: there are no rows to send")
    temporary = path.with_name(f".{path.name}.new")
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # of allow_pickle, not of ours
        temporary.replace(path)


def read_payloads(path: Path) -> list[dict[str, NDArray[Any]]]:
    """Read a payload file back: its groups, those without rows left out.

    Raises:
        DataError: not a payload file.
    """
    groups: dict[int, dict[str, NDArray[Any]]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                index, _, name = key.partition("/")
                groups.setdefault(int(index), {})[name] = archive[key]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a payload file: {error}") from error
    filled = [group for group in groups.values() if len(next(iter(group.values())))]
    if not filled:
        raise DataError(f"{path}: there are no rows to send")
    return filled


def draw_payloads(groups: Sequence[Group], *, batch_size: int, seed: int) -> list[Payload]:
    """Draw the requests of a trial: the same for the same seed, whichever process asks.

    A group is drawn in proportion to its rows, its rows without repetition within a request
    where it has enough of them.
    """
    generator = np.random.default_rng(seed)
    rows = np.array([len(next(iter(group.values()))) for group in groups])
    payloads = []
    for _ in range(_pool_size(groups, batch_size)):
        chosen = int(generator.choice(len(groups), p=rows / rows.sum()))
        picked = generator.choice(
            rows[chosen], size=batch_size, replace=bool(rows[chosen] < batch_size)
        )
        payloads.append(Payload({name: array[picked] for name, array in groups[chosen].items()}))
    return payloads


def encode_payloads(
    payloads: Sequence[Payload], transport: Transport, model: str
) -> list[EncodedRequest]:
    """Encode every payload once for its protocol."""
    return [
        EncodedRequest(transport.encode(model, payload.inputs), payload.batch_size, payload.lengths)
        for payload in payloads
    ]


def _check_group(index: int, group: Group) -> None:
    sizes = {name: len(array) for name, array in group.items()}
    if len(set(sizes.values())) != 1:
        raise DataError(f"payload group {index}: its inputs differ in rows: {sizes}")
    for name, array in group.items():
        if array.dtype.name not in DATATYPES:
            raise DataError(f"payload group {index}: {name} holds {array.dtype}, not numbers")


def _pool_size(groups: Sequence[Group], batch_size: int) -> int:
    largest = max(sum(array[:1].nbytes for array in group.values()) for group in groups)
    return max(FEWEST_REQUESTS, min(POOL_REQUESTS, POOL_BYTES // max(1, largest * batch_size)))
