"""Files by their digests: whole, or not at all, and only those that were offered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import EnvironmentFailure, StorageError
from harness.load.generators.notices import SentFile, sent_file
from harness_locust import pieces
from harness_locust.pieces import FileExchange


class Pair:
    """A master that offers files, and a worker that asks for them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.master = FileExchange(lambda kind, data: self._pass(self.worker, kind, data))
        self.worker = FileExchange(lambda kind, data: self._pass(self.master, kind, data))

    def _pass(self, to: FileExchange, kind: str, data: dict[str, Any]) -> None:
        self.sent.append((kind, data))
        {"harness_need": to.on_need, "harness_piece": to.on_piece}[kind](data)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10)
    monkeypatch.setattr(pieces, "PATIENCE_S", 0.05)
    return Pair()


def offered(pair: Pair, path: Path, content: bytes) -> SentFile:
    path.write_bytes(content)
    file = sent_file(path)
    pair.master.offer(file.sha256, path)
    return file


@pytest.mark.parametrize("size", [0, 1, 10, 11, 35])
def test_a_file_comes_whole_in_pieces(pair: Pair, tmp_path: Path, size: int) -> None:
    file = offered(pair, tmp_path / "a", bytes(range(size)))
    there = tmp_path / "there" / "b"
    pair.worker.fetch(file, there)
    assert there.read_bytes() == bytes(range(size))
    assert sum(kind == "harness_need" for kind, _ in pair.sent) == -(-size // 10)
    assert [one.name for one in there.parent.iterdir()] == ["b"]


def test_what_was_not_offered_is_not_given(pair: Pair, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    with pytest.raises(EnvironmentFailure, match="nobody has offered such a file"):
        pair.worker.fetch(sent_file(secret), tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert all(b"secret" not in str(data).encode() for _, data in pair.sent)


@pytest.mark.parametrize("changed", [b"0123456789another", b"0123", b"0123456789and a longer one"])
def test_a_file_that_changed_meanwhile_is_not_taken(
    pair: Pair, tmp_path: Path, changed: bytes
) -> None:
    file = offered(pair, tmp_path / "a", b"0123456789the rest")
    (tmp_path / "a").write_bytes(changed)
    with pytest.raises(EnvironmentFailure, match="a: "):
        pair.worker.fetch(file, tmp_path / "b")
    assert {one.name for one in tmp_path.iterdir()} == {"a"}


def test_a_piece_that_does_not_come_ends_it(pair: Pair, tmp_path: Path) -> None:
    file = offered(pair, tmp_path / "a", b"0123456789the rest")
    pair.master.on_need = lambda _: None  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFailure, match="no more of it came"):
        pair.worker.fetch(file, tmp_path / "b")
    pair.worker.on_piece({"sha256": file.sha256, "offset": 0, "data": b"late", "problem": ""})
    assert {one.name for one in tmp_path.iterdir()} == {"a"}


def test_a_place_that_cannot_be_written_is_said(pair: Pair, tmp_path: Path) -> None:
    file = offered(pair, tmp_path / "a", b"0123456789")
    with pytest.raises(StorageError, match="a/b: "):
        pair.worker.fetch(file, tmp_path / "a" / "b")
