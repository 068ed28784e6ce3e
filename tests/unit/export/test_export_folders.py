"""Manifests and the folders they lie in."""

import dataclasses
import errno
import hashlib
import json
import threading

import pytest

from harness.errors import StorageError
from harness.export.folders import (
    FILE_NAME,
    ArtefactManifest,
    digest_files,
    read_manifest,
    repository_lock,
    staged_folder,
    write_manifest,
)
from harness.types import TensorSpec

MANIFEST = ArtefactManifest(
    variant="m-int8",
    source="./m",
    recipe={"revision": 1, "inputs": ["input_ids"], "versions": {"torch": "2.13.0"}},
    sha256="ab" * 32,
    size_bytes=7,
    parameters=5,
    inputs=(TensorSpec("input_ids", "INT64", (-1,)),),
    outputs=(TensorSpec("logits", "FP32", (3,)),),
    parity={"max_difference": 1e-6, "shapes": [[1, 2]]},
    warmup={"input_ids": [16]},
)


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"schema_version": 1', '"schema_version": 99'),
        lambda text: text.replace('"sha256"', '"sha1"'),
    ],
)
def test_a_manifest_that_cannot_be_read_counts_as_none(tmp_path, spoil):
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / FILE_NAME
    path.write_text(spoil(path.read_text()))
    assert read_manifest(tmp_path) is None
    path.unlink()
    assert read_manifest(tmp_path) is None


def test_the_manifest_is_json_with_every_field(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    fields = json.loads((tmp_path / FILE_NAME).read_text())
    assert set(fields) == {field.name for field in dataclasses.fields(ArtefactManifest)}


def test_the_digest_of_one_file_is_plain_and_of_two_covers_both(tmp_path):
    one, two = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    one.write_bytes(b"graph")
    two.write_bytes(b"weights")
    assert digest_files([one]) == hashlib.sha256(b"graph").hexdigest()
    both = digest_files([one, two])
    two.write_bytes(b"weight5")
    assert len({both, digest_files([one]), digest_files([one, two])}) == 3


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_staged_folder_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "m"
    for text in ("old", "new"):
        with staged_folder(target) as folder:
            (folder / text).touch()
            assert not (target / text).exists()
    assert contents(target) == ["new"]
    assert contents(tmp_path) == ["m"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_one_leaves_the_old_and_no_litter(tmp_path, error):
    target = tmp_path / "m"
    with staged_folder(target) as folder:
        (folder / "old").touch()

    def interrupted():
        with staged_folder(target) as folder:
            (folder / "half").touch()
            raise error

    with pytest.raises(error):
        interrupted()
    assert contents(target) == ["old"]
    assert contents(tmp_path) == ["m"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".m.new" / "1").mkdir(parents=True)
    (tmp_path / ".m.old").mkdir()
    with staged_folder(tmp_path / "m") as folder:
        assert contents(folder) == []
    assert contents(tmp_path) == ["m"]


def test_a_full_disk_has_a_name(tmp_path):
    with (
        pytest.raises(StorageError, match="No space left") as caught,
        staged_folder(tmp_path / "m"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "free some space" in caught.value.next_step
    assert contents(tmp_path) == []


def test_a_repository_that_cannot_be_made_has_a_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError), repository_lock(tmp_path / "file" / "repository"):
        pass


def test_a_second_export_waits_its_turn_and_then_gives_up(tmp_path):
    held, done = threading.Event(), threading.Event()

    def hold():
        with repository_lock(tmp_path):
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(30)
        with (
            pytest.raises(StorageError, match="another harness") as caught,
            repository_lock(tmp_path, timeout_s=0.2),
        ):
            pass
        assert "choose another --repository" in caught.value.next_step
    finally:
        done.set()
        holder.join()
    with repository_lock(tmp_path, timeout_s=0.2):
        pass
