"""What the reference models are not trained for, said before anything is."""

import pytest

from harness.errors import CheckpointError, MissingExtraError, StorageError
from harness.reference import build
from harness.reference.build import build_reference


def unheard(progress):
    pytest.fail(f"something was begun: {progress}")


def test_another_seed_has_a_store_of_its_own():
    assert build._digest(1) != build._digest(2)
    assert build._digest(1) == build._digest(1)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(CheckpointError, match="topics-titan") as caught:
        build_reference(["topics-titan"], seed=1, progress=unheard)
    assert "topics-teacher" in caught.value.next_step


def test_without_the_extra_the_message_is_the_install_command(monkeypatch):
    monkeypatch.setattr(build, "find_spec", lambda name: None if name == "sklearn" else object())
    with pytest.raises(MissingExtraError, match="sklearn"):
        build_reference(["topics-teacher"], seed=1, progress=unheard)


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        build_reference(["topics-tiny"], seed=1, cache_dir=tmp_path / "file", progress=unheard)
    assert "HARNESS_CACHE_DIR" in caught.value.next_step
