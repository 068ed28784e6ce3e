"""Folders that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import StorageError
from harness.storage import storage_errors

LOCK_TIMEOUT_S = 1800


@contextmanager
def repository_lock(repository: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Let one process at a time write artefacts into a model repository.

    Raises:
        StorageError: another process has held it for too long, or the folder cannot be written.
    """
    lock = FileLock(repository / ".export.lock")
    with storage_errors(repository):
        repository.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout as error:
            raise StorageError(
                f"another harness has been exporting into {repository} for {timeout_s:.0f} s",
                next_step="wait for it to end, or choose another --repository",
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def scratch_folder(repository: Path) -> Iterator[Path]:
    """Yield an empty folder on the repository's own disk, gone afterwards.

    Hold the repository's lock: there is one such folder.

    Raises:
        StorageError: it cannot be made.
    """
    folder = repository / ".export-scratch"
    with storage_errors(repository):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the target's place when the block ends well.

    On any error, Ctrl-C included, the target stays as it was and nothing is left behind; what a
    killed process left is removed by the next.

    Raises:
        StorageError: in place of OSError.
    """
    fresh = target.with_name(f".{target.name}.new")
    replaced = target.with_name(f".{target.name}.old")
    with storage_errors(target.parent):
        for leftover in (fresh, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
    try:
        with storage_errors(target.parent):
            yield fresh
            if target.exists():
                target.rename(replaced)
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
