"""That every request is in the files, whatever becomes of the process and the disk."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import hdr
from harness.errors import StorageError
from harness.load.engine.batches import RecordedBatch
from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import SliceSums, merged_latencies
from harness.load.records import requests as records
from harness.load.records.requests import RecordWriter, recover_records
from harness.load.transports.contract import RequestFailure
from tests.stored_records import histogram_of_records

SLICE_NS = 50_000_000
WHOLE_BATCH = 300


def batch(count: int, *, first_ns: int = 0) -> RecordedBatch:
    scheduled_ns = first_ns + np.arange(count, dtype=np.int64) * 1000
    return RecordedBatch(
        scheduled_ns=scheduled_ns,
        sent_ns=scheduled_ns + 10,
        completed_ns=scheduled_ns + 5_000_000,
        rows=np.full(count, 4, dtype=np.int64),
        failures=(),
        dropped_ns=np.array([], dtype=np.int64),
    )


def rows_of(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = ds.dataset(folder, format="parquet").to_table().to_pylist()
    return rows


def test_every_outcome_has_its_row(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "trial" / "worker-0.parquet") as writer:
        recorder = Recorder(0, SLICE_NS, listeners=[writer.add])
        recorder.add(10, 11, 15, 8)
        recorder.take()
        recorder.fail(20, 22, 29, RequestFailure("timeout", "after 7 ns"))
        recorder.drop(30)
        recorder.take()
        recorder.fail(40, 41, 42, RequestFailure("http_503", "busy"))
        recorder.add(50, 51, 52, 1)
        recorder.take()
    names = ("scheduled_ns", "sent_ns", "completed_ns", "rows", "status")
    assert [tuple(row[name] for name in names) for row in rows_of(tmp_path / "trial")] == [
        (10, 11, 15, 8, "ok"),
        (20, 22, 29, None, "timeout"),
        (30, None, None, None, "dropped"),
        (50, 51, 52, 1, "ok"),
        (40, 41, 42, None, "http_503"),
    ]


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 10**9), st.integers(0, 10**10), st.booleans()),
        max_size=60,
    )
)
def test_merged_slices_equal_the_union_of_the_records(tmp_path_factory, requests) -> None:
    folder = tmp_path_factory.mktemp("records")
    writers = [RecordWriter(folder / f"worker-{index}.parquet") for index in range(3)]
    recorders = [Recorder(0, SLICE_NS, listeners=[writer.add]) for writer in writers]
    takes = []
    for place, (worker, scheduled_ns, latency_ns, answered) in enumerate(requests):
        moments = (scheduled_ns, scheduled_ns, scheduled_ns + latency_ns)
        if answered:
            recorders[worker].add(*moments, 1)
        else:
            recorders[worker].fail(*moments, RequestFailure("timeout", ""))
        if place % 7 == 0:
            takes.append(recorders[worker].take())
    takes += [recorder.take() for recorder in recorders]
    assert [writer.close() for writer in writers] == ["", "", ""]
    merged = merged_latencies(one.ok for one in SliceSums(chain.from_iterable(takes)))
    assert histogram_of_records(folder) == merged.response
    assert len(rows_of(folder)) == len(requests)


def test_a_record_bears_the_id_of_its_request(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "worker-0.parquet") as writer:
        recorder = Recorder(0, SLICE_NS, listeners=[writer.add], keep_ids=True)
        recorder.add(10, 11, 12, 1, b"0123456789ab000000000001")
        recorder.fail(20, 21, 22, RequestFailure("timeout", ""), b"0123456789ab000000000002")
        recorder.fail(30, 31, 32, RequestFailure("connection", "refused"))
        recorder.drop(40)
        recorder.take()
        recorder.add(50, 51, 52, 1, b"0123456789ab000000000003")
        recorder.take()
    rows = pq.read_table(tmp_path / "worker-0.parquet").to_pylist()
    assert {row["scheduled_ns"]: row["id"] for row in rows} == {
        10: "0123456789ab000000000001",
        20: "0123456789ab000000000002",
        30: None,
        40: None,
        50: "0123456789ab000000000003",
    }


def test_row_groups_are_bounded_and_compact(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.parquet"
    with RecordWriter(path) as writer:
        for place in range(75):
            writer.add(batch(2_000, first_ns=place * 2_000_000))
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert sum(sizes) == 150_000
    assert max(sizes) <= records.ROW_GROUP_ROWS + 2_000
    assert path.stat().st_size < 10 * 150_000
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_loses_only_what_it_had_not_written(tmp_path: Path) -> None:
    """Its stream is passed over by readers of the folder, and completed by `recover_records`."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from test_load_records import RecordWriter, WHOLE_BATCH, batch\n"
        "folder = Path(sys.argv[1])\n"
        "RecordWriter(folder / 'worker-0.parquet').close()\n"
        "writer = RecordWriter(folder / 'worker-1.parquet')\n"
        "writer.add(batch(WHOLE_BATCH)); writer.add(batch(WHOLE_BATCH))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parent, env={"PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=60, check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    assert rows_of(tmp_path) == []
    assert recover_records(tmp_path) == [tmp_path / "worker-1.parquet"]
    assert len(rows_of(tmp_path)) == 2 * WHOLE_BATCH
    assert hdr.total(histogram_of_records(tmp_path)) == 2 * WHOLE_BATCH
    assert recover_records(tmp_path) == []


@pytest.mark.parametrize(("cut", "left"), [(-1, 300), (-100, 300), (-3_000, 300), (100, 0), (0, 0)])
def test_a_torn_batch_is_left_out(tmp_path: Path, cut: int, left: int) -> None:
    writer = RecordWriter(tmp_path / "worker-0.parquet")
    writer.add(batch(WHOLE_BATCH))
    writer.add(batch(WHOLE_BATCH))
    (stream,) = tmp_path.iterdir()
    stream.write_bytes(stream.read_bytes()[:cut])
    assert recover_records(tmp_path) == [tmp_path / "worker-0.parquet"]
    assert len(rows_of(tmp_path)) == left


def test_a_full_disk_ends_the_records_and_not_the_load(tmp_path: Path) -> None:
    (tmp_path / ".worker-0.parquet.arrows").symlink_to("/dev/full")
    writer = RecordWriter(tmp_path / "worker-0.parquet")
    recorder = Recorder(0, SLICE_NS, listeners=[writer.add])
    for place in range(3):
        recorder.add(place, place, place + 5, 1)
        assert recorder.take()
    problem = writer.close()
    assert "No space left on device" in problem
    assert "the records of this process are lost" in problem
    assert list(tmp_path.iterdir()) == []
    assert writer.close() == problem


def test_a_folder_that_cannot_be_written_is_said_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write to") as failure:
        RecordWriter(tmp_path / "file" / "worker-0.parquet")
    assert "choose another folder" in failure.value.next_step
