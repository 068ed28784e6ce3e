"""The text of a data file, read strictly: a replaced byte would change what the model is asked."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from harness.errors import DataError

_GZIP = b"\x1f\x8b"
_OTHER_KINDS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive (or a spreadsheet)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"SQLite format 3": "an SQLite database",
}
"""First bytes of what is often taken for text."""
_BYTE_ORDERS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_LOOKED_AT = 400
"""Bytes."""
_MANY_ZEROS = 0.25
"""Of them: UTF-16 without a mark is read as UTF-8 with a zero after each letter."""


def read_text(path: Path) -> str:
    """The whole of a file in UTF-8, with or without a byte-order mark; one made by gzip is opened.

    Raises:
        DataError: it cannot be read, or is something else: with what, and the line.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: a gzip file that is cut short or broken: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    _check_kind(path, data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})",
            next_step=f"convert it, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from error


def _check_kind(path: Path, data: bytes) -> None:
    for first, kind in _OTHER_KINDS.items():
        if data.startswith(first):
            raise DataError(
                f"{path}: is {kind}, not text",
                next_step="save the rows as CSV or as JSON lines (of pandas: "
                "frame.to_json(FILE, orient='records', lines=True)); gzip is read as it is",
            )
    start = data[:_LOOKED_AT]
    encoding = next((name for mark, name in _BYTE_ORDERS.items() if data.startswith(mark)), "")
    if not encoding and start.count(0) > _MANY_ZEROS * len(start):
        encoding = "utf-16le" if start[1:2] == b"\x00" else "utf-16be"
    if encoding:
        raise DataError(
            f"{path}, line 1: {encoding.upper()}, not UTF-8",
            next_step=f"convert it: iconv -f {encoding} -t utf-8 {path.name}",
        )
