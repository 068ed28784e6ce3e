"""The options that name an external server: its address, headers and certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import say
from harness.errors import UsageError
from harness.types import StreamApi

if TYPE_CHECKING:
    from harness.flow.external.server import ExternalAddress
    from harness.flow.run import External
    from harness.study import Study

WITHOUT_URL = "name the server: --url http://HOST:PORT"


@dataclass(frozen=True)
class ExternalServerOptions:
    """Address of an external server and how to reach it; without a url the harness serves."""

    url: Annotated[
        str | None,
        typer.Option(
            help="Measure a server that is already up instead of the embedded one: http://H:P, "
            "https://, grpc:// or grpcs://.",
            show_default=False,
        ),
    ] = None
    headers: Annotated[
        list[str],
        typer.Option(
            "--header",
            help="With --url: a header 'NAME: VALUE' for every request; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    ca_file: Annotated[
        Path | None,
        typer.Option(
            help="With --url: PEM file with the certificates to trust.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="With --url: do not verify certificates.")
    ] = False
    metrics_url: Annotated[
        str | None,
        typer.Option(
            help="With --url: the server's metrics page; default: port 8002, if Triton's is there.",
            show_default=False,
        ),
    ] = None

    def address(self) -> ExternalAddress | None:
        """The server's address; None where the harness starts the server itself.

        Raises:
            UsageError: an address that cannot be, or options of a server that is not named.
        """
        from harness.flow.external.server import parse_url

        if self.url is not None:
            return parse_url(
                self.url,
                self.headers,
                ca_file=self.ca_file,
                verify=not self.insecure,
                metrics_url=self.metrics_url,
            )
        if self.headers or self.ca_file or self.insecure or self.metrics_url:
            raise UsageError(
                "--header, --ca-file, --insecure and --metrics-url are only used with --url",
                next_step=WITHOUT_URL,
            )
        return None


@dataclass(frozen=True)
class ExternalStudyOptions:
    """Options for an external server, and for which of its models are the study's."""

    remote: ExternalServerOptions = field(default_factory=ExternalServerOptions)
    model_names: Annotated[
        list[str],
        typer.Option(
            "--model-name",
            metavar="VARIANT=NAME",
            help="With --url: the model's name on the server, if it is not the variant's; may be "
            "repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is",
            help="With --url: do not load or reconfigure models on the server.",
        ),
    ] = False
    generate: Annotated[
        StreamApi | None,
        typer.Option(
            help="With --url, for models that write: the interface. Default: triton where the "
            "server speaks KServe v2; else OpenAI's, chat for a task with chat_template and "
            "completions for others.",
            show_default=False,
        ),
    ] = None

    def exports(self, study: Study) -> bool:
        """Whether the study's models are read here: those that write may be on a server alone."""
        from harness.tasks.registry import family_of

        writes = all(family_of(family.task).writes for family in study.families)
        return self.remote.url is None or not writes

    @contextmanager
    def external_study(self, study: Study) -> Iterator[External | None]:
        """The models of a study whose inputs are checked; None where the harness serves.

        Raises:
            UsageError: no such server, or not with these models; nothing was started.
        """
        from harness.flow.external.study import ExternalOptions, external_server_study, parse_names
        from harness.flow.external.writing import external_writing
        from harness.tasks.registry import family_of

        address, names = self.remote.address(), parse_names(self.model_names)
        if address is None and (names or self.as_is or self.generate):
            raise UsageError(
                "--model-name, --as-is and --generate are only used with --url",
                next_step=WITHOUT_URL,
            )
        if address is None:
            yield None
            return
        options = ExternalOptions(names, self.as_is)
        writes = any(family_of(family.task).writes for family in study.families)
        if self.generate and not writes:
            raise UsageError(
                "--generate is for models that write, and the study has none",
                next_step="leave it out",
            )
        found: AbstractContextManager[External] = (
            external_writing(study, address, options, self.generate)
            if writes
            else external_server_study(study, address, options)
        )
        with found as external:
            for note in external.notes:
                say(note)
            yield external


def check_own_server_options(
    *, remote: bool, cpus_server: str | None, server_ports: str | None
) -> None:
    """Refuse what is said of a server that the harness starts, where none is started.

    Args:
        remote: a server that is up was named.
        cpus_server: its cores.
        server_ports: its ports.

    Raises:
        UsageError: there is one.
    """
    told = {
        "--cpus-server": cpus_server,
        "--server-ports": server_ports,
    }
    for what in (words for words, value in told.items() if remote and value is not None):
        raise UsageError(
            f"{what} applies only to a server that the harness starts, not to --url",
            next_step="leave it out",
        )
