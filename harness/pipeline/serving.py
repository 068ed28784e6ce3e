"""A study's artefacts behind a running embedded Triton."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from harness.pipeline.machinery import Machinery
from harness.pipeline.preparation import PreparedFamily
from harness.serving.embedded import EmbeddedTriton
from harness.serving.endpoint import Endpoint, TritonClient
from harness.serving.environment import ServerEnvironment


class Server(Protocol):
    """A running server, ours or anybody's."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        ...

    @property
    def pid(self) -> int | None:
        """Of its process; None where it runs on another machine."""
        ...

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            ServerError: it does not.
        """
        ...


class ModelClient(Protocol):
    """What a trial asks of a model's server beside the load itself.

    Both raise ServerError where there is no answer.
    """

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model."""
        ...

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One request."""
        ...


@dataclass(frozen=True)
class Site:
    """Where trials are measured."""

    server: Server
    client: ModelClient
    control: TritonClient | None
    """Loads models as a trial asks; None where the server is measured as it is."""


@dataclass(frozen=True)
class Served:
    """A running server and the families whose artefacts it can load."""

    families: tuple[PreparedFamily, ...]
    server: Server
    client: TritonClient

    @property
    def site(self) -> Site:
        """For trials, which may load what they need."""
        return Site(self.server, self.client, self.client)


@contextmanager
def serve(
    families: Sequence[PreparedFamily],
    environment: ServerEnvironment,
    machinery: Machinery,
    *,
    log_file: Path,
    ports: tuple[int, int, int] | None = None,
) -> Iterator[Served]:
    """Start Triton on the repository; no model is loaded yet.

    Raises:
        ServerError: it does not start.
    """
    with (
        EmbeddedTriton(
            environment,
            machinery.repository,
            log_file=log_file,
            cpus=machinery.cpus_server,
            ports=ports or machinery.ports,
        ) as server,
        TritonClient(server.endpoint) as client,
    ):
        yield Served(tuple(families), server, client)
