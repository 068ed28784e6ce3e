"""Text on disk -> sources, digest, splits."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import MissingExtraError
from harness.reference import corpus
from harness.reference.corpus import Split, package_folder, read_sources, source_digest, split_of


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)
    return folder


def test_sources_come_in_one_order_with_names_relative_to_the_package(tmp_path):
    write(tmp_path, b="2", a__z="1", a__b="0")
    (tmp_path / "notes.txt").write_text("not Python")
    assert [(s.name, s.text) for s in read_sources(tmp_path)] == [
        ("a/b.py", "0"),
        ("a/z.py", "1"),
        ("b.py", "2"),
    ]


def test_bytes_that_are_no_utf8_do_not_stop_the_reading(tmp_path):
    (tmp_path / "old.py").write_bytes(b"caf\xe9")
    assert [s.text for s in read_sources(tmp_path)] == ["caf\N{REPLACEMENT CHARACTER}"]


def test_the_digest_sees_contents_and_names(tmp_path):
    base = source_digest(write(tmp_path / "base", a="1", b="2"))
    assert source_digest(write(tmp_path / "same", a="1", b="2")) == base
    assert source_digest(write(tmp_path / "text", a="1", b="3")) != base
    assert source_digest(write(tmp_path / "name", a="1", c="2")) != base
    assert source_digest(write(tmp_path / "swap", a="2", b="1")) != base


def test_the_splits_have_their_shares():
    counts = Counter(split_of(f"nn/file_{n}.py", n % 7) for n in range(5000))
    assert counts[Split.TRAIN] / 5000 == pytest.approx(0.7, abs=0.03)
    assert counts[Split.VALIDATION] / 5000 == pytest.approx(0.1, abs=0.02)
    assert counts[Split.TEST] / 5000 == pytest.approx(0.2, abs=0.03)


@given(st.text(min_size=1), st.integers(min_value=0, max_value=10_000))
def test_a_block_has_one_split_for_ever(name, block):
    assert split_of(name, block) is split_of(name, block)


def test_known_blocks_keep_their_split():
    """A change here means that test rows of earlier releases are trained on in this one."""
    assert [split_of("nn/modules/linear.py", block) for block in range(8)] == PINNED


PINNED = [Split.VALIDATION if block in {2, 5} else Split.TRAIN for block in range(8)]


def test_the_package_is_found_without_importing_it():
    assert (package_folder() / "nn" / "modules" / "linear.py").is_file()


def test_without_torch_the_message_is_the_install_command(monkeypatch):
    monkeypatch.setattr(corpus, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        package_folder()
    assert "[export]" in caught.value.next_step
