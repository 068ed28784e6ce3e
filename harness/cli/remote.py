"""A server that somebody else runs, as it stands on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.cli.console import say
from harness.errors import UsageError
from harness.pipeline.borrowed import Borrowed, BorrowOptions, borrow, parse_names
from harness.pipeline.inputs import check_inputs
from harness.pipeline.remote import RemoteAddress, parse_url
from harness.study import Study

WITHOUT_URL = "name the server: --url http://HOST:PORT"


@dataclass(frozen=True)
class RemoteOptions:
    """Where it is and how to speak to it; no url: the harness serves."""

    url: str | None = None
    headers: Sequence[str] = ()
    ca_file: Path | None = None
    insecure: bool = False
    metrics_url: str | None = None
    model_names: Sequence[str] = ()
    as_is: bool = False

    def address(self) -> RemoteAddress | None:
        """Of the server; None where the harness serves.

        Raises:
            UsageError: an address that cannot be, or options of a server that is not named.
        """
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
                "--header, --ca-file, --insecure and --metrics-url go with --url, and there is "
                "none",
                next_step=WITHOUT_URL,
            )
        if self.model_names or self.as_is:
            raise UsageError(
                "--model-name and --as-is go with --url, and there is none", next_step=WITHOUT_URL
            )
        return None

    @contextmanager
    def borrowing(self, study: Study) -> Iterator[Borrowed | None]:
        """The study's models there; None where the harness serves.

        Raises:
            UsageError: no such server, or not with these models; nothing was started.
        """
        address, names = self.address(), parse_names(self.model_names)
        check_inputs(study)
        if address is None:
            yield None
            return
        with borrow(study, address, BorrowOptions(names, self.as_is)) as borrowed:
            for note in borrowed.notes:
                say(note)
            yield borrowed


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
        "--cpus-server places": cpus_server,
        "--server-ports are for": server_ports,
    }
    for what in (words for words, value in told.items() if remote and value is not None):
        raise UsageError(
            f"{what} a server that the harness starts, and --url is up already",
            next_step="leave it out",
        )


OWN_SERVER = RemoteOptions()
"""The harness serves."""
