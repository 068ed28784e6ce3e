"""What a folder of requests' records says of a load, to compare with what its slices say."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds

from harness import hdr
from harness.load.records.requests import OK, record_schema
from harness.types import SparseHistogram


def histogram_of_records(folder: Path) -> SparseHistogram:
    """Response latencies of all successes in a folder of records."""
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    batches = ds.dataset(files, schema=record_schema()).to_batches(
        columns=["scheduled_ns", "completed_ns"], filter=ds.field("status") == OK
    )
    return hdr.merge(
        hdr.of_nanoseconds(
            one.column("completed_ns").to_numpy() - one.column("scheduled_ns").to_numpy()
        )
        for one in batches
    )
