"""harness serve: keep the embedded Triton up with a study's variants loaded."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from harness.flow.serving import Served
    from harness.serving.endpoint import Endpoint
    from harness.study import Study
    from harness.types import ModelVariant

POLL_S = 0.5
_LOOPBACK = "127.0.0.1"
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
    openai: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Also serve OpenAI's API, for the models that write; on the loopback, unless a "
            "host is given (0.0.0.0 is every network of the machine).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export what is missing, start Triton with every variant loaded, and run until Ctrl-C."""
    wanted_ports, cores = parse_ports(ports), parse_cpus(cpus_server)
    place = parse_openai(openai)
    study = read_study(study_file)
    from harness.flow import serving
    from harness.flow.input_checks import check_embedded
    from harness.flow.options import RunSettings
    from harness.flow.run import export_study
    from harness.serving.embedded.environment import ensure_server_environment

    check_embedded(study)
    _check_places(study, wanted_ports, place)
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
        loaded = _load_all(study, served)
        with _openai(served, loaded, place) as address:
            _show(served.site.server.endpoint, loaded, address, log, as_json=as_json)
            try:
                while True:
                    served.site.server.check()
                    time.sleep(POLL_S)
            except KeyboardInterrupt:
                say("stopping")


def _check_places(
    study: Study, ports: tuple[int, int, int] | None, openai: tuple[str, int] | None
) -> None:
    """Make sure that each address is free, and that there is something to offer at it.

    Args:
        study: what is served.
        ports: Triton's: HTTP, gRPC, metrics.
        openai: host and port of OpenAI's API.

    Raises:
        UsageError: no model of the study writes, or a port is asked for twice.
        ServerError: a port is in use.
    """
    from harness.serving.embedded.server import require_free

    if ports is not None:
        require_free(ports)
    if openai is not None:
        _require_writing(study)
        host, port = openai
        if ports is not None and port in ports:
            raise UsageError(
                f"--openai {port}: Triton has that port (--ports {','.join(map(str, ports))})",
                next_step="choose a fourth one",
            )
        require_free((port,), host=host)


def _require_writing(study: Study) -> None:
    """Make sure that there is something to offer over OpenAI's API.

    Raises:
        UsageError: no model of the study writes.
    """
    from harness.tasks.registry import family_of

    if not any(family_of(family.task).writes for family in study.families):
        raise UsageError(
            f"--openai: no model of the study {study.name} writes, and OpenAI's API is for those",
            next_step="leave --openai out, or serve a study whose task kind is generation",
        )


def _load_all(study: Study, served: Served) -> list[ModelVariant]:
    """Load every variant; those that cannot be served are told and left out."""
    from harness.flow import serving
    from harness.flow.spaces import serving_configs

    control, loaded = served.site.control, []
    for family in served.families:
        for variant in family.served:
            try:
                if control is not None:
                    control.load(variant, serving_configs(study.serving_of(family.family))[0])
            except ServerError as error:
                serving.check_after_failure(served.site.server)
                warn(f"{variant.name} cannot be served: {error}")
            else:
                loaded.append(variant)
    return loaded


@contextmanager
def _openai(
    served: Served, loaded: Sequence[ModelVariant], place: tuple[str, int] | None
) -> Iterator[str]:
    """OpenAI's API before the models that write; its base URL, empty where none is wanted."""
    if place is None:
        yield ""
        return
    from harness.serving.openai.models import offered
    from harness.serving.openai.server import OpenAIServer
    from harness.tasks.registry import family_of

    models = [offered(variant) for variant in loaded if family_of(variant.task).writes]
    host, port = place
    with OpenAIServer(models, served.site.server.endpoint.grpc, host=host, port=port) as server:
        yield server.url


def _show(
    endpoint: Endpoint,
    loaded: Sequence[ModelVariant],
    openai: str,
    log: Path,
    *,
    as_json: bool,
) -> None:
    names = [variant.name for variant in loaded]
    if as_json:
        told = {"openai": openai} if openai else {}
        print_json({"http": endpoint.http, "grpc": endpoint.grpc, **told, "models": names})
    say(
        f"serving {', '.join(names)}\n"
        f"http {endpoint.http}  grpc {endpoint.grpc}  metrics {endpoint.metrics}\n"
        + (f"OpenAI's API {openai}\n" if openai else "")
        + f"log {log}\nCtrl-C stops it"
    )


def parse_openai(text: str | None) -> tuple[str, int] | None:
    """Read `8080`, `0.0.0.0:8080` or `[::]:8080`: host and port.

    Args:
        text: as it was given; None where it was not.

    Raises:
        UsageError: there is no port number in it.
    """
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _LAST_PORT):
        raise UsageError(
            f"--openai {text}: a port from 1 to {_LAST_PORT} is needed",
            next_step="--openai 8080, or --openai 0.0.0.0:8080 for clients on other machines",
        )
    return host.strip("[]") or _LOOPBACK, int(port)


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
