"""What is planned from a run, one JSON document a question: a plan, a policy, a decision.

They lie in the run folder beside the verdict. Another question gets another number, so that none
is overwritten: `plan.json`, then `plan-2.json`. The newest counts; the same again is not written
twice.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.errors import RunFolderError
from harness.system.storage import replace_text

Document = TypeVar("Document")


def write_document(folder: Path, name: str, document: object) -> Path:
    """Write a document beside those of its name; its path.

    Args:
        folder: a run folder.
        name: what it answers, such as `plan`.
        document: a frozen dataclass.

    Raises:
        StorageError: it cannot be written.
    """
    adapter = TypeAdapter(type(document))
    text = json.dumps(adapter.dump_python(document, mode="json"), indent=2) + "\n"
    known = documents_of(folder, name)
    if known and known[max(known)].read_text(encoding="utf-8") == text:
        return known[max(known)]
    number = max(known, default=0) + 1
    path = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
    replace_text(path, text)
    return path


def rewrite_document(path: Path, document: object) -> None:
    """Replace a document that is not finished yet, whole or not at all.

    Args:
        path: as `write_document` gave it.
        document: a frozen dataclass of the same kind.

    Raises:
        StorageError: it cannot be written.
    """
    found = TypeAdapter(type(document)).dump_python(document, mode="json")
    replace_text(path, json.dumps(found, indent=2) + "\n")


def read_document(folder: Path, name: str, kind: type[Document]) -> Document | None:
    """The newest document of a name; None where there is none.

    Raises:
        RunFolderError: it cannot be read as one of its kind.
    """
    known = documents_of(folder, name)
    return _read(known[max(known)], name, kind) if known else None


def read_documents(folder: Path, name: str, kind: type[Document]) -> list[Document]:
    """All documents of a name, the newest last.

    Raises:
        RunFolderError: one cannot be read as one of its kind.
    """
    return [_read(path, name, kind) for _, path in sorted(documents_of(folder, name).items())]


def _read(path: Path, name: str, kind: type[Document]) -> Document:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunFolderError(
            f"{path} is not a {name} that this version wrote: {error}",
            next_step=f"make it again with harness {name}, or delete it",
        ) from error


def documents_of(folder: Path, name: str) -> dict[int, Path]:
    """The documents of a name by their number, which grows with time."""
    numbered = re.compile(rf"{re.escape(name)}(?:-(\d+))?\.json")
    return {
        int(match[1] or 1): path
        for path in folder.glob(f"{name}*.json")
        if (match := numbered.fullmatch(path.name))
    }
