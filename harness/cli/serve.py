"""harness serve: keep the embedded Triton up with a study's variants loaded."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import ProgressDisplay, print_json, say, warn
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    CpusServer,
    Repository,
    StudyFile,
    parse_cpus,
    read_study,
)
from harness.errors import ServerError, UsageError

POLL_S = 0.5
_LAST_PORT = 65535


def serve(
    study_file: StudyFile,
    repository: Repository = DEFAULT_REPOSITORY,
    ports: Annotated[
        str | None,
        typer.Option(help="HTTP,gRPC,metrics ports; default: free ones.", show_default=False),
    ] = None,
    log_file: Annotated[
        Path | None, typer.Option(help="Triton's log; default: a temporary file.")
    ] = None,
    cpus_server: CpusServer = None,
    as_json: AsJson = False,
) -> None:
    """Export what is missing, start Triton with every variant loaded, and run until Ctrl-C."""
    wanted_ports, cores = parse_ports(ports), parse_cpus(cpus_server)
    study = read_study(study_file)
    from harness.flow import serving
    from harness.flow.inputs import check_embedded
    from harness.flow.options import RunSettings
    from harness.flow.run import export_study
    from harness.flow.spaces import serving_configs
    from harness.serving.embedded.environment import ensure_server_environment
    from harness.serving.embedded.server import require_free

    check_embedded(study)
    if wanted_ports is not None:
        require_free(wanted_ports)
    with ProgressDisplay() as progress:
        settings = RunSettings(repository, cores, progress=progress, warn=warn)
        environment = ensure_server_environment(progress)
        families = export_study(study, settings)
    log = log_file or Path(tempfile.mkdtemp(prefix="harness-serve-")) / "triton.log"
    with serving.serve(
        families,
        environment,
        settings,
        log_file=log,
        ports=wanted_ports,
        response_cache=serving.uses_cache(study),
    ) as served:
        control, server = served.site.control, served.site.server
        names = []
        for family in families:
            for variant in family.served:
                try:
                    if control is not None:
                        control.load(variant, serving_configs(study.serving_of(family.family))[0])
                except ServerError as error:
                    serving.check_after_failure(server)
                    warn(f"{variant.name} cannot be served: {error}")
                else:
                    names.append(variant.name)
        endpoint = server.endpoint
        if as_json:
            print_json({"http": endpoint.http, "grpc": endpoint.grpc, "models": names})
        say(
            f"serving {', '.join(names)}\n"
            f"http {endpoint.http}  grpc {endpoint.grpc}  metrics {endpoint.metrics}\n"
            f"log {log}\nCtrl-C stops it"
        )
        try:
            while True:
                server.check()
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            say("stopping")


def parse_ports(text: str | None, option: str = "--ports") -> tuple[int, int, int] | None:
    """Read `8000,8001,8002`.

    Args:
        text: as it was given; None where it was not.
        option: that it was given to.

    Raises:
        UsageError: it is not three different port numbers.
    """
    if text is None:
        return None
    try:
        http, grpc, metrics = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} {text}: three numbers are needed", next_step=f"{option} 8000,8001,8002"
        ) from error
    ports = http, grpc, metrics
    if len(set(ports)) != len(ports) or not all(0 < one <= _LAST_PORT for one in ports):
        raise UsageError(
            f"{option} {text}: three different numbers from 1 to {_LAST_PORT} are needed",
            next_step=f"{option} 8000,8001,8002",
        )
    return ports
