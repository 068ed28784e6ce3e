"""Joining Triton's requests into one ONNX Runtime batch, and splitting the answer.

Copies are the cost here. A single request is handed on as it lies in shared memory; several are
copied once, into a buffer that the next execution uses again. Answers are slices of ONNX Runtime's
own output: along the first axis these are contiguous, which is all that Triton's stub asks for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]


def groups(requests: Sequence[Arrays], *, batching: bool) -> Iterator[list[int]]:
    """Positions of the requests that can run as one batch, in order of arrival.

    Those are the requests with the same inputs of the same shapes, the first axis aside. Triton's
    dynamic batcher sends such only, unless an input allows ragged batches.

    Args:
        requests: The inputs of each request.
        batching: Whether the first axis is the batch; if not, each request runs alone.
    """
    if not batching:
        yield from ([position] for position in range(len(requests)))
        return
    by_signature: dict[frozenset[tuple[str, tuple[int, ...]]], list[int]] = {}
    for position, inputs in enumerate(requests):
        # A set, because clients may name their inputs in any order.
        signature = frozenset((name, array.shape[1:]) for name, array in inputs.items())
        by_signature.setdefault(signature, []).append(position)
    yield from by_signature.values()


class Joiner:
    """Joins inputs along the batch axis into buffers that are made once for each shape."""

    def __init__(self, max_batch_size: int, *, max_shapes: int = 64) -> None:
        self._capacity = max_batch_size
        self._max_shapes = max_shapes
        self._buffers: dict[tuple[str, tuple[int, ...], np.dtype[Any]], Array] = {}

    def join(self, requests: Sequence[Arrays]) -> dict[str, Array]:
        """One array an input. They are valid until the next call."""
        if len(requests) == 1:
            return dict(requests[0])
        return {name: self._joined(name, [r[name] for r in requests]) for name in requests[0]}

    def _joined(self, name: str, parts: list[Array]) -> Array:
        rows = sum(len(part) for part in parts)
        if rows > self._capacity:
            return np.concatenate(parts)
        key = (name, parts[0].shape[1:], parts[0].dtype)
        buffer = self._buffers.get(key)
        if buffer is None:
            if len(self._buffers) >= self._max_shapes:
                self._buffers.clear()  # many shapes: memory counts more than the allocation
            buffer = np.empty((self._capacity, *key[1]), key[2])
            self._buffers[key] = buffer
        return np.concatenate(parts, out=buffer[:rows])


def split(output: Array, row_counts: Sequence[int]) -> list[Array]:
    """An output's rows, a view for each request.

    Raises:
        ValueError: the output does not have one row for each row of input.
    """
    rows = sum(row_counts)
    if output.ndim == 0 or len(output) != rows:
        raise ValueError(f"an output of shape {output.shape} for a batch of {rows}")
    if len(row_counts) == 1:
        return [output]
    views, start = [], 0
    for count in row_counts:
        views.append(output[start : start + count])
        start += count
    return views
