"""Payloads: tensors of the real test split, on disk, and the requests drawn from them.

They reach the load generators as arrays, so a generator needs no tokenizer and no torch.
A payload file is an `.npz` of arrays `<group>/<input name>` of shape (n, length), the group a
number; or, of one group, of arrays `<input name>`, as `numpy.savez(path, input_ids=...)` writes
them. Rows of one group are equally long, so that a request of several rows needs no padding of its
own. `payload_arrays` says how texts are stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.requests.arrays import as_tensor, from_archive, row_bytes, to_archive
from harness.load.transports.contract import Layout, TensorTransport, Transport
from harness.system.storage import whole_file
from harness.types import Workload

POOL_REQUESTS = 256
"""Distinct requests: enough that a response cache or a lucky sample does not decide."""
POOL_BYTES = 64 * 2**20
"""The pool holds fewer requests where they are large, but at least `FEWEST_REQUESTS`."""
FEWEST_REQUESTS = 8
REPOSITORY_FILE = "payloads.npz"
"""File in a variant's folder of the model repository: what a client can send it, without a
tokenizer."""

_KEY = re.compile(r"(\d+)/(.+)", re.DOTALL)
_FORM = (
    "write it with numpy.savez(path, input_ids=..., attention_mask=...), an array (rows, ...) for "
    "each of the model's inputs; rows of several lengths as GROUP/INPUT: 0/input_ids, 1/input_ids"
)

Tensors = Mapping[str, NDArray[Any]]
Group = Tensors
Mix = Sequence[tuple[int, float]]
"""(size, weight); `harness.load.requests.traffic` parses and checks them."""


@dataclass(frozen=True)
class Payload:
    """The tensors of one request."""

    inputs: Group
    """By name, arrays of shape (batch, length)."""

    @property
    def batch_size(self) -> int:
        """How many rows (samples) the request carries."""
        return int(next(iter(self.inputs.values())).shape[0])

    @property
    def lengths(self) -> frozenset[int]:
        """Every size of the request beside its batch: what a dynamic output may be as long as."""
        return frozenset(size for array in self.inputs.values() for size in array.shape[1:])


@dataclass(frozen=True)
class KnownAnswers:
    """What an independent client was answered: entry i to request i of the pool.

    Later requests have none.
    """

    answers: tuple[Tensors, ...]
    tolerance: float
    """Largest difference of a right answer, as a share of the known answer's largest element."""


@dataclass(slots=True, eq=False)
class EncodedRequest:
    """A request in its protocol's bytes, and what its answer must look like.

    Sent again and again; what was learnt of its answers stays with it.
    """

    body: bytes
    batch_size: int
    lengths: frozenset[int]
    layout: Layout | None = None
    """The form of the answer that was last accepted for it."""
    known: Mapping[str, NDArray[Any]] | None = None
    """What an independent client was answered, by output; None where nobody asked."""
    tolerance: float = 0.0
    """Largest difference from `known`, as `harness.load.requests.answers` measures it."""
    follow: FollowUp | None = None
    """What is asked next in the same conversation; None: nothing is."""


FollowUp = Callable[[Transport], tuple[EncodedRequest, float]]
"""Makes the next turn of a conversation from what its transport was just answered, and says how
many seconds after that answer it falls due."""


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
        for name, array in group.items():
            tensor = as_tensor(f"payload group {index}: {name}", np.asarray(array))
            arrays.update(to_archive(f"{index}/{name}", tensor))
    if not sum(map(_rows, groups)):
        raise DataError(f"{path}: there are no rows to send")
    with whole_file(path, parents=True) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # of allow_pickle, not of ours


def read_payloads(path: Path) -> list[dict[str, NDArray[Any]]]:
    """Read a payload file back: its groups, those without rows left out.

    Raises:
        DataError: not a payload file; says which arrays there are.
    """
    try:
        arrays = from_archive(path)
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
        raise DataError(f"{path}: not a payload file: {error}", next_step=_FORM) from error
    groups = _grouped(path, arrays)
    for index, group in groups.items():
        _check_group(index, group)
    filled = [group for group in groups.values() if _rows(group)]
    if not filled:
        raise DataError(f"{path}: there are no rows to send")
    return filled


def draw_payloads(
    groups: Sequence[Group],
    *,
    batch_size: int,
    seed: int,
    batch_mix: Mix = (),
    length_mix: Mix = (),
) -> list[Payload]:
    """Draw the requests of a trial: the same for the same seed, whichever process asks.

    The pool holds each batch size and each length as nearly in its stated share as whole requests
    allow (systematic sampling), in random order. Rows of a request repeat only where their group
    has too few.

    Args:
        groups: arrays (n, length) by input name, a group a padded length.
        batch_size: rows of every request; with a mix, the largest.
        seed: draws the rows and the order.
        batch_mix: (rows, weight).
        length_mix: (padded length, weight); without it a length's share is that of its rows.

    Raises:
        DataError: the mix names a length that no group has.
    """
    generator = np.random.default_rng(seed)
    count = _pool_size(groups, batch_size)
    sizes = np.array([size for size, _ in batch_mix or ((batch_size, 1.0),)])
    size_weights = np.array([weight for _, weight in batch_mix or ((batch_size, 1.0),)])
    chosen_sizes = sizes[_systematic(size_weights, count, generator)]
    chosen_groups = _systematic(_group_weights(groups, length_mix), count, generator)
    payloads = []
    for size, place in zip(chosen_sizes.tolist(), chosen_groups.tolist(), strict=True):
        rows = _rows(groups[place])
        picked = generator.choice(rows, size=size, replace=rows < size)
        payloads.append(Payload({name: array[picked] for name, array in groups[place].items()}))
    return payloads


def padded_length(group: Group) -> int:
    """How long a group's rows are: the largest size next to the batch dimension."""
    return max((array.shape[1] for array in group.values() if array.ndim > 1), default=1)


def draw_workload(groups: Sequence[Group], workload: Workload) -> list[Payload]:
    """The requests of a workload: `draw_payloads` with its sizes, its mixes and its seed."""
    return draw_payloads(
        groups,
        batch_size=workload.client_batch_size,
        seed=workload.seed,
        batch_mix=workload.batch_mix,
        length_mix=workload.length_mix,
    )


def encode_payloads(
    payloads: Sequence[Payload],
    transport: TensorTransport,
    model: str,
    known: KnownAnswers | None = None,
) -> list[EncodedRequest]:
    """Encode every payload once for its protocol.

    Args:
        payloads: of `draw_payloads`.
        transport: says how they look on the wire; it need not be connected.
        model: its name on the server.
        known: answers to the first of the payloads, in their order; the others have none.

    Raises:
        DataError: more answers than payloads: they belong to another draw.
    """
    requests = [
        EncodedRequest(transport.encode(model, payload.inputs), payload.batch_size, payload.lengths)
        for payload in payloads
    ]
    if known is None:
        return requests
    if len(known.answers) > len(requests):
        raise DataError(
            f"{len(known.answers)} known answers for {len(requests)} requests: "
            "they are of another draw"
        )
    for request, answer in zip(requests, known.answers, strict=False):
        request.known, request.tolerance = answer or None, known.tolerance
    return requests


def _systematic(
    weights: NDArray[np.float64], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `count` indices, each within one of its share of them, in random order."""
    edges = np.cumsum(weights) / np.sum(weights)
    places = (np.arange(count) + generator.random()) / count
    chosen = np.minimum(np.searchsorted(edges, places, side="right"), len(weights) - 1)
    return generator.permutation(chosen).astype(np.int64)


def _group_weights(groups: Sequence[Group], length_mix: Mix) -> NDArray[np.float64]:
    """Each group's share: of the rows, or of the weight that its length has in the mix."""
    rows = np.array([_rows(group) for group in groups], dtype=np.float64)
    if not length_mix:
        return rows
    lengths = np.array([padded_length(group) for group in groups])
    weights = np.zeros(len(groups))
    for length, weight in length_mix:
        alike = lengths == length
        if not alike.any():
            there = ", ".join(str(one) for one in sorted(set(lengths.tolist())))
            raise DataError(
                f"the length mix names {length}, and no payload is that long",
                next_step=f"the padded lengths there are: {there}",
            )
        weights += np.where(alike, weight * rows / rows[alike].sum(), 0.0)
    return weights


def _grouped(path: Path, arrays: Group) -> dict[int, dict[str, NDArray[Any]]]:
    """Arrays by group and input; those of names without a number before are one group."""
    keys = [(_KEY.fullmatch(name), name) for name in arrays]
    if not any(match for match, _ in keys):
        return {0: dict(arrays)} if arrays else {}
    groups: dict[int, dict[str, NDArray[Any]]] = {}
    for match, name in keys:
        if match is None:
            raise DataError(
                f"{path}: not a payload file: '{name}' is of no group, and others are; its arrays "
                f"are {', '.join(arrays)}",
                next_step=_FORM,
            )
        groups.setdefault(int(match[1]), {})[match[2]] = arrays[name]
    return groups


def _rows(group: Group) -> int:
    return len(next(iter(group.values()))) if group else 0


def _check_group(index: int, group: Group) -> None:
    sizes = {name: array.shape[0] if array.ndim else None for name, array in group.items()}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        raise DataError(
            f"payload group {index}: its inputs differ in rows: {sizes}", next_step=_FORM
        )


def _pool_size(groups: Sequence[Group], batch_size: int) -> int:
    largest = max(sum(map(row_bytes, group.values())) for group in groups)
    return max(FEWEST_REQUESTS, min(POOL_REQUESTS, POOL_BYTES // max(1, largest * batch_size)))
