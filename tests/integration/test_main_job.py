"""The main job on local checkpoints: real export, real Triton, real Locust, one verdict."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from harness.cli.main import run_command
from harness.flow.trial_watch import TrialWatch
from harness.runs.folder import RunFolder, read_run
from harness.types import Decision
from tests.held_up import PATIENCE_S, is_held_up, unhurried
from tests.load_rig import environment

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment")]


@pytest.fixture(scope="module")
def study(local_study):
    """Of two families, already exported; an open loop follows each verdict."""
    document = yaml.safe_load(local_study.with_name("both.yaml").read_text())
    document["traffic"] |= {"saturation_shares": [0.4], "saturation_duration_s": 1.0}
    path = local_study.with_name("with_rates.yaml")
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def small(local_study):
    """One family, and a point for each of its two models: for runs that are disturbed."""
    document = yaml.safe_load(local_study.read_text())
    document["traffic"] |= {"protocols": ["http"], "client_batch_sizes": [4], "duration_s": 2.0}
    path = local_study.with_name("small.yaml")
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    """A finished run of the study: its exit code and folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with unhurried():
        return run_command(arguments(study, folder)), folder


def arguments(study, folder, *more):
    repository = study.parent / "model_repository"
    return ["run", str(study), "--out", str(folder), "--repository", str(repository), *more]


UNHURRIED = """
from harness.cli.main import main
from tests.held_up import PATIENCE_S, unhurried
from tests.load_rig import environment
with unhurried():
    main()
"""


def spawn(study, folder, *more):
    command = [sys.executable, "-c", UNHURRIED, *arguments(study, folder, *more)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment())


def trials_in(folder: Path) -> int:
    journal = folder / "journal.jsonl"
    return journal.read_text().count('"kind": "trial"') if journal.is_file() else 0


def wait_for(condition, process, timeout_s=PATIENCE_S):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def descendants(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def command_of(process: psutil.Process) -> str:
    """Its command line; empty where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_study_of_own_checkpoints_ends_in_a_verdict(finished):
    code, folder = finished
    assert code == 0
    for name in ("manifest.json", "journal.jsonl", "verdict.json", "report.html", "report.md",
                 "trials.csv", "trials.parquet", "quality.csv", "quality.parquet"):  # fmt: skip
        assert (folder / name).stat().st_size > 0
    run = read_run(folder)
    assert run.decision is Decision.PASS
    assert {variant.name for variant in run.variants} == {
        "own-teacher-fp32", "own-student-fp32", "lm-teacher-fp32", "lm-student-fp32",
    }  # fmt: skip


def test_every_trial_joins_both_sides_on_the_scored_artefact(finished):
    run = read_run(finished[1])
    digests = {(score.variant, score.sha256) for score in run.scores}
    # A machine that stood still spoils a trial whose window it fell into, and no other; it may have
    # stood still for longer than a whole window.
    assert not any(one.valid for one in run.trials if not one.requests)
    measured = [one for one in run.trials if one.requests and not is_held_up(one.invalid_reason)]
    assert {one.trial.variant for one in measured} == {one.name for one in run.variants}
    for result in measured:
        assert (result.trial.variant, result.sha256) in digests
        assert result.valid, result.invalid_reason
        assert result.failures == 0
        assert result.server.requests
        assert result.server.compute_ms is not None
        assert sum(s * n for s, n in result.server.batch_sizes.items()) == result.server.inferences
        assert (finished[1] / result.histogram_file).is_file()


def test_the_sweep_covers_batches_and_protocols_and_confirms_the_winner(finished):
    trials = pd.read_csv(finished[1] / "trials.csv")
    for family in ("sentences", "texts"):
        own = trials[trials.family == family]
        assert set(own.client_batch_size) == {1, 4}
        assert set(own.protocol) == {"http", "grpc"}
    verdict = json.loads((finished[1] / "verdict.json").read_text())
    recommended = trials[trials.trial_id == verdict["recommended"]].iloc[0]
    assert recommended["stage"] == "confirm"


def test_winner_and_teacher_are_measured_in_open_loops_after_the_verdict(finished):
    run = read_run(finished[1])
    winners = {one.recommended for one in run.verdicts}
    wanted = {one.trial.variant for one in run.trials if one.trial.trial_id in winners}
    wanted |= {"own-teacher-fp32", "lm-teacher-fp32"}
    assert {one.trial.variant for one in run.saturation} == wanted
    for one in run.saturation:
        asked = one.trial.workload
        alike = [r for r in run.trials if r.trial.variant == one.trial.variant and r.valid]
        highest = max(r.throughput_requests_per_s for r in alike)
        assert asked.rate_per_s <= 0.4 * highest * 1.01
        assert one.requests or not one.valid
    assert any(one.requests for one in run.saturation)
    listed = pd.read_csv(finished[1] / "trials.csv")
    assert set(listed[listed.stage == "saturation"].trial_id) == {
        one.trial.trial_id for one in run.saturation
    }
    assert "### Latency over rate" in (finished[1] / "report.md").read_text(encoding="utf-8")


def test_what_the_server_itself_costs_stands_beside_each_trial(finished):
    _, folder = finished
    run = read_run(folder)
    assert {one.protocol for one in run.overheads} == {
        result.trial.workload.protocol for result in run.trials
    }
    for one in run.overheads:
        assert one.requests > 0
        assert one.server_ms is not None
        assert one.server_ms > 0
        assert one.median_ms > 0
    assert "Null model" in (folder / "report.md").read_text(encoding="utf-8")


def test_quality_has_both_tasks_metrics(finished):
    quality = pd.read_csv(finished[1] / "quality.csv")
    assert {"accuracy", "macro_f1", "perplexity", "bits_per_byte"} <= set(quality.metric)
    teacher = quality[(quality.variant == "own-teacher-fp32") & (quality.metric == "accuracy")]
    assert teacher.relative_to_teacher.item() == 1.0


@pytest.mark.slow
def test_a_second_run_has_the_same_scores_to_the_last_digit(finished, study, tmp_path, capsys):
    capsys.readouterr()
    command = ["evaluate", str(study), "--out", str(tmp_path / "again"), "--repository",
               str(study.parent / "model_repository"), "--json"]  # fmt: skip
    assert run_command(command) == 0
    assert read_run(tmp_path / "again").scores == read_run(finished[1]).scores
    printed = json.loads(capsys.readouterr().out)["quality"]
    assert {score["metric"] for score in printed if score["variant"].startswith("own-")} == {
        "accuracy", "macro_f1", "label_perplexity",
    }  # fmt: skip
    assert all(score["sha256"] for score in printed)


def test_resuming_a_finished_run_measures_nothing_again(finished, study):
    before = (finished[1] / "trials.csv").read_bytes()
    assert run_command(arguments(study, finished[1], "--resume")) == 0
    assert (finished[1] / "trials.csv").read_bytes() == before


@pytest.mark.slow
def test_an_objective_that_nothing_meets_is_exit_3(small, tmp_path, capsys):
    capsys.readouterr()
    command = ["sweep", *arguments(small, tmp_path / "run")[1:], "--slo", "p50 < 0.001 ms"]
    with unhurried():
        assert run_command([*command, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["decision"] == "fail"
    assert {rejection["cause"] for rejection in document["rejected"]} == {"latency"}


def test_ctrl_c_in_the_sweep_keeps_finished_trials_and_resumes(small, tmp_path):
    folder = tmp_path / "run"
    process = spawn(small, folder)
    wait_for(lambda: trials_in(folder) >= 2, process)
    family = descendants(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1], "a process is left"
    kept = read_run(folder).trials
    assert len(kept) >= 2
    assert (folder / "report.html").is_file()
    with unhurried():
        assert run_command(arguments(small, folder, "--resume")) == 0
    assert read_run(folder).trials[: len(kept)] == kept


@pytest.mark.slow
@pytest.mark.parametrize("started", ["manifest.json", "logs/triton.log"])
def test_ctrl_c_before_the_first_trial_leaves_no_process(small, tmp_path, started):
    folder = tmp_path / "run"
    process = spawn(small, folder)
    wait_for((folder / started).is_file, process)
    family = descendants(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1], "a process is left"


@contextmanager
def killed_in_a_trial(
    folder: Path, which: Callable[[psutil.Process], bool]
) -> Iterator[list[psutil.Process]]:
    """One of this process's own is killed once a trial is over, as the next one's window opens.

    Between two trials a generator would be replaced without harm.

    Args:
        folder: the run's.
        which: whether a process is the one.

    Yields:
        All that runs when it is killed, from then on.
    """
    before = {one.pid for one in psutil.Process().children(recursive=True)}  # they serve others
    family: list[psutil.Process] = []
    open_window = TrialWatch.on_window_start

    def open_and_kill(watch: TrialWatch) -> None:
        open_window(watch)
        if trials_in(folder) and not family:
            everything = psutil.Process().children(recursive=True)
            family.extend(one for one in everything if one.pid not in before)
            next(one for one in family if which(one)).kill()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialWatch, "on_window_start", open_and_kill)
        yield family


def is_generator(process: psutil.Process) -> bool:
    return "worker_process" in command_of(process)


def test_a_server_killed_in_a_trial_ends_with_exit_5_and_keeps_the_rest(small, tmp_path, capsys):
    folder = tmp_path / "run"
    capsys.readouterr()
    with (
        unhurried(),
        killed_in_a_trial(folder, lambda one: one.name() == "tritonserver") as family,
    ):
        assert run_command(arguments(small, folder)) == 5
    errors = capsys.readouterr().err
    assert "server" in errors
    assert "--resume" in errors
    assert family, "no server was killed"
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1], "a process is left"
    assert len(read_run(folder).trials) >= 1


@pytest.mark.slow
def test_a_killed_generator_spoils_one_trial_only(small, tmp_path):
    folder = tmp_path / "run"
    with unhurried(), killed_in_a_trial(folder, is_generator) as family:
        code = run_command(arguments(small, folder))
    assert family, "no generator was killed"
    reasons = [result.invalid_reason for result in read_run(folder).trials if not result.valid]
    assert code in {0, 4}
    (reason,) = reasons
    assert "generator 0" in reason
    assert "died" in reason


def test_a_full_disk_is_exit_5_with_the_next_step(small, tmp_path, capsys, monkeypatch):
    """It is full from the manifest on, and before anything is journalled."""
    folder = tmp_path / "run"
    write_manifest = RunFolder.write_manifest

    def write_and_fill(run, manifest):
        write_manifest(run, manifest)
        if not (folder / "journal.jsonl").is_symlink():
            (folder / "journal.jsonl").symlink_to("/dev/full")

    monkeypatch.setattr(RunFolder, "write_manifest", write_and_fill)
    capsys.readouterr()
    assert run_command(arguments(small, folder)) == 5
    errors = capsys.readouterr().err
    assert "No space left on device" in errors
    assert "free some space" in errors


def test_bad_input_starts_nothing(study, tmp_path, capsys):
    text = (
        study.read_text()
        .replace("label: kind", "label: sort")
        .replace("max_length: 16", "max_length: -1", 1)
    )
    broken = study.parent / "broken.yaml"
    broken.write_text(text)
    assert run_command(arguments(broken, tmp_path / "run")) == 2
    assert "max_length" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_all_problems_of_data_and_checkpoints_come_at_once(study, tmp_path, capsys):
    config = study.parent / "odd" / "config.json"
    config.parent.mkdir(exist_ok=True)  # there already where the test is repeated
    config.write_text("{}")
    text = study.read_text().replace("label: kind", "label: sort")
    text = text.replace("checkpoint: ./lm-student", "checkpoint: ./odd")
    broken = study.parent / "broken-data.yaml"
    broken.write_text(text)
    assert run_command(arguments(broken, tmp_path / "run")) == 2
    errors = capsys.readouterr().err
    assert "sort" in errors, "the missing column"
    assert "sentence" in errors, "those there are"
    assert "lm-student" in errors
    assert not (tmp_path / "run").exists()
