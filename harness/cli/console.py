"""What a person sees while it runs: progress on standard error, results on standard output."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from pydantic_core import to_json
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from harness.types import Progress
from harness.words.numbers import whole

LOG_COLUMNS = 110
"""Where nobody looks at a terminal, tables keep a width that holds them."""

console = Console(stderr=True)
output = Console() if Console().is_terminal else Console(width=LOG_COLUMNS)

LINE_EVERY_S = 5.0


def say(message: str, *, style: str | None = None) -> None:
    """Print a line on standard error as it is: paths and messages are neither markup nor cut."""
    console.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print on standard error what a person should read at once."""
    say(f"warning: {message}")


def print_line(message: str) -> None:
    """Print a line of the result on standard output as it is."""
    output.print(message, markup=False, highlight=False, soft_wrap=True)


def print_blocks(*blocks: RenderableType) -> None:
    """Print a result's parts on standard output, a blank line after each."""
    for block in blocks:
        output.print(block)
        output.print()


def print_json(document: Any) -> None:
    """Print a result for machines, on standard output; dataclasses become objects."""
    sys.stdout.write(to_json(document, indent=2).decode() + "\n")
    sys.stdout.flush()


class ProgressDisplay:
    """Shows Progress messages: a live bar on a terminal, a line now and then in a log."""

    def __init__(self) -> None:
        self._stage = ""
        self._stage_started_s = 0.0
        self._last_line_s = 0.0
        self._task: TaskID | None = None
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish_stage(completed=kind is None)
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show the step that has just begun."""
        if progress.stage != self._stage:
            self._finish_stage(completed=True)
            self._stage, self._stage_started_s = progress.stage, time.monotonic()
            self._last_line_s = 0.0
            self._task = self._bar.add_task(progress.stage, total=progress.total, note="")
        if self._task is not None:
            self._bar.update(
                self._task,
                completed=int(progress.done),
                total=int(progress.total),
                note=progress.note,
            )
        if not console.is_terminal:
            self._log_line(progress)

    def _log_line(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last_line_s < LINE_EVERY_S:
            return
        self._last_line_s = now
        left = ""
        if progress.done > 0 and progress.total > progress.done:
            per_step_s = (now - self._stage_started_s) / progress.done
            left = f", about {whole(per_step_s * (progress.total - progress.done))} s left"
        done = f"{whole(progress.done)}/{whole(progress.total)}"
        say(f"{progress.stage}: {done}{left}  {progress.note}")

    def _finish_stage(self, *, completed: bool) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if self._stage and completed:
            seconds = time.monotonic() - self._stage_started_s
            say(f"{self._stage}: done in {whole(seconds)} s")
        self._stage = ""
