"""A study's artefacts behind a running embedded Triton."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.pipeline.machinery import Machinery
from harness.pipeline.preparation import PreparedFamily
from harness.serving.embedded import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.environment import ServerEnvironment


@dataclass(frozen=True)
class Served:
    """A running server and the families whose artefacts it can load."""

    families: tuple[PreparedFamily, ...]
    server: EmbeddedTriton
    client: TritonClient


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
            ports=ports,
        ) as server,
        TritonClient(server.endpoint) as client,
    ):
        yield Served(tuple(families), server, client)
