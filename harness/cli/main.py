"""Entry point: gathers the commands and maps how they end to an exit code."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from harness import __version__
from harness.cli.commands import Commands
from harness.cli.console import say
from harness.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, HarnessError

app = typer.Typer(
    name="harness",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def harness(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the release and exit."
        ),
    ] = False,
) -> None:
    """Decide by measurement whether a distilled model can replace its teacher on Triton."""


def main() -> NoReturn:
    """Run a command and exit: 0, 2, 3, 4, 5 or 130, as harness.errors defines them."""
    # A polite kill ends like Ctrl-C: results kept, processes stopped. SIGINT too is set on purpose,
    # because a shell script starts its background jobs with it ignored.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command line; returns its exit code and prints what went wrong."""
    try:
        outcome = app(args=arguments, standalone_mode=False)
    except HarnessError as error:
        _print_problem(str(error), error.next_step)
        return error.exit_code
    except typer.Exit as finished:
        return finished.exit_code
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # the errors of a command line all have it
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        _print_problem("interrupted", "")
        return EXIT_INTERRUPTED
    return outcome if isinstance(outcome, int) else EXIT_OK


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_problem(message: str, next_step: str) -> None:
    say(f"error: {message}", style="bold red")
    if next_step:
        say(f"next: {next_step}")
