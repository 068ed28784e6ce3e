"""A folder of the store is whole or not there."""

import errno
import json
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.reference.units import SEAL_FILE, is_complete, make_folder


def fill(text: str = "weights"):
    def write(folder: Path) -> None:
        (folder / "model.bin").write_text(text)
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.json").write_text("{}")

    return write


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "store" / "model"
    make_folder(made, fill())
    return made


def test_a_made_folder_is_complete_and_alone(folder):
    assert is_complete(folder)
    assert (folder / "model.bin").read_text() == "weights"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_that_is_not_there_is_not_complete(tmp_path):
    assert not is_complete(tmp_path / "nothing")


def damage_seal(folder: Path) -> None:
    (folder / SEAL_FILE).write_text("{half")


def other_seal(folder: Path) -> None:
    (folder / SEAL_FILE).write_text(json.dumps(["not", "a", "seal"]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.bin").write_text("weight5"),
        lambda folder: (folder / "tokenizer" / "vocab.json").unlink(),
        lambda folder: (folder / SEAL_FILE).unlink(),
        lambda folder: (folder / "stray.txt").write_text("not sealed"),
        damage_seal,
        other_seal,
    ],
    ids=["changed", "file gone", "seal gone", "file added", "seal cut", "seal of another shape"],
)
def test_damage_is_seen_and_mended(folder, damage):
    damage(folder)
    assert not is_complete(folder)
    make_folder(folder, fill("again"))
    assert is_complete(folder)
    assert (folder / "model.bin").read_text() == "again"
    assert not (folder / "stray.txt").exists()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_nothing_new_and_keeps_what_was(folder, failure):
    def write(fresh: Path) -> None:
        (fresh / "model.bin").write_text("half")
        raise failure

    with pytest.raises(failure):
        make_folder(folder, write)
    with pytest.raises(failure):
        make_folder(folder.with_name("other"), write)
    assert is_complete(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_full_disk_is_said_with_the_next_step(tmp_path):
    def write(fresh: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device") as caught:
        make_folder(tmp_path / "model", write)
    assert "HARNESS_CACHE_DIR" in caught.value.next_step


def test_a_place_that_is_no_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        make_folder(tmp_path / "file" / "model", fill())
