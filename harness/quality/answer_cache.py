"""Answers that need not be asked for again: a file an artefact, in the harness's cache.

An answer is kept under the identity of the model that gave it and of what was asked. So a repeated
run, or a second task on the same text, asks nothing twice, and another model's answers are never
taken for this one's, whatever the two are called.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from harness.errors import StorageError

FORMAT = 2
"""Of the values: raise it when they are written otherwise."""
_KEYS_A_QUERY = 500
"""SQLite takes a bounded number of parameters in one statement."""


class AnswerCache:
    """What one model answered, by the digest of the request.

    Args:
        folder: where the files lie.
        identity: all that decides what it answers: the artefact's digest (on a server of somebody
            else's what stands in for it), its tokenizer's files, how it is executed.
    """

    def __init__(self, folder: Path, *identity: str) -> None:
        name = hashlib.sha256("\n".join(identity).encode()).hexdigest()
        self.path = folder / f"{name}-{FORMAT}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write to {folder}: {error.strerror}") from error
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS answers (request BLOB PRIMARY KEY, answer BLOB)"
            )

    def get(self, requests: Sequence[bytes]) -> dict[bytes, bytes]:
        """The answers there are, by request.

        Raises:
            StorageError: the file cannot be read.
        """
        keys = {_digest(request): request for request in requests}
        found: dict[bytes, bytes] = {}
        names = list(keys)
        with self._open() as database:
            for start in range(0, len(names), _KEYS_A_QUERY):
                part = names[start : start + _KEYS_A_QUERY]
                places = ",".join("?" * len(part))
                rows = database.execute(
                    f"SELECT request, answer FROM answers WHERE request IN ({places})",  # noqa: S608  (question marks alone)
                    part,
                )
                found.update((keys[key], answer) for key, answer in rows)
        return found

    def add(self, answers: Mapping[bytes, bytes]) -> None:
        """Keep answers; they are on disk when this returns.

        Raises:
            StorageError: the file cannot be written.
        """
        rows: Iterable[tuple[bytes, bytes]] = (
            (_digest(request), answer) for request, answer in answers.items()
        )
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def forget(self) -> None:
        """Drop every answer: some may be another model's."""
        with self._open() as database:
            database.execute("DELETE FROM answers")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection a call: callers may be of any thread, and a call costs microseconds.
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise StorageError(
                f"the answer cache {self.path} cannot be used: {error}",
                next_step="remove that file, or add --no-cache",
            ) from error


def _digest(request: bytes) -> bytes:
    return hashlib.sha256(request).digest()
