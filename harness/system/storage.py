"""Writing to disk so that a failure has a name and a next step, and no file is ever half there."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's word on a failed write into a line with a next step.

    Raises:
        StorageError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StorageError(
            f"cannot write to {path}: {error.strerror or error}",
            next_step=(
                "free some space, then go on with --resume: finished trials are kept"
                if full
                else "check the folder's permissions, or choose another --out"
            ),
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    with storage_errors(path.parent):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def utc_now() -> str:
    """Now, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
