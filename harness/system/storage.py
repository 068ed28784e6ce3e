"""Where the harness keeps files, and writing them so that a failure has a name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from harness.errors import EnvironmentFailure, StorageError

CACHE_VARIABLE = "HARNESS_CACHE_DIR"


def cache_root() -> Path:
    """The user's cache folder of the harness, or `HARNESS_CACHE_DIR` where that is set.

    The folder need not exist yet: who writes into it makes it.
    """
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override).expanduser().resolve()
    return platformdirs.user_cache_path("triton-distillation-harness")


_PACKAGE = Path(__file__).resolve().parents[1]


def bundled(name: str) -> Path:
    """Path of a bundled file or folder, for example `locustfiles/locustfile.py`.

    Raises:
        EnvironmentFailure: the installation lacks it.
    """
    for root in (_PACKAGE / "_bundled", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise EnvironmentFailure(
        f"this installation of the harness lacks the file {name}",
        next_step="install it anew: pip install --force-reinstall triton-distillation-harness",
    )


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's word on a failed write into a line with a next step.

    Raises:
        StorageError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StorageError(
            f"cannot write to {path}: {error.strerror or error}",
            next_step=(
                "free some space, then continue with --resume: finished trials are kept"
                if full
                else "check the folder's permissions, or choose another folder"
            ),
        ) from error


@contextmanager
def whole_file(path: Path, *, parents: bool = False) -> Iterator[Path]:
    """Yield where to write a file that takes the place of `path` when the block ends well.

    On any error, Ctrl-C included, what was there stays and nothing else is left behind. Missing
    parent folders are made only with `parents`.

    Raises:
        StorageError: instead of OSError.
    """
    unfinished = path.with_name(f".{path.name}.new")
    with storage_errors(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def in_file_names(name: str) -> str:
    """A name that may hold slashes (`owner/model`, a path) as one that file names can hold."""
    return name.replace("/", "-").strip("-")


def utc_now() -> str:
    """Now, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
