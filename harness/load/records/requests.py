"""Every request of a load as a row: Parquet files that pyarrow reads as one data set.

While the load runs, batches go to a stream in Arrow's own format: that is a plain write, it holds
no request back, and it needs no footer, so a process that is killed leaves all it had written.
Closing turns the stream into Parquet, a row group at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from harness import hdr
from harness.errors import StorageError
from harness.load.engine.batches import RecordedBatch
from harness.load.transports.contract import NO_TOKENS, StreamTokens
from harness.system.storage import storage_errors, whole_file
from harness.types import SPANS

OK = "ok"
DROPPED = "dropped"
"""Fell due and was never sent: such a row has a scheduled time and nothing else."""
ROW_GROUP_ROWS = 65_536
_EVERY_REQUEST = (
    pa.field("scheduled_ns", pa.int64(), nullable=False),
    pa.field("sent_ns", pa.int64()),
    pa.field("completed_ns", pa.int64()),
    pa.field("rows", pa.int32()),
    pa.field("status", pa.dictionary(pa.int16(), pa.string()), nullable=False),
    pa.field("id", pa.string()),
    pa.field("input_tokens", pa.int32()),
    pa.field("output_tokens", pa.int32()),
    pa.field("reported_output_tokens", pa.int32()),
    pa.field("queue_us", pa.int64()),
)
"""`rows` is known of successes; `status` is `ok`, `dropped` or the kind of failure; `id` is the
KServe id that a request bore, by which the server's log and trace have it, null where none went
out. Tokens are known of streams: `output_tokens` as they came, `reported_output_tokens` as the
server's usage has it, `queue_us` the microseconds that the request waited in the server, where it
says so. A client that went away on purpose has the status `left`."""
_TOKEN_COLUMNS = {
    "input_tokens": pa.int32(),
    "output_tokens": pa.int32(),
    "reported_tokens": pa.int32(),
    "queue_us": pa.int64(),
}
"""By field of `StreamTokens`, the type of its column."""
_MOMENTS = ("scheduled_ns", "sent_ns", "completed_ns")
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["rows", "status"],
    "column_encoding": dict.fromkeys(_MOMENTS, "DELTA_BINARY_PACKED") | {"id": "DELTA_BYTE_ARRAY"},
}
"""About 8 bytes per request, of the 30 that it has in the stream."""


def record_schema() -> pa.Schema:
    """The columns of a file of records.

    Those of every request, then a column `<span>_ns` for each span that does not follow from a
    request's moments: the list of its values, null where a request has none.
    """
    spans = [pa.field(f"{name}_ns", pa.list_(pa.int64())) for name in _spans_beside_moments()]
    return pa.schema([*_EVERY_REQUEST, *spans], metadata={"clock": "CLOCK_MONOTONIC"})


def _spans_beside_moments() -> list[str]:
    return [span.name for span in SPANS.values() if not span.is_between_moments]


class RecordWriter:
    """Writes the records of one process; `add` is a listener of a `Recorder`.

    A disk that fills up ends the records and never the load: what was written is removed, because
    the trial's results need the space more, and `close` says why.

    Args:
        path: the Parquet file, complete once `close` has returned; its folder is made.

    Raises:
        StorageError: the file cannot be begun.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream_path = _stream_of(path)
        self._statuses = {OK: 0}
        self._problem = ""
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pa.OSFile(str(self._stream_path), "wb")
            self._schema = record_schema()
            self._stream = pa.ipc.new_stream(self._file, self._schema)

    def add(self, batch: RecordedBatch) -> None:
        """Append a batch; after a failed write, nothing."""
        if self._problem:
            return
        with self._giving_up_on_failure():
            self._stream.write_batch(self._rows_of(batch))

    def close(self) -> str:
        """Complete the file; closing twice is fine.

        Returns:
            Why the records are lost; empty where they are complete.
        """
        if not self._problem and not self._file.closed:
            with self._giving_up_on_failure():
                self._stream.close()
                self._file.close()
                _to_parquet(self._stream_path, self._path)
        return self._problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _giving_up_on_failure(self) -> Iterator[None]:
        try:
            with storage_errors(self._path):
                yield
        except StorageError as error:
            self._problem = f"{error}: the records of this process are lost"
            with suppress(OSError):
                self._file.close()
            self._stream_path.unlink(missing_ok=True)

    def _rows_of(self, batch: RecordedBatch) -> pa.RecordBatch:
        """Successes, failures and what was dropped, in one table."""
        answered, failed, dropped = len(batch.rows), len(batch.failures), len(batch.dropped_ns)
        moments = hdr.integers(
            itertools.chain.from_iterable(one.moments_ns for one in batch.failures)
        ).reshape(-1, len(_MOMENTS))
        never = np.zeros(dropped, dtype=np.int64)
        unsent = np.arange(answered + failed + dropped) >= answered + failed
        unanswered = np.arange(answered + failed + dropped) >= answered
        rows = np.concatenate([batch.rows, np.zeros(failed + dropped, dtype=np.int64)])
        columns = [
            pa.array(np.concatenate([batch.scheduled_ns, moments[:, 0], batch.dropped_ns])),
            pa.array(np.concatenate([batch.sent_ns, moments[:, 1], never]), mask=unsent),
            pa.array(np.concatenate([batch.completed_ns, moments[:, 2], never]), mask=unsent),
            pa.array(rows.astype(np.int32), mask=unanswered),
            self._statuses_of(batch),
            _identities(batch, answered + failed + dropped),
            *_token_columns(batch),
            *(_span_column(batch, name) for name in _spans_beside_moments()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _statuses_of(self, batch: RecordedBatch) -> pa.DictionaryArray:
        """The dictionary only grows, so the stream repeats it only when it does."""
        known = self._statuses
        kinds = [known.setdefault(one.failure.kind, len(known)) for one in batch.failures]
        kinds += [known.setdefault(DROPPED, len(known)) for _ in batch.dropped_ns]
        codes = np.zeros(len(batch.rows) + len(kinds), dtype=np.int16)
        codes[len(batch.rows) :] = kinds
        return pa.DictionaryArray.from_arrays(codes, pa.array(list(known)))


def _identities(batch: RecordedBatch, requests: int) -> pa.StringArray:
    """(requests,) ids of the successes, then of the failures; nothing bore one that was dropped."""
    answered = [one.decode() or None for one in batch.identities]
    answered += [None] * (len(batch.rows) - len(answered))
    ids = answered + [one.identity.decode() or None for one in batch.failures]
    return pa.array(ids + [None] * (requests - len(ids)), type=pa.string())


def _token_columns(batch: RecordedBatch) -> list[pa.Array]:
    """What is known of streams alone: successes, failures, and what was dropped."""
    if not batch.tokens and all(one.tokens is NO_TOKENS for one in batch.failures):
        requests = len(batch.rows) + len(batch.failures) + len(batch.dropped_ns)
        return [pa.nulls(requests, type=kind) for kind in _TOKEN_COLUMNS.values()]
    rows: list[StreamTokens | None] = [
        *(batch.tokens.get(place) for place in range(len(batch.rows))),
        *(None if one.tokens is NO_TOKENS else one.tokens for one in batch.failures),
        *([None] * len(batch.dropped_ns)),
    ]
    return [
        pa.array([None if one is None else getattr(one, name) for one in rows], type=kind)
        for name, kind in _TOKEN_COLUMNS.items()
    ]


def recover_records(folder: Path) -> list[Path]:
    """Complete the files of processes that were killed; they must be gone by now.

    Returns:
        The Parquet files that were made; each holds every batch that was written whole.

    Raises:
        StorageError: a file cannot be written.
    """
    made = []
    for stream_path in sorted(folder.glob(_stream_of(folder / "*.parquet").name)):
        path = folder / stream_path.stem.removeprefix(".")
        with storage_errors(path):
            _to_parquet(stream_path, path)
        made.append(path)
    return made


def _span_column(batch: RecordedBatch, name: str) -> pa.ListArray:
    """A span's values by request: successes, failures, and what was dropped, which has none."""
    answered, failed = len(batch.rows), len(batch.failures)
    counts = np.zeros(answered + failed + len(batch.dropped_ns), dtype=np.int64)
    values = []
    for first, spans in ((0, batch.spans), (answered, batch.failed_spans)):
        if (found := spans.get(name)) is not None:
            counts += np.bincount(first + found.request, minlength=len(counts))
            values.append(found.values_ns)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets),
        pa.array(np.concatenate([hdr.integers(()), *values])),
        mask=pa.array(counts == 0),
    )


def _stream_of(path: Path) -> Path:
    """Path of the stream beside a records file; hidden, so that a reader of the folder skips it."""
    return path.with_name(f".{path.name}.arrows")


def _to_parquet(stream_path: Path, path: Path) -> None:
    """Write the stream's rows as Parquet, whole or not at all, and remove the stream."""
    with (
        whole_file(path) as unfinished,
        pq.ParquetWriter(unfinished, _schema_of(stream_path), **_ENCODING) as writer,
    ):
        for rows in _row_groups(stream_path):
            writer.write_table(rows)
    stream_path.unlink()


def _schema_of(stream_path: Path) -> pa.Schema:
    """A stream's own; what this harness would write, where not even that was written whole."""
    with pa.OSFile(str(stream_path)) as file, suppress(pa.ArrowInvalid, OSError):
        return pa.ipc.open_stream(file).schema
    return record_schema()


def _row_groups(stream_path: Path) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in _batches(stream_path):
        held.append(batch)
        if sum(one.num_rows for one in held) >= ROW_GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _batches(stream_path: Path) -> Iterator[pa.RecordBatch]:
    """The batches up to the end, or to the one at which the writing process was killed."""
    with pa.OSFile(str(stream_path)) as file, suppress(StopIteration, pa.ArrowInvalid, OSError):
        reader = pa.ipc.open_stream(file)
        while True:
            yield reader.read_next_batch()
