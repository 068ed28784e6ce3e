"""Outcomes in files: what each variant answered to every row, kept beside the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.errors import RunFolderError
from harness.tasks import outcomes as files
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Outcomes, StoredOutcomes
from harness.tasks.registry import family_of


def write_outcomes(
    path: Path, outcomes: Outcomes, dataset: EncodedDataset, *, teacher: Outcomes | None = None
) -> None:
    """Write one line a row (or question) of the test split, as Parquet; an older file is replaced.

    Args:
        path: of the file; its folder is made.
        outcomes: of any family; `harness.tasks.outcomes.write_outcomes` says which columns.
        dataset: they were collected on: the truth is kept beside them.
        teacher: beside whose rows these are, if it is kept how they differ.

    Raises:
        StorageError: the file cannot be written.
    """
    family = family_of(outcomes.kind)
    beside = family.beside_teacher(outcomes, teacher) if teacher is not None else {}
    files.write_outcomes(path, outcomes, dataset, family.truth(dataset), beside)


def read_outcomes(path: Path) -> Any:
    """Read what `write_outcomes` wrote, to the last digit, as its family has it.

    Raises:
        RunFolderError: the file is missing or is no such file.
    """
    try:
        stored = StoredOutcomes(path)
        return family_of(stored.kind).restore(stored)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, StopIteration) as error:
        raise RunFolderError(
            f"{path} holds no outcomes: {error}",
            next_step="score the variant again, in a new run",
        ) from error
