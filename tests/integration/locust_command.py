"""Locust's own command on the harness's locustfile, as people type it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_server import FakeServer
from load_rig import PATIENCE_S, checkout, environment, wait_until

from harness import hdr
from harness.types import SparseHistogram

LIMIT_S = 300
"""For a Locust that ends by itself. It takes seconds to start, and a busy machine minutes."""


AS_TYPED = ("-m", "locust")
SOONER = ("-c", "import harness_locust.patched; from locust.main import main; main()")
"""The same, started in two thirds of the processor time."""


def command(
    *arguments: str, locustfile: Path | None = None, start: tuple[str, str] = SOONER
) -> list[str]:
    locustfile = locustfile or checkout() / "locustfiles/locustfile.py"
    return [sys.executable, *start, "-f", str(locustfile), "--only-summary", *arguments]


def locust(
    *arguments: str,
    cwd: Path | None = None,
    until: Callable[[str], object] | None = None,
    locustfile: Path | None = None,
    start: tuple[str, str] = SOONER,
) -> subprocess.CompletedProcess[str]:
    """Run to the end, without the page.

    Args:
        arguments: beside `--headless`.
        cwd: where it runs.
        until: asked with what it has said on standard error; once that is true, Ctrl-C ends it.
        locustfile: instead of the product's.
        start: how the interpreter starts Locust.
    """
    asked = command("--headless", *arguments, locustfile=locustfile, start=start)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                asked, stdout=stdout, stderr=stderr, text=True, env=environment(), cwd=cwd
            )
        try:
            if until is not None:
                wait_until(
                    lambda: process.poll() is not None or until(err.read_text()),
                    patience_s=LIMIT_S,
                )
                interrupt(process)
            process.wait(LIMIT_S)
        finally:
            end(process)
        return subprocess.CompletedProcess(
            asked, process.returncode, out.read_text(), err.read_text()
        )


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, where there is still somebody to press it for."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)


def served(server: FakeServer, count: int, *, for_s: float = 0.0) -> Callable[[str], bool]:
    """For `locust(until=)`: so many requests were answered, from the first to the last so long."""

    def enough(_: str) -> bool:
        known = server.served
        return len(known) >= count and known[-1].answered_ns - known[0].received_ns >= for_s * 1e9

    return enough


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
        process.wait(PATIENCE_S)


def response_of(document: dict[str, Any], outcome: str = "ok") -> SparseHistogram:
    """Response latencies of all phases of a `--histograms` file."""
    encoded = [phase[outcome]["response"]["encoded"] for phase in document["phases"]]
    return hdr.merge(hdr.decode(one) for one in encoded)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
