"""`harness batch` on a run folder: what it prints, what it leaves, what it refuses."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "planning"))
from cost_samples import STUDENT, TEACHER, result, variant

from harness.cli.main import run_command
from harness.flow.review.contributions import contributions_of
from harness.report.page import Documents, page_of
from harness.runs.documents import read_document
from harness.runs.folder import RunFolder, read_run
from harness.types import Role
from harness.types.offline import OfflinePlan

FORMER = Path(__file__).parents[1] / "former_run"
JOB = ["--documents", "100M", "--deadline", "6h"]
EXACT = ["--start-time", "1s", "--spread", "0.01%"]


@pytest.fixture
def run(tmp_path):
    manifest = {
        "schema_version": 1,
        "environment": {"usable_cores": 2, "gpus": []},
        "study": {
            "name": "topics", "objective": "p95 < 50 ms", "families": [{"name": "topics"}],
        },
    }  # fmt: skip
    made = RunFolder.create(tmp_path / "run", manifest)
    trials = (
        result(TEACHER, 250.0, batch=1, spread=0.01),
        result(TEACHER, 255.0, batch=2, spread=0.01),
        result(STUDENT, 1000.0, batch=1, spread=0.01),
        result(STUDENT, 2000.0, batch=2, spread=0.01),
        result(STUDENT, 2040.0, batch=4, spread=0.01),
    )
    with made:
        for one in (variant(TEACHER, Role.TEACHER), variant(STUDENT, Role.STUDENT), *trials):
            made.journal.add(one)
    return tmp_path / "run"


@pytest.fixture
def prices(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("name,vcpu,on_demand_usd_per_hour,date\nrack-1,2,0.9,2026-01-02\n")
    return str(path)


def test_it_is_printed_and_left_in_the_folder(run, prices, capsys):
    priced = ["--instance", "rack-1", "--measured-on", "rack-1", "--prices", prices]
    assert run_command(["batch", str(run), *JOB, *EXACT, *priced]) == 0
    found = capsys.readouterr()
    # 2,000/s: 50,000 s of work in 21,599 s; one more for a lost one. 0.9 USD/h: 12.5 and 100 USD
    for said in ("100,000,000 documents within 6.00 h", "rack-1", "measured", "12.5", "100"):
        assert said in found.out, said
    assert "topics: student at batch 2 on 4 rack-1 machines" in found.out
    assert str(run / "batch.json") in found.out
    stored = read_document(run, "batch", OfflinePlan)
    needs = {one.variant: one.needs[0] for one in stored.variants}
    assert needs[STUDENT].even.value == 3
    assert needs[STUDENT].recommended == 4
    assert needs[STUDENT].usd_per_job.value == pytest.approx(0.9 * 50_004 / 3600)
    assert needs[TEACHER].even.value == 19  # 400,000 s / 21,599 s
    for page in ("report.html", "report.md"):
        shown = (run / page).read_text()
        assert "Job with a deadline" in shown, page
        assert "teacher needs" in shown, page
    assert 'id="batch"' in (run / "report.html").read_text()
    plots = page_of(read_run(run), Documents(offline=stored)).plots
    assert {"offline-batches-1", "offline-machines"} <= plots.keys()


def test_the_decision_page_has_a_line_per_variant(run, capsys):
    assert run_command(["batch", str(run), *JOB, *EXACT]) == 0
    capsys.readouterr()
    facts = contributions_of(run).facts("topics")
    assert [one.heading for one in facts] == ["Job of 100,000,000 documents within 6.00 h"] * 2
    assert facts[1].name == "student, batch 2, quality pass"
    assert facts[1].value.startswith("4 machines, one of which may be lost (3 if all were equally")


def test_the_same_again_is_not_written_twice_and_another_job_is_numbered(run, capsys):
    for job in (JOB, JOB, ["--documents", "5k", "--deadline", "1h"]):
        assert run_command(["batch", str(run), *job, *EXACT]) == 0
    capsys.readouterr()
    assert sorted(one.name for one in run.glob("batch*.json")) == ["batch-2.json", "batch.json"]


def test_it_is_printed_as_json(run, capsys):
    assert run_command(["batch", str(run), *JOB, *EXACT, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["terms"]["documents"] == 100_000_000
    assert {one["variant"] for one in document["variants"]} == {TEACHER, STUDENT}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--documents", "0"], "'0' is not a number of documents above 0"),
        (["--deadline", "0h"], "a deadline after '0h'"),
        (["--deadline", "-6h"], "a deadline after '-6h'"),
        (["--deadline", "1s"], "a machine starts in 1 s, and the deadline is after 1 s"),
        (["--jobs-per-day", "5"], "do not fit into a day"),
        (["--jobs-per-day", "0"], "--jobs-per-day is 0"),
        (["--instance", "c7i.xlrge"], "did you mean c7i.xlarge"),
        (["--instance", "g5.xlarge"], "run the study on g5.xlarge"),
        (["--instance", "c7i.xlarge", "--spot"], "the spot price of c7i.xlarge is not known"),
        (["--variant", "student"], "--variant says what --measure measures"),
        (["--measure", "--variant", "studnet"], "name one of: teacher, student"),
        (["--chance", "100%"], "--chance 100%: a share is above 0%"),
        (["--documents", "1000B"], "more than 10,000 machines"),
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing(run, options, told, capsys):
    assert run_command(["batch", str(run), *JOB, *EXACT, *options]) == 2
    assert told in capsys.readouterr().err
    assert not (run / "batch.json").exists()


def test_a_run_without_valid_trials_says_what_to_measure(tmp_path, capsys):
    manifest = {"schema_version": 1, "study": {"name": "topics", "families": []}}
    made = RunFolder.create(tmp_path / "run", manifest)
    with made:
        made.journal.add(variant(STUDENT, Role.STUDENT))
        made.journal.add(result(STUDENT, 1000.0, invalid="the server lacked CPU"))
    folder = str(tmp_path / "run")
    assert run_command(["batch", folder, *JOB]) == 2
    told = capsys.readouterr().err
    assert "none of its trials (1) is a valid closed loop: the server lacked CPU" in told
    wanted = f"next: harness batch {folder} --documents 100M --deadline 6h --measure"
    assert wanted in " ".join(told.split())
    priced = ["--slo", "p95 < 9 ms", "--instance", "c7i.xlarge", "--instance", "c7i.large"]
    asked = [*priced[:2], *JOB, "--rows-per-document", "4", "--chance", "99%", *priced[2:]]
    assert run_command(["batch", folder, *asked, "--measured-on", "c7i.large", "--json"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    again = shlex.join([*asked, "--measured-on", "c7i.large"])
    assert f"next: harness batch {folder} {again} --measure" in told


def test_a_former_run_is_counted_with(tmp_path, capsys):
    folder = shutil.copytree(FORMER, tmp_path / "run")
    assert run_command(["batch", str(folder), "--documents", "1M", "--deadline", "2h"]) == 0
    assert "machines" in capsys.readouterr().out
    assert read_document(folder, "batch", OfflinePlan).variants
