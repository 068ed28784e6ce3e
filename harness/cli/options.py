"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from harness.load.transports.opening import GrpcImplementation
from harness.tracking.sinks import Tracker

StudyFile = Annotated[
    Path, typer.Argument(help="The study file.", exists=True, dir_okay=False, show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option(help="Run folder; default: runs/<study>-<UTC time>.", show_default=False),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with --out, or with the study's latest run.")
]
Repository = Annotated[
    Path, typer.Option(help="Triton model repository that export writes.", file_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CpusServer = Annotated[
    str | None, typer.Option(help="Cores for the server, as in 0-3,8.", show_default=False)
]
CpusGenerator = Annotated[
    str | None, typer.Option(help="Cores for the load generators.", show_default=False)
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, max=64, help="Load generator processes, in place of the study's.", show_default=False
    ),
]
Transport = Annotated[
    GrpcImplementation,
    typer.Option(help="What speaks gRPC: native is the harness's own, grpcio the reference."),
]
Records = Annotated[
    bool, typer.Option("--records", help="Also write every request to Parquet, in records/.")
]
Track = Annotated[
    list[Tracker] | None,
    typer.Option(
        help="Also tell the run to this tracker, once it is complete; may be given again.",
        show_default=False,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="A server that is up, in place of one of our own: http://H:P, https://, grpc://, "
        "grpcs://.",
        show_default=False,
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(help="With --url: 'NAME: VALUE', sent along; repeatable.", show_default=False),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        help="With --url: certificates to trust, PEM.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="With --url: take any certificate.")]
MetricsUrl = Annotated[
    str | None,
    typer.Option(
        help="With --url: its metrics page; default: Triton's at port 8002, where there is one.",
        show_default=False,
    ),
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model-name",
        metavar="VARIANT=NAME",
        help="With --url: what a variant is called there; default: its own name. Repeatable.",
        show_default=False,
    ),
]
AsIs = Annotated[
    bool,
    typer.Option(
        "--as-is", help="With --url: load and configure nothing there, even where it could be."
    ),
]
DEFAULT_REPOSITORY = Path("model_repository")
RUNS = Path("runs")


def parse_cpus(text: str | None) -> tuple[int, ...] | None:
    """Read a CPU list such as `0-3,8`.

    Raises:
        UsageError: it is none, or names a core this process may not use.
    """
    if text is None:
        return None
    cpus: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            cpus += range(int(first), int(last if dash else first) + 1)
    except ValueError as error:
        raise UsageError(f"'{text}' is not a CPU list", next_step="write it like 0-3,8") from error
    usable = os.sched_getaffinity(0)
    if not cpus or not usable.issuperset(cpus):
        raise UsageError(
            f"'{text}' names cores this process may not use",
            next_step=f"usable cores: {', '.join(map(str, sorted(usable)))}",
        )
    return tuple(cpus)


def cpu_list(cpus: Sequence[int]) -> str:
    """Cores, ascending, as `parse_cpus` reads them: `0-3,8`."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
