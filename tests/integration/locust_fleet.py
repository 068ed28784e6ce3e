"""Locust's master and two workers, as people start them: by the same command."""

from __future__ import annotations

import time
from pathlib import Path

from fake_server import FakeServer
from load_rig import make_payloads
from locust_command import LIMIT_S, end, free_port, start

WORKERS = 2


class Fleet:
    """A master and its workers, all by the same command."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        worker_cwd: Path | None = None,
        locustfile: Path | None = None,
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
            log=self.log, cwd=folder,
        )  # fmt: skip

    def wait(self) -> int:
        try:
            code = self.master.wait(LIMIT_S)
            for worker in self.workers:
                worker.wait(20)
        finally:
            end(self.master, *self.workers)
        return code

    def said(self) -> str:
        return self.log.read_text()

    def wait_until_said(self, words: str) -> None:
        deadline_s = time.monotonic() + LIMIT_S
        while words not in self.said():
            assert time.monotonic() < deadline_s, self.said()
            assert self.master.poll() is None, self.said()
            time.sleep(0.1)


def wait_until_served(server: FakeServer, count: int) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while len(server.served) < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def plan(server: FakeServer, folder: Path, *more: str, protocol: str = "http") -> list[str]:
    make_payloads(folder)
    host = f"{protocol}://{getattr(server, protocol)}"
    return [
        *("--host", host, "--model", "m", "--payloads", "payloads.npz"),
        *("--histograms", "histograms.json", *more),
    ]
