"""Options of what a run is made with: load generators, cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from harness.flow.options import ProgressSink, RunSettings
from harness.load.transports.opening import GrpcImplementation

CpusServer = Annotated[
    str | None, typer.Option(help="Pin the server to these cores, as in 0-3,8.", show_default=False)
]


@dataclass(frozen=True)
class GeneratorOptions:
    """How the load is generated."""

    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Number of load generator processes; default: the study's.",
            show_default=False,
        ),
    ] = None
    transport: Annotated[
        GrpcImplementation,
        typer.Option(help="gRPC client: native is the harness's fast one, grpcio the reference."),
    ] = GrpcImplementation.NATIVE
    records: Annotated[
        bool,
        typer.Option("--records", help="Also write every request to Parquet files in records/."),
    ] = False


@dataclass(frozen=True)
class CpuOptions:
    """Which cores server and generators get."""

    cpus_server: CpusServer = None
    cpus_generator: Annotated[
        str | None, typer.Option(help="Pin the load generators to these cores.", show_default=False)
    ] = None


def make_settings(
    repository: Path, generators: GeneratorOptions, cpus: CpuOptions, *, progress: ProgressSink
) -> RunSettings:
    """What the options say of it.

    Raises:
        UsageError: no CPU list, or cores that this process may not use.
    """
    return RunSettings(
        repository=repository,
        cpus_server=parse_cpus(cpus.cpus_server),
        cpus_generator=parse_cpus(cpus.cpus_generator),
        workers=generators.workers,
        grpc=generators.transport,
        keep_records=generators.records,
        progress=progress,
    )


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
