"""Files between a worker and its master, by what is in them: asked for and sent piece by piece.

A piece is asked for when the one before has come, so neither side holds more of a file than that,
and nothing else has to wait for long.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult

from harness.errors import EnvironmentFailure, StorageError
from harness.load.generators.notices import SentFile

PIECE_BYTES = 1 << 20
PATIENCE_S = 60.0
"""For one piece; a network that is cut for seconds brings it late."""


class FileExchange:
    """What one side can be asked for, and its own questions.

    Args:
        send: sends a message of Locust's: its type and data.
    """

    def __init__(self, send: Callable[[str, dict[str, Any]], None]) -> None:
        self._send = send
        self._offered: dict[str, Path] = {}
        self._sent_bytes: dict[str, int] = {}
        self._awaited: dict[tuple[str, int], AsyncResult[dict[str, Any]]] = {}

    def offer(self, sha256: str, path: Path) -> None:
        """From now on the other side may ask for a file."""
        self._offered[sha256] = path

    def sent_bytes(self, sha256: str) -> int:
        """How far into an offered file the other side has asked for it."""
        return self._sent_bytes.get(sha256, 0)

    def fetch(self, file: SentFile, path: Path) -> None:
        """Get a file from the other side, whole or not at all; other greenlets run meanwhile.

        Args:
            file: as the other side named it.
            path: where it is put.

        Raises:
            EnvironmentFailure: it did not come, or something else came.
            StorageError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".piece-")
            try:
                with os.fdopen(descriptor, "wb") as out:
                    digest = self._copy(file, out.write)
                if digest != file.sha256:
                    raise EnvironmentFailure(f"{file.path}: what came is not what was named")
                os.replace(name, path)  # noqa: PTH105  (mkstemp speaks of names)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error

    def _copy(self, file: SentFile, write: Callable[[bytes], object]) -> str:
        digest, offset = hashlib.sha256(), 0
        while offset < file.size:
            piece = self._ask(file, offset)
            digest.update(piece)
            write(piece)
            offset += len(piece)
        return digest.hexdigest()

    def _ask(self, file: SentFile, offset: int) -> bytes:
        key = (file.sha256, offset)
        self._awaited[key] = answer = AsyncResult()
        try:
            self._send("harness_need", {"sha256": file.sha256, "offset": offset})
            came = answer.get(timeout=PATIENCE_S)
        except gevent.Timeout:
            raise EnvironmentFailure(
                f"{file.path}: no more of it came for {PATIENCE_S:.0f} s"
            ) from None
        finally:
            del self._awaited[key]
        data: bytes = came["data"]
        if not data or offset + len(data) > file.size:
            raise EnvironmentFailure(
                f"{file.path}: {came['problem'] or 'it has changed meanwhile'}"
            )
        return data

    def on_need(self, asked: dict[str, Any]) -> None:
        """Answer a question of the other side's, if it is about a file that it may have."""
        sha256, offset = str(asked["sha256"]), int(asked["offset"])
        path, data, problem = self._offered.get(sha256), b"", ""
        try:
            if path is None:
                raise FileNotFoundError("nobody has offered such a file")
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(PIECE_BYTES)
            known = self._sent_bytes.get(sha256, 0)
            self._sent_bytes[sha256] = max(known, offset + len(data))
        except OSError as error:
            problem = error.strerror or str(error)
        answer = {"sha256": sha256, "offset": offset, "data": data, "problem": problem}
        self._send("harness_piece", answer)

    def on_piece(self, came: dict[str, Any]) -> None:
        """Take in an answer; one that nobody waits for any more is dropped."""
        waiting = self._awaited.get((str(came["sha256"]), int(came["offset"])))
        if waiting is not None and isinstance(came["data"], bytes):
            waiting.set(came)
