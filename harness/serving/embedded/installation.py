"""Fills the embedded server's environment: a virtual environment, pip, and pip's complaints."""

from __future__ import annotations

import errno
import importlib.util
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import ServerEnvironmentError
from harness.serving.embedded.interpreters import Interpreter
from harness.types import Progress

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
        raise _no_space(folder, f"{free / 1e6:.0f} MB are free")


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
            raise _no_space(folder, str(error.strerror)) from error
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
        raise _no_space(folder, complaint.splitlines()[-1])
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
        return _no_space(folder, "pip ran out of space")
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
        f"disk full: the embedded server's environment needs {REQUIRED_BYTES / 1e6:.0f} MB in "
        f"{folder.parent} ({detail})",
        next_step="free some space there, or set HARNESS_CACHE_DIR to a folder with room",
    )
