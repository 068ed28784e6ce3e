"""What a run's manifest says of the machine and of the checkout."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

from harness.system import machine


def test_reading_the_revision_writes_nothing_into_the_checkout(tmp_path, monkeypatch):
    """git status else refreshes the index under a lock, which stays where it is cut off."""
    package = tmp_path / "harness" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    for asked in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *asked], check=True)
    os.utime(package, (1, 1))  # the index now has to be refreshed
    index = (tmp_path / ".git" / "index").read_bytes()
    monkeypatch.setattr(machine, "harness", SimpleNamespace(__file__=str(package)))
    revision = machine.source_revision()
    assert revision is not None
    assert len(revision) == 40
    assert (tmp_path / ".git" / "index").read_bytes() == index
    package.write_text("changed")
    assert machine.source_revision() == revision + "+changes"
