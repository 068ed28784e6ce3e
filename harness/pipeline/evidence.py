"""What a trial leaves in the run folder beside its line in the journal.

`histograms/<trial>.hdr` is the latency that counts, in HdrHistogram's own form;
`histograms/<trial>.json` has each phase, outcome and span; `series/<trial>.csv` each second,
`series/<trial>.slices.csv` each slice, from the load's start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from harness import hdr
from harness.load.recorder import merged_latencies
from harness.load.series import series_rows, slice_rows
from harness.runs import RunFolder
from harness.storage import replace_text, storage_errors
from harness.types import Latencies, LoadResult, TimeSlice, Trial


def write_load(
    folder: RunFolder, trial: Trial, load: LoadResult, window: Sequence[TimeSlice] | None = None
) -> str:
    """Store what the clients saw; returns the main histogram's path relative to the folder.

    `window` holds the slices that the trial's own row is made of, where they are not all that were
    measured.

    Raises:
        StorageError: it cannot be written.
    """
    name = trial.trial_id
    for part in ("histograms", "series"):
        with storage_errors(folder.path):
            (folder.path / part).mkdir(exist_ok=True)
    window = load.window if window is None else window
    main = f"histograms/{name}.hdr"
    response = hdr.merge(one.ok.response for one in window)
    replace_text(folder.path / main, hdr.encode(response) + "\n")
    warmup = [one for one in load.slices if one.index < window[0].index] if window else []
    phases = {"warmup": _encoded(warmup), "measured": _encoded(window)}
    replace_text(folder.path / f"histograms/{name}.json", json.dumps(phases, indent=1) + "\n")
    for file, rows in (
        (f"series/{name}.csv", series_rows(load)),
        (f"series/{name}.slices.csv", slice_rows(load)),
    ):
        with storage_errors(folder.path):
            pd.DataFrame(rows).to_csv(folder.path / file, index=False)
    return main


def records_folder(folder: RunFolder, trial: Trial) -> Path:
    """Where the generators write every request of a trial."""
    return folder.path / "records" / trial.trial_id


@contextmanager
def completing_records(folder: Path | None) -> Iterator[None]:
    """Complete the records of generators that were killed, whatever ended the trial.

    Raises:
        StorageError: they cannot be written.
    """
    try:
        yield
    finally:
        if folder is not None:
            from harness.load.records import recover_records  # pyarrow takes 90 MB of memory

            recover_records(folder)


def _encoded(slices: Sequence[TimeSlice]) -> dict[str, dict[str, str]]:
    return {
        "ok": _spans(merged_latencies(one.ok for one in slices)),
        "failed": _spans(merged_latencies(one.failed for one in slices)),
    }


def _spans(latencies: Latencies) -> dict[str, str]:
    spans = asdict(latencies)
    return {span: hdr.encode(getattr(latencies, span)) for span in spans}
