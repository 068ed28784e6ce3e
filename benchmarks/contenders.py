"""The clients that `generator_capacity` compares, each started alike and watched from outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cached_model import CACHED_MODEL, OUTPUTS, rows
from client_process import ClientProcess
from naive_locust import NaiveLoad, drive_naively
from ours import closed_loop, drive_ours
from peers import PeerLoad, PeerRun, PerfAnalyzer

from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.serving.endpoint import Endpoint

_BARE_TRANSPORT = Path(__file__).with_name("bare_transport.py")
_GRACE_S = 120.0


@dataclass(frozen=True)
class Point:
    """What every client is asked for."""

    protocol: str
    in_flight: int
    seconds: float
    """How long it drives load, start-up left out."""


class Run(Protocol):
    """A client that drives load now and ends by itself."""

    @property
    def pids(self) -> Sequence[int]:
        """The processes whose time it costs."""

    def check(self) -> None:
        """Raise what ended it, if it ended by an error."""

    def percentiles_ms(self) -> Mapping[str, float]:
        """Wait for its end; what it says of the latency: `p50`, `p99`."""


Drive = Callable[[Point], AbstractContextManager[Run]]


@dataclass(frozen=True)
class Server:
    """Whom they ask, and with what."""

    endpoint: Endpoint
    payloads: Path

    def address(self, protocol: str) -> str:
        """HOST:PORT of its side that speaks the protocol."""
        return self.endpoint.http if protocol == "http" else self.endpoint.grpc


@dataclass(frozen=True)
class HarnessLocust:
    """Ours, as every trial drives it: Locust, recorder, checks, validity."""

    server: Server
    generators: LoadGenerators

    def __call__(self, point: Point) -> AbstractContextManager[Run]:
        """Drive."""
        workload = closed_loop(point.protocol, in_flight=point.in_flight, seconds=point.seconds)
        job = LoadJob(CACHED_MODEL, self.server.payloads, OUTPUTS, workload)
        return drive_ours(self.generators, job)


@dataclass(frozen=True)
class HarnessBare:
    """Our transports without Locust."""

    server: Server

    @contextmanager
    def __call__(self, point: Point) -> Iterator[Run]:
        """Drive."""
        command = [sys.executable, str(_BARE_TRANSPORT), point.protocol]
        command += [self.server.address(point.protocol), CACHED_MODEL, str(self.server.payloads)]
        command += [str(point.in_flight), str(point.seconds)]
        with ClientProcess(command) as process:
            yield _BareRun(process, point.seconds + _GRACE_S)


@dataclass(frozen=True)
class NaiveLocust:
    """Locust with tritonclient as everybody writes it."""

    server: Server

    def __call__(self, point: Point) -> AbstractContextManager[Run]:
        """Drive."""
        address = f"{point.protocol}://{self.server.address(point.protocol)}"
        return drive_naively(NaiveLoad(address, CACHED_MODEL, point.in_flight, point.seconds))


@dataclass(frozen=True)
class PerfAnalyzerClient:
    """NVIDIA's perf_analyzer."""

    server: Server
    program: PerfAnalyzer

    @contextmanager
    def __call__(self, point: Point) -> Iterator[Run]:
        """Drive."""
        row = {name: array[0] for name, array in rows(1).items()}
        address = self.server.address(point.protocol)
        load = PeerLoad(address, point.protocol, CACHED_MODEL, row, point.in_flight)
        with self.program.drive_for(load, point.seconds) as run:
            yield _PerfAnalyzerRun(run, point.seconds + _GRACE_S)


@dataclass(frozen=True)
class _BareRun:
    process: ClientProcess
    timeout_s: float
    pids: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pids", (self.process.pid,))

    def check(self) -> None:
        self.process.check()

    def percentiles_ms(self) -> Mapping[str, float]:
        percentiles: dict[str, float] = json.loads(self.process.wait(self.timeout_s))
        return percentiles


@dataclass(frozen=True)
class _PerfAnalyzerRun:
    run: PeerRun
    timeout_s: float

    @property
    def pids(self) -> Sequence[int]:
        return self.run.pids

    def check(self) -> None:
        self.run.check()

    def percentiles_ms(self) -> Mapping[str, float]:
        return self.run.percentiles_ms(self.timeout_s)
