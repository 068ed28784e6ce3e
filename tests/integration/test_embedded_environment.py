"""The server environment's faults: no network, no space, broken, made by two at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import ServerEnvironmentError
from harness.serving.embedded import installation
from harness.serving.embedded.environment import (
    ServerEnvironment,
    ensure_server_environment,
    environment_digest,
    find_server_environment,
    is_complete,
)
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.types import Progress
from tests.held_up import PATIENCE_S

pytestmark = pytest.mark.triton


def ignore(_: Progress) -> None:
    pass


@pytest.fixture
def copy(server_environment: ServerEnvironment, tmp_path: Path):
    """A cache folder with a copy of the environment (hard links: replace files, never write)."""
    folder = server_environment.python.parents[1]
    shutil.copytree(folder, tmp_path / "cache" / folder.name, symlinks=True, copy_function=os.link)
    return tmp_path / "cache" / folder.name


@pytest.fixture
def no_network(monkeypatch):
    """pip reaches neither an index nor its cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # port of the discard service


def test_a_complete_environment_is_found_at_once(copy: Path):
    told: list[Progress] = []
    found = ensure_server_environment(told.append, cache_dir=copy.parent)
    assert found.python.parents[1] == copy
    assert told == []
    assert find_server_environment(cache_dir=copy.parent) == found
    answer = subprocess.run(
        [
            found.python,
            "-I",
            "-c",
            "import numpy, onnxruntime as o; print(numpy.__version__, o.__version__)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    numpy_version, runtime_version = answer.stdout.split()
    assert numpy_version.startswith("1.")
    assert runtime_version == "1.19.2"


def test_damage_is_noticed(copy: Path):
    assert is_complete(copy)
    package = next(copy.glob("lib/python3.*/site-packages/onnxruntime"))
    content = (package / "__init__.py").read_bytes()
    (package / "__init__.py").unlink()
    assert not is_complete(copy)
    (package / "__init__.py").write_bytes(content[:-1])
    assert not is_complete(copy)
    (package / "__init__.py").write_bytes(content)
    assert is_complete(copy)
    (copy / "bin" / "python").unlink()
    assert not is_complete(copy)


def test_a_damaged_backend_is_replaced(copy: Path):
    environment = ensure_server_environment(ignore, cache_dir=copy.parent)
    (environment.backends / "onnxruntime" / "model.py").unlink()
    again = ensure_server_environment(ignore, cache_dir=copy.parent)
    assert (again.backends / "onnxruntime" / "model.py").is_file()
    assert os.access(again.backends / "python" / "triton_python_backend_stub", os.X_OK)


@pytest.mark.slow
def test_a_broken_environment_is_repaired_by_one_of_two(
    copy: Path, tiny_repository: Path, tmp_path: Path
):
    next(copy.glob("lib/python3.*/site-packages/pytriton/tritonserver/bin/tritonserver")).unlink()
    (copy.parent / f"{copy.name}.building-interrupted").mkdir()
    told: list[Progress] = []
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(ensure_server_environment, told.append, cache_dir=copy.parent)
            for _ in range(2)
        ]
        environments = [future.result() for future in both]
    assert environments[0] == environments[1]
    notes = [progress.note for progress in told]
    assert sum(note.startswith("repairing") for note in notes) == 1
    assert sum(note.startswith("ready") for note in notes) == 1
    assert any("onnxruntime" in note for note in notes)
    assert all(0 <= progress.done <= progress.total for progress in told)
    assert not list(copy.parent.glob("*.building-*"))
    with (
        EmbeddedTriton(environments[0], tiny_repository, log_file=tmp_path / "log") as server,
        TritonClient(server.endpoint) as client,
    ):
        client.load("tiny")


def test_no_network_names_the_next_step_and_leaves_nothing(tmp_path: Path, no_network):
    cache = tmp_path / "cache"
    assert find_server_environment(cache_dir=cache) is None
    with pytest.raises(ServerEnvironmentError, match="no network") as caught:
        ensure_server_environment(ignore, cache_dir=cache)
    assert "PIP_INDEX_URL" in caught.value.next_step
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_broken_environment_without_network_is_kept_for_later(copy: Path, no_network):
    """A failed repair must not throw away what a working network could still use."""
    (copy / ".complete").unlink()
    with pytest.raises(ServerEnvironmentError, match="no network"):
        ensure_server_environment(ignore, cache_dir=copy.parent)
    assert (copy / "bin" / "python").exists()


def test_forbidden_cache_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerEnvironmentError, match="cannot be written") as caught:
        ensure_server_environment(ignore, cache_dir=tmp_path / "file" / "cache")
    assert "HARNESS_CACHE_DIR" in caught.value.next_step


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 40 MB: more than an empty virtual environment, less than the packages."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_is_seen_before_anything_is_fetched(small_disk: Path):
    with pytest.raises(ServerEnvironmentError, match="disk full") as caught:
        ensure_server_environment(ignore, cache_dir=small_disk / "cache")
    assert "HARNESS_CACHE_DIR" in caught.value.next_step


@pytest.mark.slow
def test_disk_that_fills_up_meanwhile_is_named(small_disk: Path, monkeypatch):
    monkeypatch.setattr(installation, "REQUIRED_BYTES", 0)
    with pytest.raises(ServerEnvironmentError, match="disk full"):
        ensure_server_environment(ignore, cache_dir=small_disk / "cache")
    assert not list((small_disk / "cache").glob("server-*/*"))


def test_interrupted_while_it_is_made_leaves_nothing(tmp_path: Path):
    program = (
        "import sys; from pathlib import Path\n"
        "from harness.serving.embedded.environment import ensure_server_environment\n"
        "ensure_server_environment(lambda p: print(p.note, flush=True), "
        "cache_dir=Path(sys.argv[1]))\n"
    )
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    for line in process.stdout:
        if line.startswith(("Collecting", "Processing")):
            break
    process.send_signal(2)
    _, complaint = process.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in complaint
    deadline = time.monotonic() + PATIENCE_S
    while list(cache.glob("server-*/")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(cache.glob("server-*/"))


def test_the_digest_tells_environments_apart():
    digest = environment_digest(b"numpy==1.26.4", "3.11")
    assert digest == environment_digest(b"numpy==1.26.4", "3.11")
    assert (
        len(
            {
                digest,
                environment_digest(b"numpy==1.26.3", "3.11"),
                environment_digest(b"numpy==1.26.4", "3.12"),
            }
        )
        == 3
    )
