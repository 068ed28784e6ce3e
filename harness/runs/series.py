"""A trial's load over time, as its run folder holds it.

`harness/load/records/series.py` writes the rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.errors import RunFolderError

WARM_UP, MEASURED = "warm-up", "measured"
_SLICES = ".slices.csv"
_Point = TypeVar("_Point")


@dataclass(frozen=True)
class SlicePoint:
    """One slice of a load."""

    start_s: float
    """Seconds since the load's start."""
    phase: str
    """`warm-up`, `measured` or `after`."""
    mean_ms: float | None
    """Response latency; None where nothing succeeded."""


@dataclass(frozen=True)
class SecondPoint:
    """One second of a load, or what was left of its phase."""

    start_s: float
    length_s: float
    phase: str
    inferences_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class LoadSeries:
    """A trial's load over time, warm-up included."""

    slices: tuple[SlicePoint, ...]
    seconds: tuple[SecondPoint, ...]

    @property
    def warmup_s(self) -> float:
        """Where the measured window begins; 0 where nothing was measured."""
        return next((one.start_s for one in self.slices if one.phase == MEASURED), 0.0)

    @property
    def measured(self) -> tuple[SecondPoint, ...]:
        """The seconds of the window."""
        return tuple(one for one in self.seconds if one.phase == MEASURED)


class StoredSeries(Mapping[str, LoadSeries]):
    """The series of a run folder by trial; a file is read when its trial is asked for."""

    def __init__(self, folder: Path) -> None:
        """`folder` may be absent: then there are none."""
        self._folder = folder

    def __getitem__(self, trial_id: str) -> LoadSeries:
        """Read a trial's two files.

        Raises:
            KeyError: the trial has none.
            RunFolderError: a file is broken.
        """
        slices = self._folder / f"{trial_id}{_SLICES}"
        seconds = self._folder / f"{trial_id}.csv"
        if not (slices.is_file() and seconds.is_file()):
            raise KeyError(trial_id)
        return LoadSeries(_read(slices, _SLICE_POINTS), _read(seconds, _SECOND_POINTS))

    def __iter__(self) -> Iterator[str]:
        for path in sorted(self._folder.glob(f"*{_SLICES}")):
            yield path.name.removesuffix(_SLICES)

    def __len__(self) -> int:
        return sum(1 for _ in self)


_SLICE_POINTS = TypeAdapter(tuple[SlicePoint, ...])
_SECOND_POINTS = TypeAdapter(tuple[SecondPoint, ...])


def _read(path: Path, points: TypeAdapter[tuple[_Point, ...]]) -> tuple[_Point, ...]:
    """Rows of a CSV file; an empty cell is None."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                {name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)
            ]
        return points.validate_python(rows)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise RunFolderError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            next_step="delete it: the report leaves out what it would have drawn",
        ) from error
