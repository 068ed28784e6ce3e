"""Bundled files are found in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import EnvironmentFailure
from harness.system import storage


@pytest.mark.parametrize("name", ["locustfiles/locustfile.py", "studies"])
def test_the_checkout_holds_them(name: str) -> None:
    assert storage.bundled(name).exists()


def test_a_wheel_holds_them_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "harness" / "_bundled" / "studies" / "reference.yaml"
    inside.parent.mkdir(parents=True)
    inside.write_text("name: reference")
    monkeypatch.setattr(storage, "_PACKAGE", tmp_path / "harness")
    assert storage.bundled("studies/reference.yaml") == inside


def test_a_broken_installation_is_named() -> None:
    with pytest.raises(EnvironmentFailure, match=r"lacks the file locustfiles/none\.py") as caught:
        storage.bundled("locustfiles/none.py")
    assert "pip install" in caught.value.next_step
