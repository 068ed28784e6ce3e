"""Locust's own command on the harness's locustfile, as people type it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from load_rig import checkout, environment

from harness import hdr
from harness.types import SparseHistogram

LIMIT_S = 90


def command(*arguments: str, locustfile: Path | None = None) -> list[str]:
    locustfile = locustfile or checkout() / "locustfiles/locustfile.py"
    return [sys.executable, "-m", "locust", "-f", str(locustfile), "--only-summary", *arguments]


def locust(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end, without the page."""
    return subprocess.run(
        command("--headless", *arguments), capture_output=True, text=True, timeout=LIMIT_S,
        env=environment(), check=False, cwd=cwd,
    )  # fmt: skip


def start(
    *arguments: str, log: Path, cwd: Path | None = None, locustfile: Path | None = None
) -> subprocess.Popen[str]:
    """Start and return at once; what it prints goes to a file."""
    with log.open("w") as file:
        return subprocess.Popen(
            command(*arguments, locustfile=locustfile), stdout=file, stderr=subprocess.STDOUT,
            text=True, env=environment(), cwd=cwd,
        )  # fmt: skip


def end(*processes: subprocess.Popen[str]) -> None:
    """Kill what is left."""
    for process in processes:
        process.kill()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def response_of(document: dict[str, Any], outcome: str = "ok") -> SparseHistogram:
    """Response latencies of all phases of a `--histograms` file."""
    encoded = [phase[outcome]["response"]["encoded"] for phase in document["phases"]]
    return hdr.merge(hdr.decode(one) for one in encoded)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
