"""`harness cost` on a run folder: what it prints, what it leaves, what it refuses."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "planning"))
from cost_samples import STUDENT, TEACHER, result, variant
from planning_samples import make_trial

from harness.cli.main import run_command
from harness.flow.costing import tokens_of
from harness.flow.trial import answers_name
from harness.report.cost.section import cost_section
from harness.report.page import Documents, page_of
from harness.runs.documents import read_document
from harness.runs.folder import RunFolder, read_run
from harness.system.machine import cloud_instance
from harness.types import Role
from harness.types.costs import CostReport
from tests.samples import sample_variant

FORMER = Path(__file__).parents[1] / "former_run"


def run_folder(folder, *trials):
    manifest = {
        "schema_version": 1,
        "environment": {"usable_cores": 2, "gpus": []},
        "study": {
            "name": "topics", "objective": "p95 < 50 ms", "families": [{"name": "topics"}],
        },
    }  # fmt: skip
    made = RunFolder.create(folder, manifest)
    with made:
        for one in (variant(TEACHER, Role.TEACHER), variant(STUDENT, Role.STUDENT), *trials):
            made.journal.add(one)
    return folder


@pytest.fixture
def run(tmp_path):
    return run_folder(tmp_path / "run", result(TEACHER, 250.0), result(STUDENT, 1000.0))


@pytest.fixture
def prices(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("name,vcpu,on_demand_usd_per_hour,date\nrack-1,2,0.9,2026-01-02\n")
    return str(path)


def test_costs_are_printed_and_left_in_the_folder(run, prices, capsys):
    command = ["cost", str(run), "--instance", "rack-1", "--measured-on", "rack-1"]
    demand = ["--demand", "500/s", "--peak", "2x", "--training-cost", "1971"]
    assert run_command([*command, "--prices", prices, *demand]) == 0
    found = capsys.readouterr()
    # 0.9 USD/h: 1 USD per million at 250/s, 0.25 at 1,000/s; 4 and 1 machines of 657 USD a month
    for said in ("rack-1", "measured", "1.00", "0.250", "2,628", "657", "75.0%", "1.00 months"):
        assert said in found.out, said
    stored = read_document(run, "cost", CostReport)
    assert [one.variant for one in stored.costs] == [STUDENT, TEACHER]
    assert stored.costs[0].usd_per_million_inferences.value == pytest.approx(0.25)
    assert stored.savings[0].break_even.months == pytest.approx(1.0)
    assert str(run / "cost.json") in found.out
    for page in ("report.html", "report.md"):
        shown = (run / page).read_text()
        assert "Cost at the highest load" in shown or "## Cost" in shown, page
        assert "1.00 months" in shown, page
    assert 'id="cost"' in (run / "report.html").read_text()
    assert "cost-1" in page_of(read_run(run), Documents(costs=stored)).plots


def test_a_name_in_brackets_is_no_markup(run, prices, capsys):
    names = ("rack[reserved]", "rack[/x]")
    rows = [f"{name},2,0.9,2026-01-02\n" for name in names]
    Path(prices).write_text("name,vcpu,on_demand_usd_per_hour,date\n" + "".join(rows))
    command = ["cost", str(run), "--prices", prices, "--measured-on", names[0]]
    assert run_command([*command, *(f"--instance={name}" for name in names)]) == 0
    found = capsys.readouterr().out
    assert all(name in found for name in names)


def test_tokens_are_those_of_the_requests_that_were_kept(run, prices, capsys):
    digest = read_run(run).variants[0].sha256[:12]
    masks = {"0/attention_mask": np.array([[1, 1, 0], [1, 1, 1]])}  # 2.5 tokens of a row
    np.savez(run / "payloads" / "pool.npz", **masks)
    np.savez(run / "payloads" / f"pool-{digest}-1.answers.npz", tolerance=1.0)
    command = ["cost", str(run), "--instance", "rack-1", "--measured-on", "rack-1"]
    assert run_command([*command, "--prices", prices]) == 0
    assert "Cost per million tokens" in capsys.readouterr().out
    (student,) = (
        one for one in read_document(run, "cost", CostReport).costs if one.variant == STUDENT
    )
    assert student.tokens_per_inference == 2.5
    assert student.usd_per_million_tokens.value == pytest.approx(0.25 / 2.5)


def test_tokens_are_counted_of_models_that_only_a_server_has(tmp_path):
    """Their digest is marked `remote:`, which the names of kept files leave out."""
    (tmp_path / "payloads").mkdir()
    there = dataclasses.replace(sample_variant(), sha256=f"remote:{'cd' * 32}")
    masks = {"0/attention_mask": np.array([[1, 1, 0], [1, 1, 1]])}
    np.savez(tmp_path / "payloads" / "pool.npz", **masks)
    pool = tmp_path / "payloads" / "pool.npz"
    trial = make_trial(STUDENT)
    (tmp_path / "payloads" / answers_name(pool, there, trial.workload)).touch()
    found = tokens_of(SimpleNamespace(trials=(), variants=(there,)), tmp_path)
    assert found == {there.name: 2.5}


def test_an_estimate_is_marked(run, capsys):
    assert run_command(["cost", str(run), "--instance", "c7i.xlarge"]) == 0
    found = capsys.readouterr()
    assert "estimate" in found.out
    assert "measured" not in found.out
    assert "name the type with --measured-on" in found.err
    rule = "Note: c7i.xlarge: estimate from a machine with 2 vCPUs: 2 vCPUs to 4 vCPUs"
    written = (run / "report.md").read_text()
    assert rule in written
    assert "](#" not in written
    assert "in brackets the interval" in written


def test_the_picture_tells_an_estimate_from_what_was_measured(run):
    both = ["--measured-on", "c7i.large", "--instance", "c7i.large", "--instance", "c7i.xlarge"]
    assert run_command(["cost", str(run), *both]) == 0
    (plot,) = cost_section(read_document(run, "cost", CostReport)).plots
    fills = {trace["name"]: set(trace["marker"]["color"]) for trace in plot.traces}
    assert fills["c7i.xlarge, estimate"] == {"--panel"}
    assert "--panel" not in fills["c7i.large, measured"]
    assert run_command(["cost", str(run), "--instance", "c7i.xlarge"]) == 0
    (alone,) = cost_section(read_document(run, "cost", CostReport)).plots
    assert alone.layout["showlegend"]


def test_it_is_printed_as_json(run, capsys):
    assert run_command(["cost", str(run), "--instance", "c7i.xlarge", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {one["variant"] for one in document["costs"]} == {TEACHER, STUDENT}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--instance", "c7i.xlrge"], "did you mean c7i.xlarge"),
        (["--demand", "many"], "'many' is not a rate"),
        (["--demand", "0/s"], "a demand of 0/s needs no replica"),
        (["--demand", "5/s", "--peak", "0.5x"], "a peak of 0.5x is below the mean"),
        (["--peak", "3x"], "--peak says something of --demand, which was not given"),
        (["--rows-per-request", "4", "--peak", "1x"], "--peak and --rows-per-request say"),
        (["--training-cost", "-5"], "the training cost is -5 USD"),
        (["--prices", "none.csv"], "the prices in none.csv cannot be read"),
        (["--slo", "p95 <"], "the objective does not parse"),
        (["--instance", "g5.xlarge"], "run the study on g5.xlarge"),
        (["--slo", "p95 < 1 ms"], "nothing of this run can be priced"),
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing(run, options, told, capsys):
    assert run_command(["cost", str(run), *options]) == 2
    assert told in capsys.readouterr().err
    assert not (run / "cost.json").exists()


def test_a_former_run_is_priced_once_its_machine_is_named(tmp_path, capsys):
    """Its manifest is from before it said on how many cores it ran."""
    folder = shutil.copytree(FORMER, tmp_path / "run")
    assert run_command(["cost", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "an unknown number of vCPUs, and no instance type compares with that" in told
    assert "next: name the type that it was measured on: --measured-on TYPE" in told
    named = ["--instance", "c7i.large", "--measured-on", "c7i.large"]
    assert run_command(["cost", str(folder), *named]) == 0
    (found,) = read_document(folder, "cost", CostReport).costs
    (trial,) = (one for one in read_run(folder).trials if one.trial.trial_id == found.trial_id)
    assert found.inferences_per_s.value == trial.throughput_inferences_per_s
    assert found.usd_per_million_inferences.value == pytest.approx(
        0.08925 * 1e6 / 3600 / trial.throughput_inferences_per_s
    )


@pytest.mark.parametrize(
    ("vendor", "product", "instance"),
    [
        ("Amazon EC2", "g5.xlarge", "g5.xlarge"),
        ("Google", "Google Compute Engine", ""),
        ("Microsoft Corporation", "Virtual Machine", ""),
    ],
)
def test_the_clouds_type_is_read_off_the_firmware(tmp_path, vendor, product, instance):
    (tmp_path / "sys_vendor").write_text(f"{vendor}\n")
    (tmp_path / "product_name").write_text(f"{product}\n")
    assert cloud_instance(tmp_path) == instance
    assert cloud_instance(tmp_path / "nowhere") == ""


def test_the_cost_clause_of_a_load_without_a_study_is_exit_2(tmp_path, capsys):
    payloads = tmp_path / "rows.npz"
    payloads.write_bytes(b"")
    command = ["load", "--url", "http://127.0.0.1:9", "--model", "m", "--payloads", str(payloads)]
    assert run_command([*command, "--slo", "cost < 0.2/1M"]) == 2
    told = capsys.readouterr().err
    assert "no machine is named to price it on" in told
    assert "write cost: {instance: g5.xlarge} in the study" in told


def test_a_study_that_cannot_be_priced_is_exit_2_before_anything_starts(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    study = Path(__file__).parents[2] / "studies" / "reference.yaml"
    assert run_command(["sweep", str(study), "--slo", "p95 < 50 ms, cost < 0.2/1M"]) == 2
    assert "no machine is named to price it on" in capsys.readouterr().err
    named = tmp_path / "named.yaml"
    named.write_text(f"{study.read_text()}\ncost: {{instance: c7i.lrge}}\n")
    assert run_command(["run", str(named)]) == 2
    assert "did you mean c7i.large" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["named.yaml"]
