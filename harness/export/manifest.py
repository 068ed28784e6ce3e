"""What lies beside an artefact: where it came from, what it takes, how near it is to its source.

It holds no time and no path, so the same export writes the same manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.types import TensorSpec

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
        return None  # missing, cut short, or of another version: the artefact is made anew


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
