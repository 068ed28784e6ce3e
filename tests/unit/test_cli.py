"""The command line's own part: what it prints, refuses and exits with."""

import json
import re
from pathlib import Path

import pytest
import yaml

import harness
from harness.cli.commands import MODULES, imported
from harness.cli.main import run_command
from harness.cli.options import cpu_list, parse_cpus
from harness.cli.run import override, quick_study
from harness.cli.serve import parse_ports
from harness.cli.session import resume_command
from harness.cli.traffic_options import TrafficOptions
from harness.errors import EXIT_OK, HarnessError, ObjectiveError, StudyError, UsageError
from harness.flow.manifest import command_line
from harness.report.tables.provenance import STUDY_FILE, load_command
from harness.study.document import variant_names
from harness.study.file import load_study, parse_study
from harness.system.storage import bundled
from harness.types import (
    ArrivalKind,
    LoadMode,
    ServingConfig,
    ShapeKind,
    Trial,
    WireProtocol,
    Workload,
)
from tests.lm_tasks import write_tasks
from tests.local_study import write_local_study
from tests.samples import sample_study


@pytest.fixture
def reference():
    return load_study(bundled("studies/reference.yaml"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "no-such-file.yaml"],
        ["run"],
        ["load", "no-such-file.yaml", "--variant", "x"],
        ["demo", "--no-such-option"],
        ["conjure"],
    ],
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    assert run_command(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fewshot-as-multiturn", "--tasks", "x"], "--fewshot-as-multiturn is of conversations"),
        (["--apply-chat-template"], "--apply-chat-template is of lm-eval's tasks"),
        (["--tasks", "TASK", "--apply-chat-template"], "have no chat template"),
        (["--generate", "chat"], "--generate are only used with --url"),
        (["--limit", "5", "--no-cache"], "--limit and --no-cache say something of --tasks"),
        (["--num-fewshot", "0"], "--num-fewshot says something of --tasks"),
        (["--include-path", "tests"], "--include-path says something of --tasks"),
    ],
)
def test_options_of_conversations_that_say_nothing_are_refused(options, said, tmp_path, capsys):
    study, task = (
        str(bundled("studies/reference.yaml")),
        str(write_tasks(tmp_path) / "local_gen.yaml"),
    )
    asked = [task if one == "TASK" else one for one in options]
    assert run_command(["evaluate", study, *asked]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_wrong_study_is_exit_2_with_its_problems_on_standard_error(tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nfamilies: []\nspeed: 3\n")
    assert run_command(["run", str(path)]) == 2
    printed = capsys.readouterr()
    assert "speed: unknown key" in printed.err
    assert "families" in printed.err
    assert printed.out == ""


def test_plans_are_refused_where_the_embedded_server_would_serve_them(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    study = str(bundled("studies") / "reference-gpu.yaml")
    for command in (
        ["run", study],
        ["evaluate", study],
        ["serve", study],
        *(["load", study, "--variant", "topics-student-fp16-trt", "--concurrency", "1"],),
    ):
        assert run_command(command) == 2
        told = capsys.readouterr().err
        assert "the embedded server has no TensorRT: it cannot serve topics-student-fp16" in told
        assert "--url" in told
    assert run_command(["profile", study, "--variant", "topics-student-fp16-trt"]) == 2
    assert "--variant topics-student-fp16" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_plans_are_not_begun_where_tensorrt_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    assert run_command(["export", str(bundled("studies") / "reference-gpu.yaml")]) == 5
    assert "docker compose --profile gpu run --rm export-gpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_exit_2_with_the_next_step(tmp_path, capsys):
    assert run_command(["report", str(tmp_path)]) == 2
    assert "next:" in capsys.readouterr().err


def test_resume_without_a_run_is_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(["demo", "--resume"]) == 2
    assert "start one without --resume" in capsys.readouterr().err


def test_the_schema_is_json_on_standard_output(capsys):
    assert run_command(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == "Study"
    assert "families" in schema["required"]


def test_doctor_names_every_part(capsys):
    run_command(["doctor", "--json"])
    subjects = {finding["subject"] for finding in json.loads(capsys.readouterr().out)}
    assert {"python", "machine", "GPU", "disk", "embedded Triton", "extra [export]"} <= subjects
    assert {"pinning", "other work"} <= subjects


def test_an_objective_on_the_command_line_replaces_every_family_s(reference):
    changed = override(reference, "p99 < 20 ms", "grid")
    assert {changed.objective_of(family).text for family in changed.families} == {"p99 < 20 ms"}
    assert changed.search == "grid"


def test_an_objective_on_the_command_line_must_fit_every_task(reference):
    with pytest.raises(StudyError, match="asks for accuracy"):
        override(reference, "accuracy >= 0.5", None)
    with pytest.raises(ObjectiveError):
        override(reference, "p95 << 3", None)


def test_the_demo_has_a_family_that_writes_from_models_that_are_trained_anyway(reference):
    _, prose, writing = reference.families
    assert writing.task.kind == "generation"
    trained = {model.checkpoint for model in prose.models}
    assert {model.checkpoint for model in writing.models} <= trained
    named = {constraint.metric for constraint in reference.objective_of(writing).constraints}
    assert {"goodput", "perplexity"} < named


def test_the_quick_demo_keeps_the_models_and_measures_less(reference):
    quick = quick_study(reference)
    assert quick.families[0].models == reference.families[0].models
    assert quick.traffic.duration_s < reference.traffic.duration_s
    assert quick.traffic.client_batch_sizes == reference.traffic.client_batch_sizes
    for before, after in zip(reference.families, quick.families, strict=True):
        usual, traffic = reference.traffic_of(before), quick.traffic_of(after)
        assert traffic.duration_s < usual.duration_s
        assert traffic.warmup_s < usual.warmup_s
        for key in ("protocols", "client_batch_sizes", "concurrencies", "saturation_shares"):
            assert len(getattr(traffic, key)) <= len(getattr(usual, key))
        assert max(traffic.concurrencies) <= max(usual.concurrencies)
        assert quick.serving_of(after).instance_counts == [1]
    assert quick.families[1].traffic.saturation_shares == [0.6]
    assert quick.traffic.saturation_shares == [0.4, 0.8]


@pytest.mark.parametrize(
    ("usable", "state", "said"),
    [
        ({0, 1}, "ok", "--cpus-server 0 --cpus-generator 1"),
        (set(range(8)), "ok", "--cpus-server 0-5 --cpus-generator 6-7"),
        ({3}, "note", "--url"),
    ],
)
def test_doctor_says_what_pinning_is_possible(usable, state, said, monkeypatch, capsys):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: usable)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    run_command(["doctor", "--json"])
    findings = {one["subject"]: one for one in json.loads(capsys.readouterr().out)}
    assert findings["pinning"]["state"] == state
    assert said in findings["pinning"]["mend"]


@pytest.mark.parametrize(("average", "state"), [(0.1, "ok"), (3.0, "note")])
def test_doctor_warns_of_other_work(average, state, monkeypatch, capsys):
    monkeypatch.setattr("os.getloadavg", lambda: (average, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    run_command(["doctor", "--json"])
    findings = {one["subject"]: one for one in json.loads(capsys.readouterr().out)}
    assert findings["other work"]["state"] == state


def traffic(**given):
    return TrafficOptions(**given).workload(WireProtocol.HTTP, default_seed=0)


def test_traffic_is_a_closed_loop_unless_something_falls_due():
    closed = traffic(concurrency=7)
    assert (closed.load_mode, closed.concurrency, closed.min_duration_s) == (
        LoadMode.CLOSED, 7, None,
    )  # fmt: skip
    opened = traffic(rate=50.0, shape="ramp:0.2..1/60s", batch_mix="1:3,8:1")
    assert (opened.load_mode, opened.rate_per_s) == (LoadMode.OPEN, 50.0)
    assert opened.arrivals.kind is ArrivalKind.POISSON
    assert opened.arrivals.shape.kind is ShapeKind.RAMP
    assert (opened.client_batch_size, opened.concurrency) == (8, 512)
    assert traffic(until_decided=True).min_duration_s == 0.5
    assert traffic(until_decided=True, duration_s=0.2).min_duration_s == 0.2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": 5.0, "concurrency": 2}, "contradict each other"),
        ({"client_batch_size": 2, "batch_mix": "1:1"}, "contradict each other"),
        ({"max_in_flight": 2}, "applies only to an open loop"),
        ({"max_in_flight": 0, "rate": 5.0}, "at least one"),
        ({"arrivals": "constant"}, "without a rate"),
        ({"rate": 5.0, "shape": "sine:0..1/9s", "until_decided": True}, "a load that changes"),
        ({"rate": float("inf")}, "must be above 0"),
    ],
)
def test_traffic_that_cannot_be(given, said):
    with pytest.raises(UsageError, match=said):
        traffic(**given)


@pytest.mark.parametrize(
    "called",
    [["--header", "Authorization: Bearer sesame"], ["--header=Authorization: Bearer sesame"]],
)
def test_the_manifest_s_command_keeps_no_secret(called):
    told = command_line(["load", *called, "--json"])
    assert told == "harness load --header 'Authorization: ...' --json"


@pytest.mark.parametrize("text", ["0", "0-3", "0-1,3", "1,3,5-7"])
def test_cpu_lists_are_written_as_they_are_read(text, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert cpu_list(parse_cpus(text)) == text


def test_cpu_lists():
    assert parse_cpus(None) is None
    assert parse_cpus("0") == (0,)
    for wrong in ("", "a", "0-", "9999", "1-0"):
        with pytest.raises(UsageError):
            parse_cpus(wrong)


def test_ports():
    assert parse_ports("8000,8001,8002") == (8000, 8001, 8002)
    for wrong in ("8000", "a,b,c", "1,2,3,4"):
        with pytest.raises(UsageError):
            parse_ports(wrong)


def test_a_study_survives_the_way_through_its_json(reference):
    for study in (reference, parse_study(sample_study(), source="study")):
        assert parse_study(study.model_dump(mode="json"), source="again") == study


@pytest.mark.parametrize(
    "called",
    [
        "run a.yaml --repository r",
        "run a.yaml --out old --repository r",
        "run a.yaml --out=old --repository r --resume",
    ],
)
def test_the_way_to_go_on_is_the_command_as_it_was_called(called):
    wanted = "harness run a.yaml --repository r --out 'my runs/x' --resume"
    assert resume_command(called.split(), Path("my runs/x")) == wanted


def test_the_help_shows_defaults_that_are_words_of_its_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run_command(["load", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for said in ("in flight; default: 4.", "dropped; default: 512.", "per request; default: 1."):
        assert said in text


def test_the_release_is_printed(capsys):
    assert run_command(["--version"]) == EXIT_OK
    assert capsys.readouterr().out == f"harness {harness.__version__}\n"


@pytest.fixture
def planned(monkeypatch):
    """What `harness load` would have measured, by its arguments."""

    def plan_of(arguments):
        plans = []

        def measure(plan, *_):
            plans.append(plan)
            raise HarnessError("enough")

        monkeypatch.setattr("harness.cli.load._measure", measure)
        run_command(["load", *arguments])
        (plan,) = plans
        return plan

    return plan_of


def test_the_command_that_measures_a_trial_again_asks_for_its_configuration(planned):
    serving = ServingConfig(8, 2000, 2, intra_op_threads=4, response_cache=True)
    workload = Workload(WireProtocol.HTTP, 4, 3, 7.0, 1.5, 20, cached_answers=True)
    study = str(bundled("studies") / "reference.yaml")
    words = load_command(Trial("topics-student-fp32", "topics", serving, workload)).split()
    plan = planned([study if word == STUDY_FILE else word for word in words[2:]])
    assert (plan.name, plan.serving, plan.workload) == ("topics-student-fp32", serving, workload)


def test_a_variant_is_loaded_by_hand_on_the_instances_that_its_study_serves_it_on(planned):
    study = str(bundled("studies") / "reference-gpu.yaml")
    assert planned([study, "--variant", "topics-student-fp32"]).serving.instance_kind == "gpu"


@pytest.mark.parametrize("option", [("--prometheus", "http://127.0.0.1:9"), ("--pause", "0")])
def test_a_rollout_s_options_on_own_counters_need_some(option, tmp_path, capsys):
    assert run_command(["rollout", str(tmp_path), *option]) == 2
    assert f"{option[0]} says something of --own" in capsys.readouterr().err


def test_a_load_says_what_it_lacks_and_how_a_model_that_writes_is_asked(capsys):
    there = ["load", "--url", "http://127.0.0.1:9", "--model", "m"]
    for command, said in (
        (there, "nothing to send: give --payloads, or --generate for a model that writes"),
        (there[:3], "or --generate in place of --payloads for a model that writes"),
        (["load"], "nothing to measure: give a study file and --variant"),
    ):
        assert run_command(command) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert said in told
        assert "--generate" in told.partition("next: ")[2]
    run_command(["load", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "or --generate in place of --payloads for a model that writes" in shown


def test_a_variant_that_is_not_named_is_answered_with_those_there_are(capsys, tmp_path):
    study = write_local_study(tmp_path)
    document = yaml.safe_load(study.read_text())
    document["families"][0]["ensemble"] = True
    study.write_text(yaml.safe_dump(document))
    alone = "own-teacher-fp32, own-student-fp32"
    everything = f"{alone}, own-teacher-fp32-ensemble, own-student-fp32-ensemble"
    for command, names in (("load", everything), ("profile", alone)):
        assert run_command([command, str(study)]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "--variant is missing: which of the study's variants?" in told
        assert told.endswith(f"next: name one: {names}")
        assert run_command([command, str(study), "--variant", "none"]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert told.endswith(f"its variants are: {everything}")


@pytest.mark.parametrize("name", MODULES)
def test_the_help_of_an_option_says_what_it_is_when_read_alone(name):
    fragments = ("Of ", "Its ", "Between ", "From the ", "A header ", "Folder;", "Draws ")
    texts = {one.name: getattr(one, "help", None) or "" for one in imported(name).params}
    assert not {one: text for one, text in texts.items() if text.startswith(fragments)}
    assert not [one for one, text in texts.items() if "given again" in text]


@pytest.mark.parametrize("page", ["openai.md", "generation.md"])
def test_the_models_of_a_documented_request_are_those_of_its_study(page):
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    known = variant_names(load_study(bundled("studies/reference-generation.yaml")))
    asked = set(re.findall(r"/v2/models/([\w-]+)/|\"model\": \"([\w-]+)\"", text))
    named = {one for pair in asked for one in pair if one}
    assert named
    assert named <= set(known)
