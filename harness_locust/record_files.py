"""The file of every request, where one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.load.records.requests import RecordWriter


def open_records(path: Path | None) -> RecordWriter | None:
    """Begin a process's file; None without a path.

    Imported only then: pyarrow takes 90 MB of memory and a second.

    Raises:
        StorageError: it cannot be written.
    """
    if path is None:
        return None
    from harness.load.records.requests import RecordWriter

    return RecordWriter(path)
