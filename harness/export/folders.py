"""Artefact folders that appear whole or not at all, and the manifest that lies in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import StorageError
from harness.system.storage import storage_errors
from harness.types import TensorSpec
from harness.words.numbers import asked

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
                f"another harness has been exporting into {repository} for {asked(timeout_s)} s",
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
        StorageError: instead of OSError.
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


FILE_NAME = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ArtefactManifest:
    """The contents of `<variant>/manifest.json`."""

    variant: str
    source: str
    """The checkpoint, as the study names it."""
    recipe: Mapping[str, Any]
    """All that decides what the artefact is: an equal recipe needs no second export."""
    sha256: str
    size_bytes: int
    parameters: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parity: Mapping[str, Any]
    warmup: Mapping[str, Sequence[int]]
    """Shape of the one sample in `warmup/`, by input, without the batch dimension."""
    schema_version: int = SCHEMA_VERSION


def write_manifest(folder: Path, manifest: ArtefactManifest) -> None:
    """Write `manifest.json` into an artefact's folder."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True)
    (folder / FILE_NAME).write_text(f"{text}\n", encoding="utf-8")


def read_manifest(folder: Path) -> ArtefactManifest | None:
    """The manifest of an artefact's folder; None when there is none that this version reads."""
    try:
        fields = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        if fields["schema_version"] != SCHEMA_VERSION:
            return None
        for side in ("inputs", "outputs"):
            fields[side] = tuple(
                TensorSpec(one["name"], one["datatype"], tuple(one["shape"]))
                for one in fields[side]
            )
        return ArtefactManifest(**fields)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing, cut short, or of another version: the artefact is made again


def digest_files(files: Sequence[Path]) -> str:
    """SHA-256 of one file; of several, of the list of their names and digests."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(files) == 1:
        return digests[0]
    listing = "".join(
        f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)
    )
    return hashlib.sha256(listing.encode()).hexdigest()
