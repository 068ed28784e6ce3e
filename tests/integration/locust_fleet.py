"""Locust's master and two workers, as people start them: by the same command."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from fake_server import FakeServer
from load_rig import checkout, make_payloads, wait_until
from locust_command import LIMIT_S, end, interrupt, start

from tests.ports import free_port

WORKERS = 2
CLOSED = ("--users", "4", "--spawn-rate", "4")
_PATCHED = """
import os, sys, time
import gevent
sys.path.insert(0, {locustfiles!r})
from locustfile import *
"""
_BACK_WITHIN = """
import harness_locust.fleets as fleets

fleets.BACK_WITHIN_S = {seconds}
"""


class Fleet:
    """A master and its workers, all by the same command."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        worker_cwd: Path | None = None,
        locustfile: Path | None = None,
        masters_locustfile: Path | None = None,
    ) -> None:
        """`locustfile` is the first worker's, instead of the product's."""
        port = str(free_port())
        self.log = folder / "master.log"
        self.workers = [
            start(
                *("--worker", "--master-port", port), cwd=worker_cwd,
                log=folder / f"worker-{index}.log", locustfile=None if index else locustfile,
            )
            for index in range(WORKERS)
        ]  # fmt: skip
        self.master = start(
            *("--headless", "--master", "--master-bind-port", port),
            *("--expect-workers", str(WORKERS), *arguments),
            log=self.log, cwd=folder, locustfile=masters_locustfile,
        )  # fmt: skip

    def end_when(self, true: Callable[[], object]) -> int:
        """Press Ctrl-C on the master once something is true; its exit code."""
        try:
            wait_until(lambda: self.master.poll() is not None or true())
            interrupt(self.master)
        except BaseException:
            end(self.master, *self.workers)
            raise
        return self.wait()

    def wait(self) -> int:
        try:
            code = self.master.wait(LIMIT_S)
            for worker in self.workers:
                worker.wait(LIMIT_S)
        finally:
            end(self.master, *self.workers)
        return code

    def said(self) -> str:
        return self.log.read_text()

    def wait_until_said(self, *words: str) -> None:
        """One of these."""

        def said() -> bool:
            assert self.master.poll() is None, self.said()
            return any(one in self.said() for one in words)

        wait_until(said, patience_s=LIMIT_S)


def patched_locustfile(folder: Path, patch: str, *, name: str = "patched.py") -> Path:
    """The product's locustfile, and what is done to it before Locust starts."""
    path = folder / name
    path.write_text(_PATCHED.format(locustfiles=str(checkout() / "locustfiles")) + patch)
    return path


def master_that_waits(folder: Path, seconds: float) -> Path:
    """A locustfile whose master waits so long for the last word of a worker that is missing."""
    return patched_locustfile(folder, _BACK_WITHIN.format(seconds=seconds), name="patient.py")


def wait_until_served(server: FakeServer, count: int) -> None:
    wait_until(lambda: len(server.served) >= count, patience_s=LIMIT_S)


def wait_until_all_have_told(server: FakeServer, metrics_port: int) -> None:
    """Until every worker has told the master of a request that was answered.

    Each is answered one first, by the server's own record. Of the reports that a worker makes, a
    second apart, one may be known by then, and two have been made and be on their way: the fourth
    has it.
    """
    wait_until(lambda: len(processes_served(server)) == WORKERS, patience_s=LIMIT_S)
    told: dict[str, set[str]] = {}

    def all_have_told() -> bool:
        time.sleep(0.5)  # the page is the master's work: asked all the time, it hears no heartbeat
        for worker, cpu_s in cpu_told(metrics_port).items():
            told.setdefault(worker, set()).add(cpu_s)
        return len(told) == WORKERS and min(map(len, told.values())) >= 4

    wait_until(all_have_told, patience_s=LIMIT_S)


def processes_served(server: FakeServer) -> set[str]:
    """What the ids of their requests have in common, of each process that sent some."""
    return {one.identity[: -len("000000000000")] for one in server.served}


def cpu_told(metrics_port: int) -> dict[str, str]:
    """The processor time of each process by the master's metrics page; each report adds to it."""
    try:
        url = f"http://127.0.0.1:{metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            page: str = answer.read().decode()
    except OSError:
        return {}
    return dict(re.findall(r"^harness_generator_cpu_seconds_total(\{.*\}) (.*)$", page, re.M))


def plan(server: FakeServer, folder: Path, *more: str, protocol: str = "http") -> list[str]:
    make_payloads(folder)
    host = f"{protocol}://{getattr(server, protocol)}"
    return [
        *("--host", host, "--model", "m", "--payloads", "payloads.npz"),
        *("--histograms", "histograms.json", *more),
    ]
