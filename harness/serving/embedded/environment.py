"""The embedded server's own Python environment: made once, found again, repaired when broken.

It stands in for NVIDIA's container: `tritonserver` itself comes out of the wheel `nvidia-pytriton`,
beside the numpy 1.x that Triton's Python stub needs and the ONNX Runtime that release 24.10 has.
The harness's own environment never sees these packages, and they never see the harness's.

    <cache>/server-<digest>/                 a virtual environment; `.complete` says what it holds
    <cache>/server-<digest>/backends-<d>/    Triton's --backend-directory: python/, onnxruntime/

It is built beside its final name and then renamed, so it is there as a whole or not at all. Scripts
in its `bin` name the old folder and are never called; `bin/python` finds itself wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.serving.embedded.installation import (
    STAGE,
    Interpreter,
    check_room,
    choose_interpreter,
    install,
    step_count,
    storage_faults,
)
from harness.system.storage import cache_root
from harness.types import Progress

LAYOUT_VERSION = 1
"""Raised when the folder's layout changes, so that older folders are left alone."""

_PACKAGE = Path(__file__).parent
_REQUIREMENTS = _PACKAGE / "requirements.txt"
_BACKENDS = _PACKAGE.parent / "backends"
_MARKER = ".complete"


@dataclass(frozen=True)
class ServerEnvironment:
    """Where the parts of the embedded server lie."""

    python: Path
    """Interpreter of the environment; it runs neither pip nor the harness."""
    tritonserver: Path
    backends: Path
    """Folder for Triton's `--backend-directory`."""
    library_path: str
    """`LD_LIBRARY_PATH` of the server and its stubs."""
    digest: str
    """Digest of the requirements, the Python version and the layout; part of the folder's name."""

    @property
    def caches(self) -> Path:
        """Triton's `--cache-directory`: the response cache's library."""
        return self.tritonserver.parent.parent / "caches"


def ensure_server_environment(
    progress: Callable[[Progress], None], *, cache_dir: Path | None = None
) -> ServerEnvironment:
    """The embedded server's environment, made or repaired where that is needed.

    Takes about a minute the first time (90 MB are fetched), milliseconds afterwards. Several
    processes may call it at once: one makes it, the others wait.

    Args:
        progress: Told each step of making it; not called when it is there.
        cache_dir: Where environments lie; the user's cache folder by default.

    Raises:
        ServerEnvironmentError: no suitable Python, no network, no space; with the next step.
    """
    interpreter = choose_interpreter()
    folder = _folder(interpreter, cache_dir)
    if not is_complete(folder):
        with storage_faults(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_name(f"{folder.name}.lock"))
            with _acquire(lock, progress):
                if not is_complete(folder):
                    _build(interpreter, folder, progress)
    with storage_faults(folder):
        return _describe(interpreter, folder)


def find_server_environment(*, cache_dir: Path | None = None) -> ServerEnvironment | None:
    """The environment if it is there as a whole, else None; makes and fetches nothing.

    Raises:
        ServerEnvironmentError: no suitable Python.
    """
    interpreter = choose_interpreter()
    folder = _folder(interpreter, cache_dir)
    if not is_complete(folder):
        return None
    with storage_faults(folder):
        return _describe(interpreter, folder)


def environment_digest(requirements: bytes, python_version: str) -> str:
    """First 12 hexadecimal digits of the SHA-256 over all that makes an environment another one."""
    identity = b"\0".join([requirements, python_version.encode(), str(LAYOUT_VERSION).encode()])
    return hashlib.sha256(identity).hexdigest()[:12]


def is_complete(folder: Path) -> bool:
    """Whether an environment is there as a whole: nothing missing, nothing cut short.

    Compares the number and the sizes of its files with what was there when it was made: a check of
    some 50 ms that finds a deleted package, a truncated library and a vanished base interpreter.
    """
    try:
        recorded = json.loads((folder / _MARKER).read_text("utf-8"))
        python_runs = os.access(folder / "bin" / "python", os.X_OK)
        library = Path(recorded["library_folder"] or "/")
        return bool(python_runs and library.is_dir() and recorded["packages"] == _inventory(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _acquire(
    lock: FileLock, progress: Callable[[Progress], None]
) -> AbstractContextManager[object]:
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        progress(Progress(STAGE, 0, 1, "another process is making it: waiting"))
        return lock.acquire()


def _build(interpreter: Interpreter, folder: Path, progress: Callable[[Progress], None]) -> None:
    _remove_leftovers(folder)
    check_room(folder.parent)
    what = "repairing" if folder.exists() else "making"
    steps = step_count(_REQUIREMENTS)
    progress(Progress(STAGE, 0, steps, f"{what} {folder} with {interpreter.executable}"))
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.building-", dir=folder.parent))
    try:
        install(interpreter, _REQUIREMENTS, building, progress)
        _make_runnable(building, interpreter.version)
        marker = {
            "python": interpreter.full_version,
            "library_folder": interpreter.library_folder,
            "packages": _inventory(building),
        }
        (building / _MARKER).write_text(json.dumps(marker, indent=2), "utf-8")
        if folder.exists():
            # Renamed first, because a server that still runs from it keeps its open files.
            folder.rename(folder.with_name(f"{folder.name}.building-broken"))
        building.rename(folder)
    finally:
        _remove_leftovers(folder)
    progress(Progress(STAGE, steps, steps, f"ready: {folder}"))


def _remove_leftovers(folder: Path) -> None:
    """Delete what an interrupted build left; the caller holds the lock."""
    for leftover in folder.parent.glob(f"{folder.name}.building-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _make_runnable(folder: Path, version: str) -> None:
    # A wheel may lose the run bits on its way through an index mirror.
    server = _server_parts(folder)
    for program in (server / "bin" / "tritonserver", _stub(folder, version)):
        program.chmod(0o755)


def _ensure_backends(folder: Path, version: str) -> Path:
    """Triton's backend directory for this release of the harness, inside the environment.

    Its name holds a digest of our backends' source: a changed backend needs no new environment.
    """
    sources = sorted(_BACKENDS.rglob("*.py"))
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
    target = folder / f"backends-{digest[:8]}"
    if _are_intact(target, sources):
        return target
    building = Path(tempfile.mkdtemp(prefix=f"{target.name}.building-", dir=folder))
    building.chmod(0o755)
    shutil.copytree(_server_parts(folder) / "backends" / "python", building / "python")
    shutil.copy2(_stub(folder, version), building / "python")
    for backend in _BACKENDS.iterdir():
        if (backend / "model.py").is_file():
            shutil.copytree(
                backend, building / backend.name, ignore=shutil.ignore_patterns("__pycache__")
            )
    if target.exists():
        target.rename(building / "replaced")
    try:
        building.rename(target)
    except OSError:
        if not _are_intact(target, sources):  # else another process was faster, with the same
            raise
        shutil.rmtree(building)
    return target


def _are_intact(backends: Path, sources: Sequence[Path]) -> bool:
    copies = [backends / source.relative_to(_BACKENDS) for source in sources]
    triton = ("libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub")
    return all(
        copy.is_file() and copy.stat().st_size == source.stat().st_size
        for copy, source in zip(copies, sources, strict=True)
    ) and all((backends / "python" / name).is_file() for name in triton)


def _folder(interpreter: Interpreter, cache_dir: Path | None) -> Path:
    digest = environment_digest(_REQUIREMENTS.read_bytes(), interpreter.version)
    return (cache_dir or cache_root()) / f"server-{digest}"


def _describe(interpreter: Interpreter, folder: Path) -> ServerEnvironment:
    # The library that belongs to the interpreter it was made with, which need not be this one.
    recorded = json.loads((folder / _MARKER).read_text("utf-8"))
    libraries = [str(_site_packages(folder) / "nvidia_pytriton.libs"), recorded["library_folder"]]
    return ServerEnvironment(
        python=folder / "bin" / "python",
        tritonserver=_server_parts(folder) / "bin" / "tritonserver",
        backends=_ensure_backends(folder, interpreter.version),
        library_path=":".join(filter(None, libraries)),
        digest=folder.name.removeprefix("server-"),
    )


def _inventory(folder: Path) -> dict[str, int]:
    """Number and total size of the installed files, compiled Python left out (it may change)."""
    files = size = 0
    for parent, folders, names in os.walk(_site_packages(folder)):
        folders[:] = [name for name in folders if name != "__pycache__"]
        files += len(names)
        size += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)  # noqa: PTH118  (10,000 files: Path doubles the time)
    return {"files": files, "bytes": size}


def _site_packages(folder: Path) -> Path:
    found = sorted(folder.glob("lib/python3.*/site-packages"))
    if not found:
        raise FileNotFoundError(folder / "lib")
    return found[0]


def _server_parts(folder: Path) -> Path:
    return _site_packages(folder) / "pytriton" / "tritonserver"


def _stub(folder: Path, version: str) -> Path:
    stubs = _server_parts(folder) / "python_backend_stubs"
    return stubs / version / "triton_python_backend_stub"
