"""Which variants of a repository can be sent load."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.flow.preflight import payloads_of, variants_in


def make(folder: Path, *files: str) -> None:
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).touch()


def test_variants_are_the_folders_with_a_manifest_and_payloads(tmp_path: Path) -> None:
    make(tmp_path / "b", "manifest.json", "payloads.npz")
    make(tmp_path / "a", "manifest.json", "payloads.npz")
    make(tmp_path / "router", "config.pbtxt")
    make(tmp_path / "old", "manifest.json")
    assert list(variants_in(tmp_path)) == ["a", "b"]
    assert payloads_of(tmp_path, "a") == tmp_path / "a" / "payloads.npz"
    with pytest.raises(UsageError, match=r"has no payloads\.npz"):
        payloads_of(tmp_path, "old")
    with pytest.raises(UsageError, match="no variant 'router'"):
        payloads_of(tmp_path, "router")
    assert variants_in(tmp_path / "nowhere") == {}
