"""The report card and the profile on local checkpoints: real processes, profilers and server."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import yaml

from harness.cli.main import run_command
from harness.errors import EnvironmentFailure
from harness.flow.card import measure_card
from harness.flow.manifest import new_manifest
from harness.flow.options import RunSettings
from harness.flow.preparation import prepare
from harness.flow.profile import ProfilePlan, profile_variant
from harness.flow.run import card_study, run_study
from harness.profiling.subjects import ArtefactSubject
from harness.profiling.worker import Worker
from harness.report.build import build_report
from harness.runs.folder import RunFolder, read_run
from harness.study.file import load_study
from harness.types.card import CardPlan, Runtime
from tests.held_up import PATIENCE_S, unhurried

PLAN = CardPlan(
    samples=40, rounds=2, fresh_processes=1, window_s=0.001, batch_sizes=(1, 4), served_s=1.5
)


@pytest.fixture(scope="module")
def study_file(local_study):
    return local_study


@pytest.fixture(scope="module")
def study(study_file):
    return load_study(study_file)


@pytest.fixture(scope="module")
def repository(study_file):
    return study_file.parent / "model_repository"


@pytest.fixture(scope="module")
def carded(study, repository, tmp_path_factory, server_environment):
    """A finished card's folder."""
    path = tmp_path_factory.mktemp("runs") / "card"
    with unhurried(), RunFolder.create(path, new_manifest(study)) as folder:
        card_study(study, folder, RunSettings(repository), PLAN)
    return path


@pytest.mark.triton
def test_a_card_has_every_model_in_both_runtimes_and_served(carded):
    run = read_run(carded)
    assert {(entry.name, entry.runtime) for entry in run.card} == {
        ("own-teacher", Runtime.PYTORCH),
        ("own-teacher-fp32", Runtime.ONNX_RUNTIME),
        ("own-student", Runtime.PYTORCH),
        ("own-student-fp32", Runtime.ONNX_RUNTIME),
    }
    for entry in run.card:
        assert entry.latency.count == PLAN.samples
        assert entry.cold.first_call_ms.value > 0
        assert entry.cold.memory_bytes.value > 0
        assert {(p.batch_size, p.length) for p in entry.throughput} == {
            (batch, length) for batch in (1, 4) for length in (4, 8, 16)
        }
    assert [one.variant for one in run.served] == ["own-teacher-fp32", "own-student-fp32"]
    for one in run.served:
        assert [point.batch_size for point in one.points] == [1, 4]
        assert all(point.throughput_per_s > 0 for point in one.points)
    assert not run.trials  # a search that resumes this run must not take them for its own


@pytest.mark.triton
def test_the_card_is_written_and_rebuilt_from_the_journal_alone(carded, tmp_path):
    carded = shutil.copytree(carded, tmp_path / "carded")
    frame = pd.read_csv(carded / "card.csv")
    assert {"pytorch", "onnxruntime", "served"} == set(frame.runtime)
    assert {"accuracy", "latency_p99", "size_on_disk", "memory"} <= set(frame.metric)
    before = (carded / "card.html").read_text()
    (carded / "card.html").unlink()
    build_report(read_run(carded), carded)
    assert (carded / "card.html").read_text() == before


@pytest.mark.triton
def test_a_resumed_card_measures_only_what_is_missing(carded, study, repository):
    journal = carded / "journal.jsonl"
    families = prepare(study, repository=repository, progress=lambda _: None)
    with RunFolder.resume(carded, study) as folder:
        lines = journal.read_text().count('"kind": "card"')
        measure_card(study, families, folder, PLAN, lambda _: None)
        assert journal.read_text().count('"kind": "card"') == lines
        del folder.journal.card["own-student/pytorch"]
        measure_card(study, families, folder, PLAN, lambda _: None)
        assert journal.read_text().count('"kind": "card"') == lines + 1


@pytest.mark.slow
@pytest.mark.triton
def test_a_run_that_ends_with_a_card_has_it_in_its_report_beside_its_own_trials(
    study_file, repository, tmp_path, undisturbed
):
    document = yaml.safe_load(study_file.read_text())
    document["traffic"] |= {"protocols": ["http"], "client_batch_sizes": [4]}
    small = study_file.with_name("small.yaml")
    small.write_text(yaml.safe_dump(document))
    study = load_study(small)
    plan = dataclasses.replace(PLAN, served_s=0.0)
    with RunFolder.create(tmp_path / "run", new_manifest(study)) as folder:
        run_study(study, folder, RunSettings(repository), card=plan)
    run = read_run(tmp_path / "run")
    assert run.verdicts
    assert len(run.card) == 4
    assert not run.served
    report = (tmp_path / "run" / "report.html").read_text()
    for part in ("Report card", "What the export brought", "own trials"):
        assert part in report
    markdown = (tmp_path / "run" / "report.md").read_text()
    assert "### Report card" in markdown


@pytest.fixture(scope="module")
def profiled(study, repository, tmp_path_factory):
    """A profile's folder, with a roofline in its own cache."""
    folder = tmp_path_factory.mktemp("profiles") / "student"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        profile_variant(
            study,
            "own-student-fp32",
            folder,
            RunSettings(repository),
            ProfilePlan(batch_size=4, least_growth=0.9),
        )
    return folder


def test_a_profile_says_where_the_time_goes_in_both_runtimes(profiled):
    frame = pd.read_csv(profiled / "operators.csv")
    assert set(frame.runtime) == {"pytorch", "onnxruntime"}
    assert set(frame.batch_size) == {1, 4}
    products = frame[frame.operations.notna()]
    assert {"aten::addmm", "aten::bmm", "MatMul"} <= set(products.kind)
    assert (products.operations_per_byte > 0).all()
    # Both runtimes compute the same model: what they multiply is alike but for the classifier.
    work = products[products.batch_size == 4].groupby("runtime").operations.sum()
    assert work["onnxruntime"] == pytest.approx(work["pytorch"], rel=0.1)
    shares = frame.groupby(["runtime", "batch_size"]).share.sum()
    assert shares.to_numpy() == pytest.approx(1)


def test_a_profile_keeps_traces_roofline_and_scaling(profiled):
    document = json.loads((profiled / "profile.json").read_text())
    for one in document["operators"]:
        trace = json.loads((profiled / one["trace"]).read_text())
        assert trace["traceEvents"] if isinstance(trace, dict) else trace
    roofline = document["roofline"]
    assert roofline["memory_bytes_per_s"] > 1e8
    assert {(peak["runtime"], peak["datatype"]) for peak in roofline["peaks"]} == {
        ("pytorch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"),
    }  # fmt: skip
    scaling = pd.read_csv(profiled / "scaling.csv")
    assert set(scaling.runtime) == {"pytorch", "onnxruntime"}
    assert scaling.batch_size.tolist()[:2] == [1, 2]
    page = (profiled / "profile.html").read_text()
    for part in ("What bounds it", "Offline", "Where the time goes", "integers"):
        assert part in page


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(EnvironmentFailure, match="lost-fp32 in onnxruntime: cannot be loaded"):
        Worker(ArtefactSubject("lost-fp32", broken, dict), 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["profile", "STUDY", "--variant", "nobody"], "no variant 'nobody'"),
        (["card", "STUDY", "--out", "/nowhere/at/all", "--resume"], "not a run folder"),
        (["card", "STUDY", "--samples", "3"], "samples"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(study_file, arguments, told, capsys):
    command = [str(study_file) if one == "STUDY" else one for one in arguments]
    assert run_command(command) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_leaves_no_measuring_process(study_file, repository, tmp_path):
    command = [sys.executable, "-m", "harness", "profile", str(study_file), "--variant",
               "own-student-fp32", "--out", str(tmp_path / "out"), "--repository",
               str(repository)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE_S
    while not (tmp_path / "out" / "traces").is_dir():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1], "a process is left"
