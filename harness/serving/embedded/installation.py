"""Fills the embedded server's environment: which Python, a virtual environment, pip's complaints.

The server's Python stub is linked against one `libpython`, and numpy < 2 and onnxruntime 1.19.2
have wheels for CPython 3.10 to 3.12 only. The interpreter that runs the harness may be newer, or
lack the shared library: then others on this machine are tried.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ServerEnvironmentError
from harness.types import Progress
from harness.words.numbers import megabytes

SUPPORTED_VERSIONS = ("3.11", "3.12", "3.10")
"""Python versions in order of preference, after that of the interpreter that runs the harness."""

SYSTEM_PATH = "/usr/local/bin:/usr/bin"
"""Searched after PATH, which pyenv and the like put their own names in front of."""

_PROBE_TIMEOUT_S = 20
# Runs in the candidate. Loading the library is the only honest test: the loader's own search path
# counts as much as the interpreter's folders.
_PROBE = """
import ctypes, json, os, platform, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
name = "libpython%s.so.1.0" % version
folders = [sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib"), ""]
library = None
for folder in folders:
    path = os.path.join(folder or "", name)
    if folder and not os.path.exists(path):
        continue
    try:
        ctypes.CDLL(path)
    except OSError:
        continue
    library = folder or ""
    break
print(json.dumps({
    "version": version,
    "full_version": platform.python_version(),
    "implementation": platform.python_implementation(),
    "library_folder": library,
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can host the server's stub."""

    executable: Path
    version: str
    """Major and minor: 3.11."""
    full_version: str
    library_folder: str
    """Folder of its shared library; empty where the loader finds it by itself."""


def choose_interpreter() -> Interpreter:
    """The first interpreter of this machine that can host the server's stub.

    Raises:
        ServerEnvironmentError: none can; names what each one lacks and how to install one.
    """
    shortcomings = []
    for executable in _candidates():
        found = probe(executable)
        if isinstance(found, Interpreter):
            return found
        shortcomings.append(f"  {executable}: {found}")
    tried = "\n".join(shortcomings) or "  (none found)"
    raise ServerEnvironmentError(
        "the embedded server needs CPython 3.10, 3.11 or 3.12 with its shared library; tried:\n"
        + tried,
        next_step=_installation_hint(),
    )


def probe(executable: Path) -> Interpreter | str:
    """The interpreter behind an executable, or why it cannot serve."""
    try:
        answer = subprocess.run(
            [str(executable), "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return "does not run"
    version = facts["version"]
    if facts["implementation"] != "CPython" or version not in SUPPORTED_VERSIONS:
        return f"is {facts['implementation']} {version}"
    if facts["library_folder"] is None:
        return f"has no libpython{version}.so.1.0"
    return Interpreter(executable, version, facts["full_version"], facts["library_folder"])


def _candidates() -> Iterator[Path]:
    """The running interpreter, then pythonX.Y on PATH and in /usr/bin, each real path once."""
    seen: set[Path] = set()
    names = [f"python{version}" for version in SUPPORTED_VERSIONS]
    paths = [sys.executable]
    paths += [found for name in names if (found := shutil.which(name))]
    paths += [found for name in names if (found := shutil.which(name, path=SYSTEM_PATH))]
    for path in map(Path, paths):
        if path.resolve() not in seen:
            seen.add(path.resolve())
            yield path


def _installation_hint() -> str:
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = running if running in SUPPORTED_VERSIONS else SUPPORTED_VERSIONS[0]
    return (
        f"apt-get install python{version} python{version}-venv libpython{version} "
        f"(or: uv python install {version}, and put it on PATH)"
    )


STAGE = "server environment"
REQUIRED_BYTES = 800_000_000
"""Room for the unpacked packages (380 MB) and for what pip unpacks on the way."""

_KEPT_LINES = 8
_NO_SPACE = re.compile(r"No space left on device|Errno 28|Disk quota exceeded", re.IGNORECASE)
_NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectionError|Connection refused|ConnectTimeout|NameResolutionError|"
    r"Name or service not known|Temporary failure in name resolution|Network is unreachable|"
    r"ReadTimeout|ProxyError|SSLError|Max retries exceeded",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(r"No matching distribution|Could not find a version", re.IGNORECASE)
_STEP = re.compile(r"^(Collecting|Processing|Downloading|Using cached|Installing collected)\b")


def check_room(folder: Path) -> None:
    """Refuse to start what cannot end.

    Args:
        folder: An existing folder on the disk that will hold the environment.

    Raises:
        ServerEnvironmentError: fewer than `REQUIRED_BYTES` are free.
    """
    free = shutil.disk_usage(folder).free
    if free < REQUIRED_BYTES:
        raise _no_space(folder, f"{megabytes(free)} MB are free")


def install(
    interpreter: Interpreter,
    requirements: Path,
    folder: Path,
    progress: Callable[[Progress], None],
) -> None:
    """Make a virtual environment in `folder` and install the pinned requirements into it.

    The requirements name every package, so pip resolves nothing (`--no-deps`).

    Raises:
        ServerEnvironmentError: no network, no space, or pip's own complaint, with the next step.
    """
    own_pip = importlib.util.find_spec("pip") is not None
    with storage_faults(folder):
        _make_venv(interpreter, folder, with_pip=not own_pip)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    if not own_pip:
        pip = [str(python), "-m", "pip"]
    command = [
        *pip,
        "install",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
        "--retries=2",  # with none, pip does not say that the network was the cause
        "--requirement",
        str(requirements),
    ]
    _run_pip(command, folder, total=step_count(requirements), progress=progress)


def step_count(requirements: Path) -> int:
    """Steps of an installation: each package is collected, then all are installed."""
    lines = requirements.read_text("utf-8").splitlines()
    return sum("==" in line for line in lines) + 1


@contextmanager
def storage_faults(folder: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into an error with a next step."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _no_space(folder.parent, str(error.strerror)) from error
        raise ServerEnvironmentError(
            f"the embedded server's environment cannot be written to {folder}: {error}",
            next_step="make the folder writable, or set HARNESS_CACHE_DIR to one that is",
        ) from error


def _make_venv(interpreter: Interpreter, folder: Path, *, with_pip: bool) -> None:
    # Our own pip can fill it; a pip inside is only wanted where the harness has none.
    options = [] if with_pip else ["--without-pip"]
    made = subprocess.run(
        [str(interpreter.executable), "-m", "venv", *options, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode == 0:
        return
    complaint = (made.stderr or made.stdout).strip()
    if _NO_SPACE.search(complaint):
        raise _no_space(folder.parent, complaint.splitlines()[-1])
    version = interpreter.version
    raise ServerEnvironmentError(
        f"{interpreter.executable} cannot make a virtual environment:\n{complaint}",
        next_step=f"apt-get install python{version}-venv, or install pip beside the harness",
    )


def _run_pip(
    command: list[str], folder: Path, *, total: int, progress: Callable[[Progress], None]
) -> None:
    last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
    done = 0
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101  (stdout=PIPE; tells the type checker)
        try:
            for line in map(str.strip, process.stdout):
                if not line or "is neither a file nor a directory" in line:
                    continue
                last_lines.append(line)
                if _STEP.match(line):
                    done += line.startswith(("Collecting", "Processing"))
                    progress(Progress(STAGE, min(done, total), total, line))
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise explain("\n".join(last_lines), folder)


def explain(output: str, folder: Path) -> ServerEnvironmentError:
    """What pip's last lines mean, with the next step."""
    if _NO_SPACE.search(output):
        return _no_space(folder.parent, "pip ran out of space")
    detail = f"pip said:\n{output}"
    if _NO_NETWORK.search(output):
        return ServerEnvironmentError(
            f"no network: the embedded server's packages cannot be fetched; {detail}",
            next_step="check the connection or set PIP_INDEX_URL, then repeat the command; a "
            "machine without network can take the cache folder from one that has it, or the "
            "wheels by PIP_FIND_LINKS with PIP_NO_INDEX=1",
        )
    if _NOT_FOUND.search(output):
        return ServerEnvironmentError(
            f"pip finds no wheel that fits this machine; {detail}",
            next_step="if PIP_NO_INDEX or PIP_INDEX_URL is set, look whether that index has it; "
            "the embedded server needs Linux x86-64 with glibc 2.35 or later: elsewhere run "
            "Triton in a container and give its address with --url",
        )
    return ServerEnvironmentError(
        f"the embedded server's packages cannot be installed; {detail}",
        next_step="fix what pip names, then repeat the command",
    )


def _no_space(folder: Path, detail: str) -> ServerEnvironmentError:
    return ServerEnvironmentError(
        f"disk full: the embedded server's environment needs {megabytes(REQUIRED_BYTES)} MB in "
        f"{folder} ({detail})",
        next_step="free some space there, or set HARNESS_CACHE_DIR to a folder with room",
    )
