"""What `harness load` measures: a study's variant, or a model of a server that is up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.external import RemoteOptions
from harness.errors import UsageError
from harness.flow.external.server import RemoteAddress
from harness.types import ServingConfig, WireProtocol

NOTHING_NAMED = (
    "it is not said what to send where: a study file and --variant are missing, "
    "or all of --url, --model and --payloads"
)


@dataclass(frozen=True)
class ServingOptions:
    """Triton's side; None was not given."""

    max_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Triton's max_batch_size; default: 16.")
    ] = None
    queue_delay_us: Annotated[
        int | None, typer.Option(min=0, help="Dynamic batcher's queue delay; default: 0.")
    ] = None
    instances: Annotated[int | None, typer.Option(min=1, help="Model instances; default: 1.")] = (
        None
    )
    intra_op_threads: Annotated[
        int | None, typer.Option(min=1, help="ONNX Runtime's threads per instance; default: 1.")
    ] = None

    @property
    def given(self) -> bool:
        """Whether any of them was."""
        return any(one is not None for one in astuple(self))

    def config(self) -> ServingConfig:
        """What was given, and ServingConfig's own defaults."""
        plain = ServingConfig()
        return ServingConfig(
            max_batch_size=self.max_batch_size or plain.max_batch_size,
            queue_delay_us=self.queue_delay_us or plain.queue_delay_us,
            instance_count=self.instances or plain.instance_count,
            intra_op_threads=self.intra_op_threads or plain.intra_op_threads,
        )


@dataclass(frozen=True)
class Source:
    """As it stands on the command line."""

    study_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY",
            exists=True,
            dir_okay=False,
            show_default=False,
            help="The study file; without one, give --url, --model and --payloads.",
        ),
    ] = None
    variant: Annotated[
        str | None, typer.Option(help="Variant of the study.", show_default=False)
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help="With --url: a model there, or the name that the variant has there.",
            show_default=False,
        ),
    ] = None
    payloads: Annotated[
        Path | None,
        typer.Option(
            help="With --model: an .npz of arrays GROUP/INPUT, each (rows, ...).",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None
    remote: RemoteOptions = field(default_factory=RemoteOptions)
    protocol: Annotated[
        WireProtocol | None,
        typer.Option(
            help="http or grpc (default); with --url it is that of the address.", show_default=False
        ),
    ] = None

    @property
    def url(self) -> str | None:
        """Options that concern an external server."""
        return self.remote.url

    def address(self) -> RemoteAddress | None:
        """Where the server that is up is; None where the harness serves.

        Raises:
            UsageError: an address that cannot be, or of another protocol than was named.
        """
        address = self.remote.address()
        if address is not None and self.protocol not in {None, address.protocol}:
            raise UsageError(
                f"--protocol {self.protocol} and --url {self.url} say different things",
                next_step="leave --protocol away: the address names it",
            )
        return address

    def check(self) -> None:
        """Make sure that it says what to measure, and only that.

        Raises:
            UsageError: the first thing that is missing, or that has no meaning here.
        """
        for problem, next_step in self._problems():
            raise UsageError(problem, next_step=next_step)

    def _problems(self) -> Iterator[tuple[str, str]]:
        whole = "harness load --url http://HOST:PORT --model NAME --payloads FILE.npz"
        if self.study_file is None:
            if self.variant is not None:
                yield "--variant names one of a study, and no study file is given", whole
            if self.url is None or self.model is None or self.payloads is None:
                yield NOTHING_NAMED, whole
        elif self.variant is None:
            yield (
                "--variant is missing: which of the study's variants?",
                "harness load STUDY --help",
            )
        elif self.payloads is not None or (self.model is not None and self.url is None):
            yield (
                "a study says what is sent: --payloads is for one without, --model for --url",
                "leave them out, or leave the study file out",
            )
