"""Every exception the harness raises on purpose, with the exit code it ends in.

HarnessError
├── UsageError                exit 2   the caller asked for something that cannot be
│   ├── StudyError            exit 2   the study file: every problem at once
│   ├── ObjectiveError        exit 2   the objective does not parse: a caret under the place
│   ├── UnknownMetricError    exit 2   a metric that harness.metrics does not define
│   ├── DataError             exit 2   samples or labels that do not fit the task or the model
│   ├── CheckpointError       exit 2   a model that is missing or cannot be read
│   ├── RunFolderError        exit 2   not a run folder, or one of another study
│   └── MissingExtraError     exit 2   an optional dependency; the message is the pip command
└── EnvironmentFailure        exit 5   the machine or the server failed
    ├── ServerEnvironmentError exit 5  the embedded server's environment cannot be made
    ├── ServerError           exit 5   Triton did not start, died, or refused a model
    │   └── ExchangedError    exit 5   an external server has another model than at the start
    ├── GeneratorError        exit 5   a load generator process failed
    ├── ParityError           exit 5   an exported artefact disagrees with its checkpoint
    └── StorageError          exit 5   results cannot be written (disk full, permissions)

A message says what, where, and what to do next; `next_step` is printed on its own line.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import ClassVar

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_OBJECTIVE_NOT_MET = 3
EXIT_UNDECIDED = 4
EXIT_ENVIRONMENT = 5
EXIT_INTERRUPTED = 130


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The known name that a word was probably meant for, as a question; empty if none is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


class HarnessError(Exception):
    """Base of all: carries the exit code and the next step."""

    exit_code: ClassVar[int] = EXIT_ENVIRONMENT

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


class UsageError(HarnessError):
    """The caller asked for something that cannot be."""

    exit_code: ClassVar[int] = EXIT_USAGE


class StudyError(UsageError):
    """The study file is wrong; `problems` holds every one of them."""

    def __init__(self, source: str, problems: Sequence[str], *, next_step: str = "") -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        # A problem of several lines stays in one piece under its dash.
        lines = "\n".join(f"  - {problem}".replace("\n", "\n    ") for problem in problems)
        super().__init__(f"{source}: {count}\n{lines}", next_step=next_step)


class ObjectiveError(UsageError):
    """The objective does not parse."""


class UnknownMetricError(UsageError):
    """A metric that `harness.metrics` does not define."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"unknown metric '{name}': expected one of {', '.join(known)}",
            next_step="a new metric is an entry in harness/metrics.py",
        )


class DataError(UsageError):
    """Samples or labels do not fit the task or the model."""


class CheckpointError(UsageError):
    """A checkpoint is missing or cannot be read."""


class RunFolderError(UsageError):
    """A folder is not a run, or is the run of another study."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, *, needed_by: str = "this command") -> None:
        super().__init__(
            f"{needed_by} needs the package '{package}', which is not installed",
            next_step=f"pip install 'triton-distillation-harness[{extra}]'",
        )


class EnvironmentFailure(HarnessError):  # noqa: N818  (EnvironmentError is Python's own name)
    """The machine or the server failed."""


class ServerEnvironmentError(EnvironmentFailure):
    """The embedded server's environment cannot be made."""


class ServerError(EnvironmentFailure):
    """Triton did not start, died, or refused a model."""


class ExchangedError(ServerError):
    """A server has another model under the same name than at the start of the run."""


class GeneratorError(EnvironmentFailure):
    """A load generator process failed."""


class ParityError(EnvironmentFailure):
    """An exported artefact disagrees with its checkpoint."""


class StorageError(EnvironmentFailure):
    """Results cannot be written to disk."""
