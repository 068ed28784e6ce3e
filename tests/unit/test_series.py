"""A run folder's series: what a run writes is what a report reads."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.errors import RunFolderError
from harness.runs.series import LoadSeries, StoredSeries

SLICES = """start_s,phase,completed,inferences,mean_ms,failures,dropped
0.0,warm-up,2,8,41.5,0,0
0.05,warm-up,0,0,,1,0
0.1,measured,3,12,20.25,0,0
0.15,after,0,0,,0,0
"""
SECONDS = """start_s,length_s,phase,inferences_per_s,p50_ms,p95_ms,p99_ms,dropped,failed_timeout
0.0,0.1,warm-up,80.0,41.5,41.5,41.5,0,1
0.1,0.05,measured,240.0,20.2,20.9,21.0,0,0
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a--b.slices.csv").write_text(SLICES)
    (tmp_path / "a--b.csv").write_text(SECONDS)
    return tmp_path


def test_a_trial_is_read_with_its_gaps(folder):
    series = StoredSeries(folder)["a--b"]
    assert [one.mean_ms for one in series.slices] == [41.5, None, 20.25, None]
    assert series.warmup_s == 0.1
    assert [one.inferences_per_s for one in series.measured] == [240.0]


def test_trials_are_named_by_their_files(folder):
    (folder / "other.csv").write_text(SECONDS)  # its slices are missing
    stored = StoredSeries(folder)
    assert list(stored) == ["a--b"]
    assert len(stored) == 1
    assert "other" not in stored
    assert stored.get("other") is None


def test_a_run_of_no_series_has_none(tmp_path):
    assert dict(StoredSeries(tmp_path / "absent")) == {}


def test_nothing_measured_is_no_warm_up():
    assert LoadSeries((), ()).warmup_s == 0.0


@pytest.mark.parametrize(
    "broken", ["start_s,phase\n0.0,warm-up\n", SLICES + "soon,after,0,0,,0,0\n"]
)
def test_a_broken_file_is_named_with_what_to_do(folder, broken):
    (folder / "a--b.slices.csv").write_text(broken)
    with pytest.raises(RunFolderError, match=r"a--b\.slices\.csv cannot be read") as caught:
        StoredSeries(folder)["a--b"]
    assert "delete it" in caught.value.next_step


def test_empty_tables_of_pandas_read_as_nothing(folder):
    pd.DataFrame([]).to_csv(folder / "a--b.slices.csv", index=False)
    assert StoredSeries(folder)["a--b"].slices == ()
