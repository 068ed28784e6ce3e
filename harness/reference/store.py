"""Folders that are either whole or not there: written aside, sealed with digests, renamed."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import StorageError

SEAL_FILE = "complete.json"


def is_complete(folder: Path) -> bool:
    """Whether the folder is sealed and every file still has the content it was sealed with."""
    try:
        sealed = json.loads((folder / SEAL_FILE).read_text(encoding="utf-8"))["files"]
        return bool(sealed == _digests(folder))
    except (OSError, ValueError, KeyError, TypeError):
        # Missing, unreadable or damaged: for the caller it is all the same, it makes it again.
        return False


def make_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fills a new folder through `write` and puts it in the place of `folder` in one step.

    When `write` fails or is interrupted nothing is left behind, and what was there stays.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            fresh = Path(scratch) / folder.name
            fresh.mkdir()
            write(fresh)
            seal = {"files": _digests(fresh)}
            (fresh / SEAL_FILE).write_text(json.dumps(seal, indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror or error}",
            next_step="free some disk space, or set HARNESS_CACHE_DIR to a folder that has it",
        ) from error


def sweep(root: Path) -> None:
    """Removes what processes that were killed outright have left half made under `root`."""
    for leftover in root.glob(".*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file, relative to the folder, without the seal itself."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL_FILE
    }
