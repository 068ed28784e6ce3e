"""Which Python the embedded server's environment is made with.

The server's Python stub is linked against one `libpython`, and numpy < 2 and onnxruntime 1.19.2
have wheels for CPython 3.10 to 3.12 only. The interpreter that runs the harness may be newer, or
lack the shared library: then others on this machine are tried.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ServerEnvironmentError

SUPPORTED_VERSIONS = ("3.11", "3.12", "3.10")
"""In the order of preference after the interpreter that runs the harness."""

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
    """Where its shared library lies; empty where the loader finds it by itself."""


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
