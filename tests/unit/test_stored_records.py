"""Single streams as they are read back from a run folder's records."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RunFolderError
from harness.load.engine.recorder import Recorder
from harness.load.records.requests import RecordWriter
from harness.load.transports.contract import ClientLeft, StreamTokens
from harness.runs.records import SAMPLED, StoredRecords

MS = 1_000_000


def written(path: Path, requests: int) -> None:
    """Requests 10 ms apart, sent 1 ms late: a token after 5 ms, then one 2 and one 3 ms later."""
    with RecordWriter(path) as writer:
        recorder = Recorder(0, 50 * MS, listeners=[writer.add])
        for number in range(requests):
            due = 10 * number * MS
            spans = {"ttft": [5 * MS], "itl": [2 * MS, 3 * MS]}
            moments = (due, due + MS, due + 10 * MS)
            recorder.add_with_spans(*moments, 1, spans, tokens=StreamTokens(7, 3))
        recorder.take()


def test_streams_that_followed_one_another_in_the_middle(tmp_path: Path) -> None:
    written(tmp_path / "t" / "worker-0.parquet", 100)
    stored = StoredRecords(tmp_path)
    assert list(stored) == ["t"]
    sample = stored["t"]
    assert len(sample) == SAMPLED == 24
    assert [one.due_ms for one in sample] == [10.0 * n for n in range(24)]
    first = sample[0]
    assert (first.sent_ms, first.token_ms) == (1.0, (5.0, 7.0, 10.0))
    assert (first.first_ms, first.longest_gap_ms) == (5.0, 3.0)
    assert (first.status, first.input_tokens, first.output_tokens) == ("ok", 7, 3)


def test_files_of_several_processes_are_one_load(tmp_path: Path) -> None:
    written(tmp_path / "t" / "worker-0.parquet", 2)
    written(tmp_path / "t" / "worker-1.parquet", 2)
    assert [one.due_ms for one in StoredRecords(tmp_path)["t"]] == [0.0, 0.0, 10.0, 10.0]


def test_a_client_that_left_is_told_and_requests_without_a_token_are_not_there(
    tmp_path: Path,
) -> None:
    with RecordWriter(tmp_path / "t" / "worker-0.parquet") as writer:
        recorder = Recorder(0, 50 * MS, listeners=[writer.add])
        recorder.fail(0, 0, MS, ClientLeft(1), b"", {"ttft": [MS]}, StreamTokens(4, 1))
        recorder.drop(MS)
        recorder.add(0, 0, MS, 1)
        recorder.take()
    (one,) = StoredRecords(tmp_path)["t"]
    assert (one.status, one.token_ms, one.longest_gap_ms) == ("left", (1.0,), None)


def test_answers_in_one_and_trials_without_records_have_none(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "t" / "worker-0.parquet") as writer:
        recorder = Recorder(0, 50 * MS, listeners=[writer.add])
        recorder.add(0, 0, MS, 1)
        recorder.take()
    stored = StoredRecords(tmp_path)
    assert (stored.get("t"), stored.get("u")) == (None, None)
    assert len(StoredRecords(tmp_path / "nowhere")) == 0


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "worker-0.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(RunFolderError, match="cannot be read"):
        StoredRecords(tmp_path)["t"]
