"""A server that is already up: found by its address, asked what it is, and what it lacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import ServerError, UsageError
from harness.flow.external.identity import Identities
from harness.flow.preflight import check_live, takes_binary
from harness.flow.serving import Site
from harness.load.generators.pool import REQUEST_TIMEOUT_S
from harness.load.requests.payloads import Group
from harness.load.transports.address import Target, parse_target
from harness.load.transports.opening import transport_opener
from harness.serving.external.grpc import GrpcServer
from harness.serving.external.http import HttpServer
from harness.serving.external.server import (
    BINARY_TENSORS,
    ExternalModel,
    ExternalServer,
    ServerFacts,
)
from harness.telemetry.triton import scrape
from harness.types import GrpcImplementation, WireProtocol, Workload

PROTOCOLS = {
    "http": WireProtocol.HTTP,
    "https": WireProtocol.HTTP,
    "grpc": WireProtocol.GRPC,
    "grpcs": WireProtocol.GRPC,
}
TRITON = "triton"
"""Triton's name for itself."""
METRICS_PORT = 8002
"""Port of Triton's metrics page, unless Triton was started with another."""


@dataclass(frozen=True)
class ExternalAddress:
    """Address of an external server, and the protocol it is asked in."""

    url: str
    target: Target
    protocol: WireProtocol
    metrics_url: str | None = None
    """Address of its metrics page; None tries Triton's usual port."""


@dataclass(frozen=True)
class OpenServer:
    """A server that answers and takes requests, and how it is to be spoken to."""

    address: ExternalAddress
    """The server's address; its bodies are JSON where the server takes no others."""
    server: ExternalServer
    facts: ServerFacts
    identities: Identities
    """The identities of its models."""

    def site(self) -> Site:
        """For trials that take its models as they are."""
        target, metrics = self.address.target, self.server.endpoint.metrics
        return Site(
            self.server,
            self.server,
            control=None,
            targets={self.address.protocol: target},
            read_page=_page_reader(self.address, metrics),
            check_model=self.identities.check,
        )

    def lacking(self, model: str) -> tuple[str, ...]:
        """What this server does not offer, in words; it is shown as missing, never as zero.

        Args:
            model: one that is loaded there.
        """
        lacks = []
        if self.address.protocol is WireProtocol.HTTP and not self.address.target.binary:
            lacks.append("the binary tensor extension (bodies are JSON)")
        if self.server.config(model) is None:
            lacks.append("model configurations")
        try:
            self.server.statistics(model)
        except ServerError:
            lacks.append("statistics (queue, compute, executed batches)")
        asked_for = self.server.asked_for
        if not self.server.endpoint.metrics:
            tried = " (--metrics-url names another address)" if self.facts.name == TRITON else ""
            lacks.append(f"a metrics page{tried}")
        if asked_for:
            named = ", ".join(f"--header '{one}: VALUE'" for one in asked_for)
            lacks.append(f"what it restricts to those who name {named}")
        return tuple(lacks)

    def as_json(self) -> OpenServer:
        """The same server, spoken to in JSON bodies."""
        target = dataclasses.replace(self.address.target, binary=False)
        address = dataclasses.replace(self.address, target=target)
        server = connect_external(address, self.server.endpoint.metrics)
        identities = Identities(server, address.url)
        return dataclasses.replace(self, address=address, server=server, identities=identities)

    @property
    def may_take_json_alone(self) -> bool:
        """Whether it does not say which bodies it takes."""
        is_http = self.address.protocol is WireProtocol.HTTP
        return is_http and self.address.target.binary and not self.facts.told


def parse_url(
    url: str,
    headers: Sequence[str],
    *,
    ca_file: Path | None,
    verify: bool,
    metrics_url: str | None = None,
) -> ExternalAddress:
    """Read `grpcs://host:8001` with headers such as `Authorization: Bearer ...`.

    Raises:
        UsageError: no protocol, no address, or a header that cannot be sent.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in PROTOCOLS:
        raise UsageError(
            f"'{url}' has no known protocol",
            next_step="write it as http://HOST:PORT[/PREFIX], https://, grpc:// or grpcs://",
        )
    if metrics_url is not None and urlsplit(metrics_url).scheme not in {"http", "https"}:
        raise UsageError(
            f"--metrics-url {metrics_url} is not an address of a page",
            next_step="write it as http://HOST:8002/metrics",
        )
    pairs = tuple((name.strip(), value.strip()) for name, value in map(_header, headers))
    target = parse_target(url, headers=pairs, ca_file=ca_file, verify=verify)
    return ExternalAddress(url, target, PROTOCOLS[scheme], metrics_url)


@contextmanager
def open_external(address: ExternalAddress) -> Iterator[OpenServer]:
    """A server that answers and takes requests.

    Raises:
        UsageError: it does not, or its metrics page was named and is not there.
    """
    first = connect_external(address, "")
    try:
        check_live(first, address.url)
        facts = first.facts()
    finally:
        first.close()
    # A server that tells nothing is tried with both (`settled`).
    binary = BINARY_TENSORS in facts.extensions or not facts.told
    target = dataclasses.replace(address.target, binary=binary)
    found = dataclasses.replace(address, target=target)
    server = connect_external(found, _metrics_page(found, facts))
    try:
        yield OpenServer(found, server, facts, Identities(server, address.url))
    finally:
        server.close()


def settled(
    opened: OpenServer,
    model: ExternalModel,
    groups: Sequence[Group],
    workload: Workload,
    grpc: GrpcImplementation,
) -> OpenServer:
    """The server with the bodies that it takes: tried where it does not tell.

    Raises:
        UsageError: it cannot be reached, or the workload cannot be drawn.
    """
    if not opened.may_take_json_alone:
        return opened
    address = opened.address
    opener = transport_opener(
        address.protocol, address.target, timeout_s=REQUEST_TIMEOUT_S, grpc=grpc
    )
    return opened if takes_binary(model, groups, workload, opener) else opened.as_json()


def connect_external(address: ExternalAddress, metrics: str = "") -> ExternalServer:
    """A client of a server, which may not be there.

    Args:
        address: the server.
        metrics: URL of its metrics page, where that is known.
    """
    is_http = address.protocol is WireProtocol.HTTP
    return (HttpServer if is_http else GrpcServer)(address.target, metrics)


def _metrics_page(address: ExternalAddress, facts: ServerFacts) -> str:
    """The URL of the metrics page; empty where there is none that is known."""
    if address.metrics_url is not None:
        if _page_reader(address, address.metrics_url)(address.metrics_url) is None:
            raise UsageError(
                f"there is no metrics page at {address.metrics_url}",
                next_step="check the address, or leave --metrics-url out: it is not needed",
            )
        return address.metrics_url
    if facts.name != TRITON:
        return ""
    host = address.target.authority.rpartition(":")[0]
    usual = f"http://{host}:{METRICS_PORT}/metrics"
    return usual if "nv_inference" in (_page_reader(address, usual)(usual) or "") else ""


def _page_reader(address: ExternalAddress, url: str) -> partial[str | None]:
    """Reads the page as the server is spoken to; a secret never goes unencrypted by a guess."""
    target = address.target
    encrypted = url.startswith("https://")
    headers = target.headers
    if address.metrics_url is None and target.encrypted and not encrypted:
        headers = ()
    tls = target.tls_context("http/1.1") if encrypted else None
    return partial(scrape, headers=headers, tls=tls)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError("a header without a colon", next_step="write it as 'NAME: VALUE'")
    return name, value
