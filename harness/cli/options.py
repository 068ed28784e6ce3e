"""Options that several commands share, and how a dataclass becomes a group of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, get_type_hints

import typer

from harness.cli.console import say
from harness.errors import UsageError
from harness.types import GrpcImplementation

if TYPE_CHECKING:
    from harness.flow.options import ProgressSink, RunSettings
    from harness.load.generators.pool import Joining
    from harness.study import Study

StudyFile = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY", help="The study file.", exists=True, dir_okay=False, show_default=False
    ),
]
RunPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run folder.", exists=True, file_okay=False, show_default=False
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Run folder to write; default: runs/<study>-<UTC time>.", show_default=False),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run in --out, or the study's latest run."),
]
Repository = Annotated[
    Path,
    typer.Option(help="Triton model repository to export into and serve from.", file_okay=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also print the report card, the quality losses and the cold starts.",
    ),
]
MeasuredOn = Annotated[
    str,
    typer.Option(
        help="Instance type that the run was measured on; default: as detected.",
        show_default=False,
    ),
]
Spot = Annotated[bool, typer.Option("--spot", help="Take spot prices.")]
OwnPrices = Annotated[
    Path | None,
    typer.Option(help="CSV file of your own prices, over the catalogue's.", show_default=False),
]
DEFAULT_REPOSITORY = Path("model_repository")
RUNS = Path("runs")


def parse_share(text: str, option: str, *, none_too: bool = False, usual: str = "95%") -> float:
    """A share above 0% and below 100%, typed as `95%` or `0.95`.

    Args:
        text: as it was typed.
        option: after which.
        none_too: whether 0% is one.
        usual: a share that makes sense after it, for what to write instead.

    Raises:
        UsageError: it is none.
    """
    bare, is_percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(bare) / (100.0 if is_percent else 1.0)
    except ValueError:
        share = math.nan
    if not (0 < share < 1 or (none_too and share == 0)):
        least = "0% or more" if none_too else "above 0%"
        raise UsageError(
            f"{option} {text}: a share is {least} and below 100%",
            next_step=f"write it as {option} {usual}",
        )
    return share


def with_option_groups(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """The command as typer is to read it: each dataclass among its parameters field by field.

    A group's field is an option as a parameter would be: its annotation says the help, its default
    the default. A field that is a dataclass itself is a group within the group. Names are those of
    the fields, so no two groups of a command may share one.
    """
    own = signature(command, eval_str=True).parameters
    groups = {name: one.annotation for name, one in own.items() if _is_group(one.annotation)}
    flat = [
        parameter
        for name, one in own.items()
        for parameter in (_options_of(groups[name]) if name in groups else [one])
    ]

    @wraps(command)
    def called(**typed: Any) -> int | None:
        gathered = {name: _gather(group, typed) for name, group in groups.items()}
        return command(**typed, **gathered)

    keywords = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in flat]
    called.__signature__ = Signature(keywords)  # type: ignore[attr-defined]  # inspect looks for it
    return called


def _is_group(annotation: object) -> TypeGuard[type]:
    return isinstance(annotation, type) and is_dataclass(annotation)


def _options_of(group: type) -> Iterator[Parameter]:
    for field, annotation in _annotated_fields(group):
        if _is_group(annotation):
            yield from _options_of(annotation)
        else:
            yield Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=_default(field), annotation=annotation
            )


def _gather(group: type, typed: dict[str, Any]) -> Any:
    """Take the group's options out of what was typed."""
    return group(
        **{
            field.name: _gather(annotation, typed)
            if _is_group(annotation)
            else typed.pop(field.name)
            for field, annotation in _annotated_fields(group)
        }
    )


def _annotated_fields(group: type) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(group, include_extras=True)
    return ((field, hints[field.name]) for field in fields(group))


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return Parameter.empty if field.default is MISSING else field.default


CpusServer = Annotated[
    str | None, typer.Option(help="Pin the server to these cores, as in 0-3,8.", show_default=False)
]


def read_study(path: Path) -> Study:
    """Read and check a study file, before a command imports what does its work.

    Raises:
        StudyError: with every problem of the file, each with its place.
    """
    from harness.study.file import load_study

    return load_study(path)


def variant_missing(names: Sequence[str]) -> tuple[str, str]:
    """What is wrong where none of these variants was named, and what to do."""
    listed = ", ".join(names)
    return "--variant is missing: which of the study's variants?", f"name one: {listed}"


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
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS[:PORT]",
            help="Generate the load on other machines: wait here for those that run harness "
            "worker --join. 0.0.0.0 is every address of this machine; port 5557 unless given.",
            show_default=False,
        ),
    ] = None
    expect_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=500,
            help="With --listen: how many to wait for before the first load; default: 1.",
            show_default=False,
        ),
    ] = None
    min_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --listen: wait for lost workers to come back while fewer than this are "
            "there; default: 1, which goes on with the rest.",
            show_default=False,
        ),
    ] = None

    def who(self, tell: Callable[[str], None]) -> int | Joining | None:
        """How many processes generate load here, or what is known of those elsewhere.

        Args:
            tell: takes a line that a person should read.

        Raises:
            UsageError: options that contradict each other, an address that others need a token for
                and none is set, or where another program listens.
        """
        if self.listen is None:
            for value, option in (
                (self.expect_workers, "--expect-workers"),
                (self.min_workers, "--min-workers"),
            ):
                if value is not None:
                    raise UsageError(
                        f"{option} {value} is for workers on other machines",
                        next_step="say where they join: --listen 0.0.0.0",
                    )
            return self.workers
        if self.workers is not None:
            raise UsageError(
                "--workers starts load generators here, and --listen waits for others elsewhere",
                next_step=f"use --expect-workers {self.workers}",
            )
        expected, least = self.expect_workers or 1, self.min_workers or 1
        if least > expected:
            raise UsageError(f"--min-workers {least} are more than --expect-workers {expected}")
        from harness.load.generators.master_endpoint import check_free, join_token, parse_endpoint
        from harness.load.generators.pool import Joining

        endpoint = parse_endpoint(self.listen, "--listen")
        join_token([endpoint])
        check_free(endpoint)
        return Joining(endpoint, expected, least, tell)


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
        UsageError: no CPU list, cores that this process may not use, or no place to listen at.
    """
    from harness.flow.options import RunSettings

    if generators.listen is not None and cpus.cpus_generator is not None:
        raise UsageError(
            "--cpus-generator pins load generators here, and --listen waits for others elsewhere",
            next_step="start those with taskset",
        )
    return RunSettings(
        repository=repository,
        cpus_server=parse_cpus(cpus.cpus_server),
        cpus_generator=parse_cpus(cpus.cpus_generator),
        workers=generators.who(say),
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
