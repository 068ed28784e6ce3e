"""Arrays of a payload file: what of numpy's types a tensor can be made of, and how it is stored.

Texts are arrays of Python's `bytes` while they are in memory, as tritonclient wants them: numpy's
fixed-width bytes lose the zero bytes at an element's end. An archive holds no Python objects, so
there a tensor of bytes is two arrays, `NAME#bytes` and `NAME#lengths`, and one of bfloat16, for
which numpy has no name, is `NAME#bf16` (its bits). What other programs wrote is taken too:
fixed-width bytes and texts, and pickled arrays of objects as far as they hold bytes or texts.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.transports.contract import datatype_of

_BYTES, _LENGTHS, _BF16 = "#bytes", "#lengths", "#bf16"
_CLASSES = {
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""All that the pickle of an array of bytes or texts calls for; anything else may run code."""


def as_tensor(where: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array as requests are made of it: little-endian numbers, or an object array of `bytes`.

    Args:
        where: what to call it in an error.
        array: of any type.

    Raises:
        DataError: no tensor has such elements.
    """
    if datatype_of(array) is None:
        raise DataError(
            f"{where} holds {array.dtype}, neither numbers nor texts",
            next_step="texts are arrays of str, of bytes, or of objects that are one or the other",
        )
    if array.dtype.kind not in "SUO":
        return array.astype(array.dtype.newbyteorder("<"), copy=False)
    elements = np.empty(array.size, object)
    elements[:] = [_element(where, one) for one in array.reshape(-1).tolist()]
    return elements.reshape(array.shape)


def row_bytes(array: NDArray[Any]) -> int:
    """What the first row takes."""
    if array.dtype.kind == "O":
        return sum(map(len, array[:1].reshape(-1)))
    return int(array[:1].nbytes)


def to_archive(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What is stored of a tensor (of `as_tensor`), by its key."""
    if array.dtype == ml_dtypes.bfloat16:
        return {name + _BF16: array.view(np.uint16)}
    if array.dtype.kind != "O":
        return {name: array}
    elements = array.reshape(-1).tolist()
    lengths = np.array([len(one) for one in elements], np.int64)
    return {
        name + _BYTES: np.frombuffer(b"".join(elements), np.uint8),
        name + _LENGTHS: lengths.reshape(array.shape),
    }


def from_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of an archive by its name there.

    Raises:
        DataError: Python objects other than bytes and texts, or a tensor of bytes in pieces that
            do not fit each other.
        OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile: it is not an archive of
            numpy's.
    """
    arrays = dict(_arrays(path))
    for name in [one.removesuffix(_LENGTHS) for one in arrays if one.endswith(_LENGTHS)]:
        if name + _BYTES in arrays:
            lengths, content = arrays.pop(name + _LENGTHS), arrays.pop(name + _BYTES)
            arrays[name] = _cut(f"{path}: {name}", lengths, content)
    for name in [one.removesuffix(_BF16) for one in arrays if one.endswith(_BF16)]:
        arrays[name] = arrays.pop(name + _BF16).view(ml_dtypes.bfloat16)
    return {name: as_tensor(f"{path}: {name}", array) for name, array in arrays.items()}


def _arrays(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise TypeError("it is a single array without a name")
    with loaded as archive:
        for key in archive.files:
            try:
                yield key, archive[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                yield key, _objects(path, key)


def _cut(where: str, lengths: NDArray[Any], content: NDArray[Any]) -> NDArray[Any]:
    ends = np.cumsum(lengths.reshape(-1))
    if content.dtype != np.uint8 or (ends[-1] if ends.size else 0) != content.size:
        raise DataError(f"{where}: its bytes are not as many as its lengths say")
    whole, elements = content.tobytes(), np.empty(lengths.size, object)
    starts = [0, *ends.tolist()]
    elements[:] = [whole[a:b] for a, b in pairwise(starts)]
    return elements.reshape(lengths.shape)


def _element(where: str, one: object) -> bytes:
    if isinstance(one, bytes):
        return one
    if not isinstance(one, str):
        raise DataError(
            f"{where} holds a {type(one).__name__} among its objects, neither bytes nor text",
            next_step="numbers are arrays of a number's type, such as int64 or float32",
        )
    try:
        return one.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds a text that UTF-8 cannot carry: {error}") from error


def _objects(path: Path, key: str) -> NDArray[Any]:
    """A pickled array of objects, as far as nothing but bytes and texts is made of it."""
    with ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, *_ = read_header(file)
        try:
            array = _Plain(file).load()
        except (pickle.UnpicklingError, AttributeError, IndexError) as error:
            raise DataError(
                f"{path}: {key} is a pickle that is not read, as it may run code: {error}",
                next_step="write texts as numpy.array(texts), or with "
                "harness.load.requests.payloads.write_payloads",
            ) from error
    return np.asarray(array, object).reshape(shape)


class _Plain(pickle.Unpickler):
    """Makes nothing but arrays, bytes, texts and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        """A class or function that the pickle calls for."""
        try:
            return _CLASSES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it calls for {module}.{name}") from None
