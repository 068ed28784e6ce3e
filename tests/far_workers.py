"""Workers on made-up machines, and a master beside the test that they join over a slow line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import psutil
from fake_server import Behaviour, FakeServer
from load_rig import PATIENCE_S, REQUEST_TIMEOUT_S, Rig, make_payloads, wait_until
from locust_command import end
from net_spaces import NetSpaces, Space

from harness.errors import GeneratorError
from harness.load.generators.master_endpoint import TOKEN_VARIABLE, MasterEndpoint
from harness.load.generators.pool import Joining, LoadGenerators
from harness.load.transports.address import parse_target
from harness.types import WireProtocol

PORT = 5557
TOKEN = "a secret of the tests"


@dataclass
class FarWorkers:
    """The machines, a worker on each, and where they find their master."""

    net: NetSpaces
    spaces: Sequence[Space]
    folder: Path
    processes: list[Popen[str]] = field(default_factory=list)

    @property
    def endpoint(self) -> MasterEndpoint:
        """Of the master, over the slow line."""
        return MasterEndpoint(self.net.address, PORT)

    def log(self, place: int) -> Path:
        """What the worker of a machine says."""
        return self.folder / f"worker-{place}.log"

    def start(self, place: int, *arguments: str, **variables: str) -> Popen[str]:
        """Start a worker on a machine, with a cache of its own; it is ended with the others."""
        own = {TOKEN_VARIABLE: TOKEN, "HARNESS_CACHE_DIR": str(self.folder / f"cache-{place}")}
        process = self.spaces[place].start(
            *(sys.executable, "-m", "harness", "worker", "--join", str(self.endpoint)),
            *arguments, log=self.log(place), env={**os.environ, **own, **variables},
        )  # fmt: skip
        self.processes.append(process)
        return process


@contextmanager
def far_workers(
    net: NetSpaces, spaces: Sequence[Space], folder: Path, *, started: bool = True
) -> Iterator[FarWorkers]:
    """A worker on each machine; `HARNESS_JOIN_TOKEN` has to be `TOKEN` for the master."""
    made = FarWorkers(net, spaces, folder)
    try:
        for place in range(len(spaces) if started else 0):
            made.start(place)
        yield made
    finally:
        end(*made.processes)


@dataclass
class FarRig(Rig):
    """A rig whose generators have joined."""

    told: list[str] = field(default_factory=list)
    """What a person would have read."""


@contextmanager
def far_rig(
    workers: FarWorkers,
    folder: Path,
    *,
    least: int | None = None,
    protocol: WireProtocol = WireProtocol.HTTP,
) -> Iterator[FarRig]:
    """A fake server that the machines reach, and a master that waits for all of their workers."""
    told: list[str] = []
    expected = len(workers.spaces)
    joining = Joining(
        workers.endpoint, expected=expected, least=least or expected, tell=told.append
    )
    with FakeServer(host=workers.net.server_address) as server:
        generators = LoadGenerators(
            http=parse_target(server.http),
            grpc=parse_target(server.grpc),
            workers=joining,
            log_dir=folder / "logs",
            request_timeout_s=REQUEST_TIMEOUT_S,
        )
        with generators:
            yield FarRig(server, generators, make_payloads(folder), protocol=protocol, told=told)


def connected_to(rig: FarRig) -> bool:
    """Whether a worker still has a connection to the server: it does while it sends."""
    port = int(rig.server.http.rpartition(":")[2])
    return any(
        one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
        for one in psutil.Process().net_connections("tcp")
    )


def first_load(rig: FarRig, records: Path) -> None:
    """A load that makes each worker import what records are written with.

    It says nothing meanwhile, and on a busy machine may count as gone: it is asked again.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            rig.run(Behaviour(), records=records)
        except GeneratorError:
            if time.monotonic() >= deadline_s:
                raise
            wait_until(lambda: not connected_to(rig))
        else:
            return
