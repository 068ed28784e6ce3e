import sys
from pathlib import Path

import pytest

from harness.errors import ServerEnvironmentError
from harness.serving.embedded import installation
from harness.serving.embedded.installation import Interpreter, choose_interpreter, probe


def fake_python(folder: Path, name: str, answer: str) -> Path:
    """A program that answers the probe as an interpreter of our choice would."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def facts(version: str, library: str | None = "", implementation: str = "CPython") -> str:
    folder = "null" if library is None else f'"{library}"'
    return (
        f'{{"version": "{version}", "full_version": "{version}.9", '
        f'"implementation": "{implementation}", "library_folder": {folder}}}'
    )


def test_the_running_interpreter_is_described_truly():
    found = probe(Path(sys.executable))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if isinstance(found, Interpreter):
        assert found.version == version
        library = Path(found.library_folder) / f"libpython{version}.so.1.0"
        assert not found.library_folder or library.exists()
    else:
        assert version in found


@pytest.mark.parametrize(
    ("answer", "shortcoming"),
    [
        (facts("3.13"), "is CPython 3.13"),
        (facts("3.11", implementation="PyPy"), "is PyPy 3.11"),
        (facts("3.11", library=None), "has no libpython3.11.so.1.0"),
        ("not json", "does not run"),
    ],
)
def test_unsuitable_interpreters_say_why(tmp_path: Path, answer: str, shortcoming: str):
    assert probe(fake_python(tmp_path, "python3", answer)) == shortcoming


def test_missing_interpreter_does_not_run(tmp_path: Path):
    assert probe(tmp_path / "python3") == "does not run"


def test_a_newer_harness_takes_an_older_interpreter(tmp_path: Path, monkeypatch):
    running = fake_python(tmp_path, "python3.13", facts("3.13"))
    older = fake_python(tmp_path, "python3.12", facts("3.12", library="/opt/lib"))
    monkeypatch.setattr(sys, "executable", str(running))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    # 3.11 comes before 3.12 where it exists, so it is hidden here.
    fake_python(tmp_path, "python3.11", facts("3.11", library=None))
    assert choose_interpreter() == Interpreter(older, "3.12", "3.12.9", "/opt/lib")


def test_no_interpreter_names_each_one_and_the_remedy(tmp_path: Path, monkeypatch):
    running = fake_python(tmp_path, "python3.13", facts("3.13"))
    monkeypatch.setattr(sys, "executable", str(running))
    monkeypatch.setattr(installation, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerEnvironmentError, match=r"python3\.13: ") as caught:
        choose_interpreter()
    assert "apt-get install python3.11" in caught.value.next_step
