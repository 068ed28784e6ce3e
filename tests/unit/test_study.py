"""The study file: what it refuses, and that it says everything at once."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StudyError
from harness.study import Study, plans_of, speculative_name, study_schema, variant_name, variants_of
from harness.study.file import load_study, parse_study
from harness.study.objective import parse_objective
from harness.system.storage import bundled
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    LoadShape,
    Precision,
    Role,
    ShapeKind,
)
from tests.local_study import write_local_study
from tests.samples import sample_study

ROOT = Path(__file__).parents[2]


def parsed(document):
    """The study, or its problems; any other exception is a bug."""
    try:
        return parse_study(document, source="study")
    except StudyError as error:
        return error.problems


def problems_of(document):
    with pytest.raises(StudyError) as caught:
        parse_study(document, source="study")
    return "\n".join(caught.value.problems)


def test_the_reference_study_loads():
    study = load_study(ROOT / "studies" / "reference.yaml")
    assert [family.task.kind for family in study.families] == [
        "sequence-classification",
        "causal-lm",
        "generation",
    ]
    assert study.families[0].teacher.role is Role.TEACHER


def test_every_problem_is_reported_at_once_with_its_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: Bad Name\n"
        "objectiv: p95 < 3\n"
        'objective: "p95 < 50ms, acuracy >= 90% of teacher"\n'
        "families:\n"
        "  - name: a\n"
        "    task: {kind: sequence-classification, data: {source: csv, path: nope.csv}}\n"
        "    models:\n"
        "      - {name: t, role: teachr, checkpoint: ./nope}\n"
        "traffic: {client_batch_sizes: [0]}\n"
    )
    with pytest.raises(StudyError) as caught:
        load_study(path)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    for expected in (
        "line 1: name:",
        "line 2: objectiv: unknown key",
        "line 3: objective:",
        "line 6: families[0].task.data.path: no such data file",
        "line 8: families[0].models[0].role:",
        "line 8: families[0].models[0].checkpoint: no checkpoint there",
        "line 9: traffic.client_batch_sizes[0]:",
    ):
        assert expected in text
    caret = text.splitlines()[
        text.splitlines().index(next(line for line in text.splitlines() if "acuracy >=" in line))
        + 1
    ]
    assert "^" in caret


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("objective:", "objectve:", "objectve: unknown key: did you mean objective?"),
        ("task:", "taks:", "families[0].taks: unknown key: did you mean task?"),
        ("label:", "lable:", "families[0].task.lable: unknown key: did you mean label?"),
        ("path:", "pth:", "families[0].task.data.pth: unknown key: did you mean path?"),
        ("role:", "rolle:", "families[0].models[0].rolle: unknown key: did you mean role?"),
        ("concurrencies:", "concurency:", "unknown key: did you mean concurrencies?"),
        ("role: student", "role: studnet", "'studnet' is not known, only 'teacher', "),
        ("- http", "- htp", "traffic.protocols[0]: 'htp' is not known, only 'http' or 'grpc': did"),
        ("sequence-classification", "sequence-clasification", "did you mean sequence-classif"),
        ("models:", "modells:", "families[0].models: is missing"),
        ("duration_s: 0.5", "duration_s: 1e3", "traffic.duration_s: YAML reads '1e3' as a text"),
        ("label: kind", "label: on", "task.label: YAML reads true or false"),
        ("label: kind", "label: 7", "task.label: YAML reads the number 7 where a text should"),
        ("  task:", "\ttask:", ": is not YAML: "),
    ],
)
def test_a_slip_of_the_pen_is_told_with_what_was_meant(tmp_path, right, wrong, said):
    path = write_local_study(tmp_path)
    whole = path.read_text()
    assert right in whole
    path.write_text(whole.replace(right, wrong, 1))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "objective: p95 < 1 s\nobjective: p95 < 9 s\n",
            "objective: is there twice, first in line",
        ),
        ("serving: {a: 1, queue_delays_us: [0]}\nseed: 1\nseed: 2\n", "unknown key"),
        ("serving: {a: 1, queue_delays_us: [0]}\nseed: 1\nseed: 2\n", "seed: is there twice"),
        ("weights: {accuracy: 1, accuracy: 2}\n", "weights.accuracy: is there twice"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(tmp_path, more, said):
    path = write_local_study(tmp_path)
    path.write_text(path.read_text() + more)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert said in "\n".join(caught.value.problems)


def test_a_section_that_holds_itself_is_refused(tmp_path):
    path = write_local_study(tmp_path)
    path.write_text(path.read_text() + "weights: &all {accuracy: 1, others: [*all]}\n")
    with pytest.raises(StudyError, match="a section holds itself"):
        load_study(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"traffic": {"client_batch_sizes": [1, 32]}}, "exceed the largest of max_batch_sizes"),
        ({"serving": {"max_batch_sizes": [4]}}, "or set traffic.client_batch_sizes (now [1, "),
        ({"objective": "perplexity <= 1.1x teacher"}, "asks for perplexity"),
        ({"traffic": {"duration_s": "5"}}, "duration_s"),
        ({"serving": {"instance_count": [1]}}, "unknown key"),
        ({"seed": -1}, "seed"),
        ({"search": "annealing"}, "search"),
        ({"traffic": {"load": "open"}}, "load: open needs rates_per_s"),
        ({"traffic": {"load": "open", "rates_per_s": [0]}}, "greater than 0"),
        ({"traffic": {"load": "open", "rates_per_s": [5], "arrivals": "weibull"}}, "gamma:CV"),
        ({"traffic": {"load": "open", "arrivals": "trace:no.csv"}}, "no such trace file"),
        ({"traffic": {"load": "open", "rates_per_s": [5], "shape": "ramp:1"}}, "LOW..HIGH"),
        ({"traffic": {"rates_per_s": [5], "shape": "ramp:0..1/9s"}}, "rates_per_s and shape: only"),
        ({"traffic": {"batch_mix": {8: 1}, "client_batch_sizes": [4]}}, "leave client_batch_sizes"),
        ({"traffic": {"batch_mix": {8: 0}}}, "greater than 0"),
        ({"traffic": {"batch_mix": {32: 1}}}, "or set traffic.batch_mix (now [32])"),
        ({"traffic": {"workers": 65}}, "workers"),
        ({"objective": "exact_match >= 90% of teacher"}, "asks for exact_match"),
        ({"traffic": {"generator_processes": 2}}, "unknown key"),
        ({"serving": {"accelerators": ["cuda"]}}, "write instance_kind: gpu"),
        ({"serving": {"accelerators": ["openvino"]}}, "'none', 'cuda' or 'tensorrt'"),
    ],
)
def test_contradictions_and_wrong_types_are_refused(changes, said):
    assert said in problems_of(sample_study(**changes))


def test_a_trace_has_its_own_rate_and_shape(tmp_path):
    (tmp_path / "monday.csv").write_text("timestamp\n0.0\n0.5\n")
    traffic = {"load": "open", "arrivals": "trace:monday.csv"}
    study = parse_study(sample_study(traffic=traffic), source="study", base=tmp_path)
    assert study.traffic.arrivals.trace == tmp_path / "monday.csv"
    with pytest.raises(StudyError, match="leave rates_per_s out"):
        parse_study(
            sample_study(traffic={**traffic, "rates_per_s": [5]}), source="study", base=tmp_path
        )


def test_a_checked_study_reads_back_the_same():
    traffic = {
        "load": "open",
        "rates_per_s": [5],
        "batch_mix": {8: 0.3, 1: 0.7},
        "arrivals": "gamma:2.0",
        "shape": "sine:0.5..1.5/1min",
    }
    study = parse_study(sample_study(traffic=traffic), source="study")
    written = study.model_dump(mode="json")
    assert parse_study(written, source="again") == study
    assert written["traffic"]["arrivals"] == "gamma:2"
    assert written["traffic"]["shape"] == "sine:0.5..1.5/60s"
    assert written["traffic"]["batch_mix"] == {"1": 0.7, "8": 0.3}


def test_what_a_study_writes_of_a_load_is_a_value_once_it_is_read():
    traffic = {
        "load": "open",
        "rates_per_s": [5],
        "batch_mix": {8: 0.3, 1: 0.7},
        "arrivals": "gamma:2.0",
        "shape": "sine:0.5..1.5/1min",
    }
    read = parse_study(sample_study(traffic=traffic), source="study").traffic
    shape = LoadShape(ShapeKind.SINE, 0.5, 1.5, 60.0)
    assert read.batch_mix == ((1, 0.7), (8, 0.3))
    assert read.arrival_process == ArrivalProcess(ArrivalKind.GAMMA, 2.0, shape=shape)


def test_the_schema_shows_texts_and_mappings():
    traffic = study_schema()["$defs"]["Traffic"]["properties"]
    assert (traffic["arrivals"]["type"], traffic["arrivals"]["default"]) == ("string", "poisson")
    assert (traffic["shape"]["type"], traffic["shape"]["default"]) == ("string", "flat")
    assert (traffic["batch_mix"]["type"], traffic["batch_mix"]["default"]) == ("object", {})


def test_a_family_needs_exactly_one_teacher():
    document = sample_study()
    document["families"][0]["models"][0]["role"] = "student"
    assert "exactly one teacher" in problems_of(document)


def test_two_variants_may_not_share_a_folder():
    document = sample_study()
    document["families"][0]["models"].append(
        {"name": "teacher", "role": "student", "checkpoint": "reference:topics-student"}
    )
    assert "two variants are named 'teacher-fp32'" in problems_of(document)


def test_two_models_may_not_share_a_name_though_their_variants_differ():
    document = sample_study()
    document["families"][0]["models"].append(
        {
            "name": "teacher",
            "role": "student",
            "checkpoint": "reference:topics-student",
            "precisions": ["int8"],
        }
    )
    document["families"][0]["models"][0]["precisions"] = ["fp32"]
    assert "two models are named 'teacher'" in problems_of(document)


def test_two_families_may_not_share_a_name():
    document = sample_study()
    (first, *_) = document["families"]
    models = [{**first["models"][0], "name": "another"}]
    document["families"].append({**first, "models": models})
    assert f"two families are named '{first['name']}'" in problems_of(document)


def test_plans_have_names_of_their_own_and_need_a_gpu():
    document = sample_study(serving={"instance_kind": "gpu"})
    document["families"][0]["models"][0]["formats"] = ["onnx", "tensorrt"]
    (family, *_) = parse_study(document, source="study").families
    assert variants_of(family.teacher)[0] == "teacher-fp32"
    assert "teacher-fp32-trt" in variants_of(family.teacher)
    assert "teacher-fp32-trt" in plans_of(family)
    document["serving"] = {}
    assert "teacher asks for formats: tensorrt, and a plan runs on a GPU" in problems_of(document)


def test_the_longest_bucket_is_the_maximum_length():
    document = sample_study()
    document["families"][0]["task"] |= {"max_length": 64, "length_buckets": [16, 32]}
    assert "length_buckets" in problems_of(document)


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "a: [1, 2\n", "name: !!python/object:os.system x"]
)
def test_what_is_no_study_is_refused(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(StudyError):
        load_study(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_value_in_any_place_ends_in_a_study_error(value):
    for key in ("families", "traffic", "objective"):
        study_or_problems = parsed(sample_study(**{key: value}))
        assert study_or_problems


def test_an_unknown_variant_is_answered_with_the_known_ones():
    study = parse_study(sample_study(), source="study")
    assert study.family_of("teacher-fp32").name == "topics"
    with pytest.raises(StudyError) as caught:
        study.family_of("teacher-fp64")
    assert "teacher-fp32" in caught.value.next_step


def test_the_schema_accepts_the_shipped_study_s_keys():
    schema = study_schema()
    document = yaml.safe_load((ROOT / "studies" / "reference.yaml").read_text())
    assert set(document) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_variant_names_are_model_and_precision():
    study = parse_study(sample_study(), source="study")
    assert variant_name(study.families[0].teacher, Precision.INT8) == "teacher-int8"


def test_the_teacher_counts_where_the_study_says_so_or_where_it_is_alone():
    def counts(of_study, of_family, *roles):
        document = sample_study(teacher_counts=of_study)
        (family, *_) = document["families"]
        models = [
            {"name": role, "role": role, "checkpoint": family["models"][0]["checkpoint"]}
            for role in roles
        ]
        document["families"] = [{**family, "models": models, "teacher_counts": of_family}]
        study = parse_study(document, source="study")
        return study.teacher_counts_in(study.families[0])

    pair = ("teacher", "student")
    assert counts(False, None, *pair) is False
    assert counts(True, None, *pair) is True
    assert counts(True, False, *pair) is False
    assert counts(False, True, *pair) is True
    assert counts(False, None, "teacher", "control") is True


@pytest.mark.parametrize("key", ["ensemble", "pipeline"])
def test_a_family_s_ensemble_is_asked_for_by_its_key_or_by_the_former_one(key):
    document = yaml.safe_load((ROOT / "studies" / "sst2-distilbert.yaml").read_text())
    family = document["families"][0]
    family.pop("ensemble", None)
    assert not parse_study(document, source="study").families[0].ensemble
    study = parse_study(document | {"families": [family | {key: True}]}, source="study")
    assert study.families[0].ensemble
    dumped = study.model_dump(mode="json")
    assert dumped["families"][0]["ensemble"] is True
    assert parse_study(dumped, source="study") == study


def test_a_folder_is_not_taken_for_a_hub_name(tmp_path):
    (tmp_path / "models" / "teacher").mkdir(parents=True)
    (tmp_path / "models" / "teacher" / "config.json").write_text("{}")
    document = yaml.safe_load((ROOT / "studies" / "local-checkpoint.yaml").read_text())
    document["families"][0]["models"][0]["checkpoint"] = "models/teacher"
    with pytest.raises(StudyError, match=r"write \./models/teacher"):
        parse_study(document, source="study", base=tmp_path)


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ({"accuracy": 0.0, "p95": 0}, "sum to nothing"),
        ({"accuracy": -1.0}, "0 or more"),
        ({"acuracy": 1.0}, "did you mean accuracy?"),
        ({}, "sum to nothing"),
    ],
)
def test_weights_of_a_study_mean_something(weights, problem):
    document = {**load_study(bundled("studies/reference.yaml")).model_dump(mode="json")}
    with pytest.raises(StudyError, match=re.escape(problem)):
        parse_study({**document, "weights": weights}, source="study")
    study = parse_study({**document, "weights": {"accuracy": 2, "size": 0.5}}, source="study")
    assert study.weights == {"accuracy": 2.0, "size": 0.5}
    assert parse_study(document, source="study").weights is None


def speculating(**changes):
    document = yaml.safe_load((ROOT / "studies" / "reference-generation.yaml").read_text())
    document["families"][0] |= changes
    return document


def test_a_study_names_its_teacher_s_draft():
    study = parse_study(speculating(), source="study")
    (family,) = study.families
    assert (family.speculation.draft, family.speculation.tokens) == ("writer-student-fp32", 3)
    assert speculative_name(family) == "writer-teacher-fp32-speculative"
    # One variant alone is served without it.
    assert study.alone("writer-student-int8").families[0].speculation is None


def test_a_teacher_with_its_draft_is_a_variant_made_of_both_alone():
    study = parse_study(speculating(), source="study")
    (family,) = study.families
    name = speculative_name(family)
    assert study.family_of(name) is family
    (alone,) = study.alone(name).families
    made = [variant for model in alone.models for variant in variants_of(model)]
    assert made == ["writer-teacher-fp32", "writer-student-fp32"]
    assert alone.speculation == family.speculation
    with pytest.raises(StudyError, match="no variant 'nope'") as told:
        study.family_of("nope")
    assert name in told.value.next_step


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ("writer-teacher-fp32", "no variant 'writer-teacher-fp32' can be the draft of"),
        ("writer-student", "there are writer-student-fp32, writer-student-int8"),
    ],
)
def test_a_draft_is_another_variant_of_the_family(draft, said):
    assert said in problems_of(speculating(speculation={"draft": draft}))


def test_speculation_is_refused_where_it_would_change_texts_or_nothing_is_written():
    document = speculating()
    document["families"][0]["models"][0]["precisions"] = ["int8", "fp32"]
    assert "put fp32 first among its precisions" in problems_of(document)
    prose = yaml.safe_load((ROOT / "studies" / "reference.yaml").read_text())
    prose["families"][1]["speculation"] = {"draft": "prose-student-fp32"}
    assert "speculation is for models that write" in problems_of(prose)
    many = speculating(speculation={"draft": "writer-student-fp32", "tokens": 17})
    assert "less than or equal to 16" in problems_of(many)


@pytest.mark.parametrize(
    "clause",
    ["ttft p95 < 50 ms", "itl p99 < 50 ms", "tpot mean < 9 ms", "output_tokens_per_s >= 5/s",
     "output_token_cost < 2/1M"],
)  # fmt: skip
def test_tokens_are_asked_of_models_that_write_alone(clause):
    name = clause.replace(" p", "_p").replace(" mean", "_mean").split()[0]
    document = sample_study(objective=f"p95 < 50 ms, goodput >= 5/s, {clause}")
    document["cost"] = {"instance": "g5.xlarge"}
    told = problems_of(document)
    assert f"the objective asks for {name}, which only models that write have" in told
    assert "bound the whole answer, as in p95 < 50 ms" in told


def test_a_goodput_by_the_whole_answer_is_of_any_model():
    assert isinstance(parsed(sample_study(objective="p95 < 50 ms, goodput >= 5/s")), Study)


def test_an_objective_on_tokens_is_held_against_every_family_or_the_one_of_a_variant():
    study = load_study(ROOT / "studies" / "reference.yaml")
    asked = parse_objective("ttft p95 < 90 ms")
    with pytest.raises(StudyError, match="2 problems") as caught:
        study.asked_otherwise(objective=asked)
    assert [told.split(":")[0] for told in caught.value.problems] == [
        "family topics",
        "family prose",
    ]
    topics, prose, writing = study.families
    changed = study.asked_otherwise(objective=asked, only="writer-student-fp32")
    assert [changed.objective_of(family) for family in changed.families] == [
        study.objective_of(topics),
        study.objective_of(prose),
        asked,
    ]
    assert writing.objective != asked
    with pytest.raises(StudyError, match="family topics: the objective asks for ttft_p95"):
        study.asked_otherwise(objective=asked, only="topics-student-fp32")
    with pytest.raises(StudyError, match="no variant 'none'"):
        study.asked_otherwise(objective=asked, only="none")
