"""The run folder: nothing finished is lost, nothing measured is overwritten."""

import csv
import errno
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import RunFolderError, StorageError
from harness.runs.folder import (
    JOURNAL,
    RunFolder,
    latest_run,
    overall_decision,
    read_run,
    study_digest,
)
from harness.runs.journal import Journal, QualityEntry
from harness.runs.tables import trials_table, write_tables
from harness.study.file import parse_study
from harness.system.storage import storage_errors
from harness.types import (
    ColdStart,
    Decision,
    FailedVariant,
    LoadMode,
    QualityScore,
    Role,
    ServingConfig,
    Verdict,
)
from harness.types.losses import Relabelling
from tests.samples import sample_study, sample_trial_result, sample_variant

TRIAL_COLUMNS = """
    trial_id variant role format precision protocol client_batch_size load_mode concurrency
    rate_per_s max_batch_size queue_delay_us instance_count duration_s requests failures
    throughput_requests_per_s throughput_inferences_per_s throughput_low_inferences_per_s
    throughput_high_inferences_per_s latency_p50_ms latency_p90_ms
    latency_p95_ms latency_p99_ms latency_p95_low_ms latency_p95_high_ms server_queue_ms
    server_compute_ms server_batch_mean schedule_delay_p99_ms generator_cpu valid invalid_reason
    decision dropped offered_requests_per_s warmup_s service_p50_ms service_p95_ms service_p99_ms
    loop_lag_p99_ms confidence min_duration_s arrivals
""".split()  # noqa: SIM905  (a list of thirty quoted words is harder to compare with the design)


@pytest.fixture
def study():
    return parse_study(sample_study(), source="study")


@pytest.fixture
def folder(tmp_path, study):
    manifest = {"schema_version": 1, "study_digest": study_digest(study), "artefacts": {}}
    return RunFolder.create(tmp_path / "run", manifest)


def score(metric="accuracy"):
    return QualityScore("teacher-fp32", "topics", Role.TEACHER, metric, 0.8, 0.7, 0.9, 100, "ab")


def test_a_variant_that_failed_is_no_longer_failed_once_it_is_made(folder):
    variant = sample_variant()
    failed = FailedVariant(variant.name, variant.family, variant.role, "export", "why")
    mixed_up = Relabelling(variant.name, "topics", ("a", "b"), ("b", "a"), 0.0, 1.0, 40)
    entry = QualityEntry(variant.name, variant.sha256, (score(),), relabelling=mixed_up)
    with folder:
        folder.journal.add(failed)
        assert read_run(folder.path).failed == (failed,)
        folder.journal.add(variant)
        folder.journal.add(entry)
    again = read_run(folder.path)
    assert (again.failed, again.variants) == ((), (variant,))
    assert again.relabellings == (mixed_up,)


def test_what_is_recorded_is_read_back_equal(folder):
    variant, result = sample_variant(), sample_trial_result()
    entry = QualityEntry(variant.name, variant.sha256, (score(),))
    with folder:
        folder.journal.add(variant)
        folder.journal.add(entry)
        folder.journal.add(result)
    run = read_run(folder.path)
    assert run.variants == (variant,)
    assert run.scores == entry.scores
    assert run.trials == (result,)
    assert run.interrupted


def test_what_was_measured_of_a_file_that_was_exchanged_is_no_part_of_the_run(folder):
    first, other = sample_variant(), sample_variant("student-fp32")
    second = replace(first, sha256="cd" * 32)
    stale, kept = sample_trial_result(concurrency=4), sample_trial_result(variant=other.name)
    fresh = replace(sample_trial_result(concurrency=1), sha256=second.sha256)
    with folder:
        for entry in (first, other, QualityEntry(first.name, first.sha256, (score(),)), stale):
            folder.journal.add(entry)
        folder.journal.add(first)  # resumed, and the same file
        assert read_run(folder.path).trials == (stale,)
        for entry in (kept, second, fresh):
            folder.journal.add(entry)
    assert tuple(folder.journal.trials.values()) == (kept, fresh)
    run = read_run(folder.path)
    assert run.trials == (kept, fresh)
    assert run.scores == ()
    assert run.variants == (second, other)


def test_a_torn_last_line_is_ignored_and_cut_before_the_next_append(folder, study):
    first, second = sample_trial_result(concurrency=1), sample_trial_result(concurrency=4)
    with folder:
        folder.journal.add(first)
        folder.journal.add(second)
    path = folder.path / JOURNAL
    path.write_bytes(path.read_bytes()[:-40])
    resumed = RunFolder.resume(folder.path, study)
    assert list(resumed.journal.trials) == [first.trial.trial_id]
    with resumed:
        resumed.journal.add(second)
    assert list(Journal.read(path).trials) == [first.trial.trial_id, second.trial.trial_id]


def test_a_last_line_that_lacks_only_its_end_is_kept(folder, study):
    """It is in use from when it is read, so it has to be in the file when it is read again."""
    first, second = sample_trial_result(concurrency=1), sample_trial_result(concurrency=4)
    with folder:
        folder.journal.add(first)
    path = folder.path / JOURNAL
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    resumed = RunFolder.resume(folder.path, study)
    assert list(resumed.journal.trials) == [first.trial.trial_id]
    with resumed:
        resumed.journal.add(second)
    assert list(Journal.read(path).trials) == [first.trial.trial_id, second.trial.trial_id]


def test_a_broken_line_in_the_middle_is_no_crash_s_doing(folder):
    with folder:
        folder.journal.add(sample_trial_result())
    path = folder.path / JOURNAL
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(RunFolderError, match="line 1"):
        Journal.read(path)


@pytest.mark.parametrize("line", [b"\xad\xff", b"5", b"[]", b'{"kind": "trial", "data": 5}'])
def test_a_line_of_anything_is_named(folder, line):
    with folder:
        folder.journal.add(sample_trial_result())
    path = folder.path / JOURNAL
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RunFolderError, match="line 2"):
        Journal.read(path)


def test_what_a_crash_left_of_a_last_line_need_not_be_text(folder):
    with folder:
        folder.journal.add(sample_trial_result())
    path = folder.path / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"kind": "tri\xff\x00\x00')
    assert len(Journal.read(path).trials) == 1


@pytest.mark.parametrize("keep", [True, False])
def test_a_run_whose_journal_is_lost_keeps_its_tables(folder, keep):
    with folder:
        folder.journal.add(sample_variant())
        folder.journal.add(sample_trial_result())
    write_tables(read_run(folder.path), folder.path)
    before = (folder.path / "trials.csv").read_bytes()
    (folder.path / JOURNAL).unlink()
    if keep:
        (folder.path / JOURNAL).touch()
    with pytest.raises(RunFolderError, match=r"journal\.jsonl holds nothing, although"):
        read_run(folder.path)
    assert (folder.path / "trials.csv").read_bytes() == before


@pytest.mark.parametrize("families", [[{}], [5], 5])
def test_a_damaged_verdict_is_named(folder, families):
    with folder:
        folder.journal.add(sample_variant())
    (folder.path / "verdict.json").write_text(json.dumps({"families": families}))
    with pytest.raises(RunFolderError, match=r"verdict\.json is damaged"):
        read_run(folder.path)


@pytest.mark.parametrize("content", [b"[]", b"5", b"\xff\xfe", b"{"])
def test_a_damaged_manifest_is_named(folder, content):
    (folder.path / "manifest.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"manifest\.json cannot be read"):
        read_run(folder.path)


def test_a_folder_with_something_in_it_is_never_overwritten(folder):
    with pytest.raises(RunFolderError, match="not empty"):
        RunFolder.create(folder.path, {})


def test_a_changed_study_does_not_resume(folder):
    other = parse_study(sample_study(seed=99), source="study")
    with pytest.raises(RunFolderError, match="since changed"):
        RunFolder.resume(folder.path, other)


def former_study(**changes):
    """The study of `tests/former_study.json`, as a person wrote it then and writes it today."""
    traffic = {
        "load": "open",
        "rates_per_s": [20],
        "arrivals": "gamma:2.0",
        "shape": "sine:0.50..1.5/60s",
        "batch_mix": {4: 1, 1: 3},
    }
    return parse_study(sample_study(traffic=traffic | changes), source="study")


def test_a_run_that_an_earlier_version_wrote_goes_on_with_what_it_measured(tmp_path):
    """Revision 43f05e2 wrote `gamma:2.0` as it was given, and had no `ensemble`."""
    file = Path(__file__).parents[1] / "former_study.json"
    manifest = json.loads(file.read_text()) | {"schema_version": 1, "artefacts": {}}
    study = former_study()
    assert study_digest(study) != manifest["study_digest"]
    result = sample_trial_result()
    with RunFolder.create(tmp_path / "small-1", manifest) as folder:
        folder.journal.add(result)
    assert latest_run(tmp_path, study) == tmp_path / "small-1"
    resumed = RunFolder.resume(tmp_path / "small-1", study)
    assert list(resumed.journal.trials) == [result.trial.trial_id]
    for changes in ({"arrivals": "gamma:3"}, {"shape": "flat"}, {"rates_per_s": [21]}):
        with pytest.raises(RunFolderError, match="since changed"):
            RunFolder.resume(tmp_path / "small-1", former_study(**changes))


def test_a_folder_whose_lock_cannot_be_made_is_one_line(folder, study):
    with folder:
        pass
    lock = folder.path / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # no file can be made there, as on a read-only disk
    with pytest.raises(StorageError, match="cannot write to") as refused:
        RunFolder.resume(folder.path, study).__enter__()
    assert "choose another folder" in refused.value.next_step


def test_two_processes_do_not_write_one_run(folder, study):
    with (
        folder,
        pytest.raises(RunFolderError, match="in use"),
        RunFolder.resume(folder.path, study),
    ):
        pass


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(RunFolderError, match=r"no manifest\.json"):
        read_run(tmp_path)


def test_the_latest_run_is_of_the_same_study(tmp_path, study):
    digest = study_digest(study)
    for stamp, of in (
        ("20260101T000000Z", digest),
        ("20260102T000000Z", digest),
        ("20260103T000000Z", "x"),
    ):
        RunFolder.create(
            tmp_path / f"{study.name}-{stamp}", {"schema_version": 1, "study_digest": of}
        )
    assert latest_run(tmp_path, study).name.endswith("20260102T000000Z")
    with pytest.raises(RunFolderError):
        latest_run(tmp_path / "elsewhere", study)


def test_a_full_disk_is_a_clear_line(tmp_path):
    with pytest.raises(StorageError, match="No space left") as caught, storage_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "--resume" in caught.value.next_step
    assert caught.value.exit_code == 5


def test_a_journal_line_holds_no_nan(folder):
    with folder, pytest.raises(ValueError, match="JSON"):
        folder.journal.add(sample_trial_result(generator_cpu=math.nan))


def test_tables_have_the_columns_of_the_design(folder):
    with folder:
        folder.journal.add(sample_variant())
        folder.journal.add(QualityEntry("teacher-fp32", "ab", (score(),)))
        folder.journal.add(sample_trial_result())
    run = read_run(folder.path)
    write_tables(run, folder.path)
    assert set(TRIAL_COLUMNS) <= set(trials_table(run.trials, run.variants).columns)
    header = (folder.path / "quality.csv").read_text().splitlines()[0].split(",")
    assert {
        "variant",
        "role",
        "metric",
        "value",
        "low",
        "high",
        "samples",
        "relative_to_teacher",
        "relative_low",
        "relative_high",
        "p_value",
    } <= set(header)
    assert (folder.path / "trials.parquet").stat().st_size > 0


def test_cold_starts_are_a_table_of_whole_and_missing_numbers(folder):
    serving = ServingConfig(instance_count=2)
    settled = ColdStart("teacher-fp32", "ab", serving, 1.5, 80.0, 300, 12, 0.2, 4.0)
    restless = ColdStart("student-fp32", "cd", serving, 1.4, 70.0, 300, None, None, None)
    with folder:
        folder.journal.add(settled)
        folder.journal.add(restless)
    write_tables(read_run(folder.path), folder.path)
    first, second = csv.DictReader((folder.path / "cold_starts.csv").open())
    assert (first["variant"], first["instance_count"]) == ("teacher-fp32", "2")
    assert (first["steady_after_requests"], first["steady_ms"]) == ("12", "4.0")
    assert (second["steady_after_requests"], second["steady_ms"]) == ("", "")
    assert (folder.path / "cold_starts.parquet").stat().st_size > 0


def test_a_run_without_cold_starts_has_an_empty_table(folder):
    write_tables(read_run(folder.path), folder.path)
    header = (folder.path / "cold_starts.csv").read_text().splitlines()
    assert len(header) == 1


def test_arrivals_are_named_in_open_loops_only(folder):
    result = sample_trial_result()
    workload = replace(result.trial.workload, load_mode=LoadMode.OPEN, rate_per_s=250.0)
    opened = replace(result, trial=replace(result.trial, workload=workload))
    table = trials_table((result, opened), (sample_variant(),))
    assert table["arrivals"].fillna("").tolist() == ["", "poisson"]
    assert table["load_mode"].tolist() == ["closed", "open"]


def test_the_verdict_document_puts_the_first_family_on_top(folder):
    first = Verdict("topics", "p95 < 50 ms", Decision.PASS, "a-trial", "Serve it.", ())
    second = Verdict("prose", "p95 < 50 ms", Decision.UNDECIDED, None, "Not enough.", ())
    folder.write_verdicts((first, second))
    document = json.loads((folder.path / "verdict.json").read_text())
    assert (document["recommended"], document["decision"]) == ("a-trial", "undecided")
    assert read_run(folder.path).verdicts == (first, second)


@pytest.mark.parametrize(
    ("decisions", "overall"),
    [
        ([Decision.PASS, Decision.PASS], Decision.PASS),
        ([Decision.PASS, Decision.UNDECIDED], Decision.UNDECIDED),
        ([Decision.UNDECIDED, Decision.FAIL], Decision.FAIL),
        ([], Decision.UNDECIDED),
    ],
)
def test_one_failing_family_fails_the_study(decisions, overall):
    verdicts = tuple(Verdict("f", "", decision, None, "", ()) for decision in decisions)
    assert overall_decision(verdicts) is overall


def test_a_journal_from_before_throughput_had_an_interval_is_read(folder):
    result = sample_trial_result()
    folder.journal.add(result)
    path = folder.journal.path
    later = ("throughput_low_inferences_per_s", "throughput_high_inferences_per_s",
             "failure_design_effect")  # fmt: skip
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["data"] = {name: value for name, value in line["data"].items() if name not in later}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    (read,) = Journal.read(path).trials.values()

    assert read == result
    assert read.throughput_low_inferences_per_s is None
