"""Single requests of a trial's streams, as the run folder's records hold them.

`harness/load/records/requests.py` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.errors import RunFolderError

RECORDS = "records"
SAMPLED = 24
"""Requests of a sample: as many as can be told apart in one picture."""
_COLUMNS = (
    "scheduled_ns",
    "sent_ns",
    "completed_ns",
    "status",
    "input_tokens",
    "output_tokens",
    "ttft_ns",
    "itl_ns",
)
_QUEUE = "queue_us"


@dataclass(frozen=True)
class RecordedStream:
    """One request whose answer came token by token."""

    due_ms: float
    """When it was scheduled, counted from the sample's first request."""
    sent_ms: float
    token_ms: tuple[float, ...]
    """When each token came; those that came with the first are not told apart from it."""
    status: str
    """`ok`, `left`, or the kind of failure."""
    input_tokens: int | None
    output_tokens: int | None
    queue_ms: float | None = None
    """What it waited in the server before its prompt was read; None where that is not known."""

    @property
    def begun_ms(self) -> float | None:
        """When its prompt was begun to be read, on the client's clock, at the earliest."""
        return None if self.queue_ms is None else self.sent_ms + self.queue_ms

    @property
    def first_ms(self) -> float | None:
        """When the first token came; None where none did."""
        return self.token_ms[0] if self.token_ms else None

    @property
    def longest_gap_ms(self) -> float | None:
        """Between two tokens that followed one another; None with fewer than two."""
        return max((later - sooner for sooner, later in pairwise(self.token_ms)), default=None)


class StoredRecords(Mapping[str, tuple[RecordedStream, ...]]):
    """By trial, streams that followed one another in the middle of its load.

    A trial's files are read when it is asked for. A trial without records, or without streams in
    them, has none.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` may be absent: then there are none."""
        self._folder = folder

    def __getitem__(self, trial_id: str) -> tuple[RecordedStream, ...]:
        """Read a trial's sample.

        Raises:
            KeyError: the trial has none.
            RunFolderError: a file is broken.
        """
        files = sorted((self._folder / trial_id).glob("*.parquet"))
        sample = _sample(files) if files else ()
        if not sample:
            raise KeyError(trial_id)
        return sample

    def __iter__(self) -> Iterator[str]:
        for path in sorted(self._folder.glob("*")):
            if any(path.glob("*.parquet")):
                yield path.name

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _sample(files: list[Path]) -> tuple[RecordedStream, ...]:
    import pyarrow as pa  # half a second and 90 MB, for runs of streams alone
    import pyarrow.parquet as pq

    try:
        tables = [pq.read_table(file) for file in files]
    except (OSError, pa.ArrowInvalid) as error:
        raise RunFolderError(
            f"{files[0].parent} cannot be read: {str(error).splitlines()[0]}",
            next_step="delete it: the report leaves out what it would have drawn",
        ) from error
    streams = [one for one in tables if set(_COLUMNS) <= set(one.column_names)]
    if not streams:
        return ()
    known = [one.select([*_COLUMNS, *_also(one)]).combine_chunks() for one in streams]
    rows = pa.concat_tables(known, promote_options="default")
    rows = rows.filter(pa.compute.is_valid(rows["ttft_ns"])).sort_by("scheduled_ns")
    first = max(0, (rows.num_rows - SAMPLED) // 2)
    chosen = rows.slice(first, SAMPLED).to_pylist()
    return tuple(_stream(one, chosen[0]["scheduled_ns"]) for one in chosen)


def _also(table: Any) -> list[str]:
    """Columns that files of earlier releases lack."""
    return [name for name in (_QUEUE,) if name in table.column_names]


def _stream(row: Mapping[str, Any], start_ns: int) -> RecordedStream:
    at_ns = row["scheduled_ns"] + row["ttft_ns"][0]
    tokens = [at_ns]
    for gap_ns in row["itl_ns"] or ():
        at_ns += gap_ns
        tokens.append(at_ns)
    return RecordedStream(
        due_ms=(row["scheduled_ns"] - start_ns) / 1e6,
        sent_ms=(row["sent_ns"] - start_ns) / 1e6,
        token_ms=tuple((one - start_ns) / 1e6 for one in tokens),
        status=row["status"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        queue_ms=None if (waited_us := row.get(_QUEUE)) is None else waited_us / 1e3,
    )
