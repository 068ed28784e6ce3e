"""Options of who counts the server's side, and of who may watch the harness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import say, warn
from harness.cli.serve import parse_ports
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.flow.options import RunSettings
    from harness.telemetry.prometheus.client import Prometheus


@dataclass(frozen=True)
class TelemetryOptions:
    """Options of the telemetry, as given on the command line."""

    prometheus: Annotated[
        str | None,
        typer.Option(
            help="Read the server-side figures from this Prometheus: http://HOST:9090.",
            show_default=False,
        ),
    ] = None
    prometheus_headers: Annotated[
        list[str],
        typer.Option(
            "--prometheus-header",
            help="With --prometheus: a header 'NAME: VALUE' for every query; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    prometheus_match: Annotated[
        str | None,
        typer.Option(
            help="With --prometheus: label matchers of the server's series, as in "
            "'job=\"triton\"'; all series that match are summed.",
            show_default=False,
        ),
    ] = None
    prometheus_host: Annotated[
        str | None,
        typer.Option(
            help="With --prometheus: label matchers of the node_exporter and DCGM series of the "
            "server's machine.",
            show_default=False,
        ),
    ] = None
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Serve the harness's own metrics at http://HOST:N/metrics while it runs.",
            show_default=False,
        ),
    ] = None
    server_ports: Annotated[
        str | None,
        typer.Option(
            help="HTTP,gRPC,metrics ports for the embedded server, so that a Prometheus can scrape "
            "it; default: free ports.",
            show_default=False,
        ),
    ] = None

    def source(self) -> Prometheus | None:
        """The Prometheus to ask, found to answer; None where the server itself is asked.

        Raises:
            UsageError: it does not answer, or options that go with it stand alone.
        """
        from harness.telemetry.prometheus.client import parse_prometheus

        if self.prometheus is None:
            if any((self.prometheus_headers, self.prometheus_match, self.prometheus_host)):
                raise UsageError(
                    "--prometheus-header, --prometheus-match and --prometheus-host are only used "
                    "with --prometheus",
                    next_step="name it: --prometheus http://HOST:9090",
                )
            return None
        source = parse_prometheus(
            self.prometheus,
            self.prometheus_headers,
            self.prometheus_match or "",
            self.prometheus_host or "",
        )
        source.check()
        return source


@contextmanager
def watched(settings: RunSettings, options: TelemetryOptions) -> Iterator[RunSettings]:
    """The settings, with who counts and who watches.

    Raises:
        UsageError: a Prometheus that does not answer, or a port that is taken; nothing is started.
    """
    from harness.telemetry.exposition.monitor import LoadMonitor
    from harness.telemetry.exposition.page import MetricsServer

    settings = replace(
        settings,
        prometheus=options.source(),
        ports=parse_ports(options.server_ports, "--server-ports"),
        warn=warn,
    )
    if options.metrics_port is None:
        yield settings
        return
    monitor = LoadMonitor()
    with MetricsServer(monitor, options.metrics_port) as page:
        say(f"metrics: http://127.0.0.1:{page.port}/metrics")
        yield replace(settings, monitor=monitor)
