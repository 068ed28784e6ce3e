"""A student as draft and as first stage: which loads are driven, and what a cascade would keep."""

import dataclasses

import numpy as np
import pytest
import yaml

from harness.errors import CheckpointError, ServerError
from harness.export.generation.speculative import make_speculative
from harness.flow.preparation import PreparedFamily
from harness.flow.roles import _as_draft, _cascade, _same_texts, role_trials
from harness.study.file import parse_study
from harness.system.storage import bundled
from harness.tasks.generation.outcomes import WrittenOutcomes
from harness.types import ROLES, LoadMode, ModelFormat, ModelVariant, Precision, Role
from harness.types.generation import GeneratorSettings

SETTINGS = GeneratorSettings(2, 1, 8, 320, 96, (0,), None)


def exported(repository, name, role, *, settings=SETTINGS, tokenizer="tokens", graph="graph"):
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "generation.json").write_text(settings.to_json())
    (folder / "1" / "tokenizer.json").write_text(tokenizer)
    (folder / "1" / "model.onnx").write_text(graph)
    (folder / "tokenizer").mkdir()
    return ModelVariant(
        name, "continuations", role, "generation", ModelFormat.ONNX, Precision.FP32,
        "checkpoint", f"digest of {name}", folder, (), (), 10, 5,
    )  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    teacher = exported(tmp_path, "writer-teacher-fp32", Role.TEACHER, graph="teacher's")
    return teacher, exported(tmp_path, "writer-student-fp32", Role.STUDENT, graph="draft's")


def made(pair, tokens=3):
    teacher, draft = pair
    return make_speculative("pair", teacher, draft, tokens=tokens, repository=teacher.path.parent)


def test_both_decoders_lie_in_one_folder_that_is_made_once(pair):
    variant = made(pair)
    version = variant.path / "1"
    assert (version / "model.onnx").read_text() == "teacher's"
    assert (version / "draft" / "model.onnx").read_text() == "draft's"
    assert (version / "draft" / "speculation.json").read_text() == (
        '{"draft": "writer-student-fp32", "tokens": 3}'
    )
    assert (variant.role, variant.drafted_by) == (Role.TEACHER, "writer-student-fp32")
    assert (variant.parameters, variant.size_bytes) == (20, 10)
    assert variant.is_composed
    before = (variant.path / "manifest.json").stat().st_mtime_ns
    assert made(pair) == variant
    assert (variant.path / "manifest.json").stat().st_mtime_ns == before
    assert made(pair, tokens=4).sha256 != variant.sha256
    (version / "draft" / "model.onnx").write_text("harmed")
    assert made(pair).sha256 == variant.sha256


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer": "others"}, "another tokenizer"),
        ({"settings": dataclasses.replace(SETTINGS, context=64)}, "a context of 64 tokens"),
    ],
)
def test_a_draft_with_other_tokens_or_another_context_is_refused(tmp_path, changes, said):
    teacher = exported(tmp_path, "teacher", Role.TEACHER)
    draft = exported(tmp_path, "draft", Role.STUDENT, **changes)
    with pytest.raises(CheckpointError, match=said):
        made((teacher, draft))


def test_the_models_take_turns_in_the_same_closed_loops(pair):
    study = parse_study(
        yaml.safe_load(bundled("studies/reference-generation.yaml").read_text()), source="study"
    )
    (family,) = study.families
    prepared = PreparedFamily(family, pair, {}, speculative=made(pair))
    trials = list(role_trials(study, prepared))
    assert [(one.repeat, one.variant, one.workload.concurrency) for one in trials] == [
        (number, name, in_flight)
        for number in (0, 1)
        for name in ("writer-teacher-fp32", "pair", "writer-student-fp32")
        for in_flight in (1, 8)
    ]
    assert {one.stage for one in trials} == {ROLES}
    assert len({one.trial_id for one in trials}) == len(trials)
    # None ends before its time, however early the objective is decided.
    assert all(one.workload.min_duration_s == one.workload.duration_s == 4 for one in trials)
    assert all(one.workload.load_mode is LoadMode.CLOSED for one in trials)
    assert not list(role_trials(study, dataclasses.replace(prepared, speculative=None)))


def outcomes(name, texts, rouge, lost=()):
    count = len(texts)
    nothing = np.zeros(count, np.int64)
    return WrittenOutcomes(
        variant=name, sha256="", unanswered=np.isin(np.arange(count), list(lost)),
        texts=("",) * count,
        tokens=tuple(np.array(one, np.int64) for one in texts), ended=np.ones(count, np.bool_),
        log_likelihood=np.zeros(count), reference_tokens=nothing, reference_bytes=nothing,
        rouge={"rouge_l": np.array(rouge)}, documents=None, vocabulary="v",
    )  # fmt: skip


def test_a_cascade_keeps_the_sure_texts_and_asks_the_teacher_for_the_others():
    """Half of the student's texts are the teacher's, and exactly those are probable to it."""
    own = [[1, 2] if row % 2 else [3, 4] for row in range(80)]
    teacher = outcomes("teacher", [[1, 2]] * 80, [0.5] * 80)
    student = outcomes("student", own, [0.5 if row % 2 else 0.1 for row in range(80)])
    sure = np.array([0.9 if row % 2 else 0.1 for row in range(80)])
    found, why = _cascade(teacher, student, sure, seed=1)
    assert (why, found.calibration_prompts, found.held_out_prompts) == ("", 40, 40)
    assert found.at.accuracy.value == 1.0
    assert found.rouge_kept == 1.0
    assert 0.1 < found.at.threshold <= 0.9
    assert 0.25 < found.at.routed.value < 0.75
    assert found.at.gained == found.at.routed.value


def test_prompts_without_an_answer_are_no_texts_that_are_the_same():
    """Of both models nothing: as many tokens, and no text."""
    teacher = outcomes("teacher", [[1, 2], [3], [], [4]], [0.5] * 4, lost=[2])
    own = outcomes("pair", [[1, 2], [5], [], []], [0.5] * 4, lost=[2, 3])
    assert _same_texts(own, teacher).tolist() == [True, False]
    many = [[1, 2]] * 40
    found, _ = _cascade(
        outcomes("teacher", many + [[]] * 40, [0.5] * 80, lost=range(40, 80)),
        outcomes("student", many + [[]] * 40, [0.5] * 80, lost=range(40, 80)),
        np.where(np.arange(80) < 40, 0.9, 0.0),
        seed=1,
    )
    assert (found.calibration_prompts, found.held_out_prompts) == (20, 20)


def test_texts_of_one_document_are_one_unit_of_a_drafts_intervals():
    draw = np.random.default_rng(2)
    pages = np.repeat(np.arange(8), 10)
    matches = [draw.random(12) < 0.2 + 0.1 * page for page in pages.tolist()]
    (alone, runs), (together, of_pages) = (
        _as_draft([np.array([True]), *matches], 2, 1, groups)
        for groups in (None, np.array([99, *pages]))
    )
    assert (together.value, of_pages.value) == (alone.value, runs.value)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert of_pages.high - of_pages.low > 2 * (runs.high - runs.low)
    share, of_runs = _as_draft(matches, 2, 1, np.zeros(80, np.int64))  # one document: no interval
    assert (share.low, share.high) == (0, 1)
    assert (of_runs.low, of_runs.high) == (1, 3)


def test_few_prompts_make_no_cascade():
    few = outcomes("model", [[1]] * 24, [0.5] * 24)
    found, why = _cascade(few, few, np.full(24, 0.9), seed=1)
    assert found is None
    assert "24 prompts are too few" in why


def test_a_text_s_first_token_comes_with_its_prompt_and_is_not_drafted():
    # Behind the first: right, right, wrong, right. With drafts of 2: three tokens, then one.
    match = np.array([False, True, True, False, True])
    acceptance, a_run = _as_draft([match, match], 2, seed=1)
    assert acceptance.value == 0.75
    assert a_run.value == 2.0
    with pytest.raises(ServerError, match="no text of two tokens"):
        _as_draft([np.array([True])], 2, seed=1)
