"""Written texts scored beside the teacher's, held against transformers itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import LINES, make_language_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.errors import DataError, ServerError
from harness.quality.collection import read_outcomes, write_outcomes
from harness.quality.losses import Slicing, compare_with_teacher, slice_losses
from harness.quality.scores import score
from harness.quality.speculation.acceptance import replay
from harness.quality.speculation.measure import draft_matches
from harness.quality.writing import collect_texts, stream_consistency
from harness.tasks.generation.family import GenerationFamily
from harness.tasks.generation.outcomes import STREAM_OUTPUTS, WrittenOutcomes
from harness.tasks.generation.rows import PromptDataset, TextGeneration
from harness.tasks.loading import encode, load_samples
from harness.tasks.registry import family_of
from harness.types import Role, TensorSpec
from harness.types import generation as names
from tests.bare_writer import BareWriter
from tests.samples import sample_variant
from tests.speculative_decoding import write_speculatively

NEW_TOKENS = 9
PROMPTS = [line[:cut] for line in LINES for cut in (6, 11, 17)]
REFERENCES = [line[cut : cut + 20] for line in LINES for cut in (6, 11, 17)]
TOLD = (*STREAM_OUTPUTS, TensorSpec(names.PROMPT_LOGPROBS, "FP32", (-1,)))


def _variant(name: str, role: Role = Role.STUDENT, **changes: Any) -> Any:
    return dataclasses.replace(
        sample_variant(name, role), task="generation", outputs=TOLD, **changes
    )


TEACHER = _variant("teacher-fp32", Role.TEACHER)
STUDENT = _variant("student-fp32")


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_model(tmp_path_factory.mktemp("t") / "m", architecture="llama", seed=1)


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path) -> Path:
    """The teacher with a little noise on its weights: much of its text is the teacher's."""
    folder = tmp_path_factory.mktemp("s") / "m"
    model = AutoModelForCausalLM.from_pretrained(teacher_folder)
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.004)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(teacher_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> BareWriter:
    return BareWriter(teacher_folder)


@pytest.fixture(scope="module")
def student(student_folder: Path) -> BareWriter:
    return BareWriter(student_folder)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextGeneration:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [
        {"prompt": prompt, "reference": reference, "line": str(number // 3)}
        for number, (prompt, reference) in enumerate(zip(PROMPTS, REFERENCES, strict=True))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return TextGeneration.model_validate(
        {
            "kind": "generation",
            "data": {"source": "jsonl", "path": path},
            "max_length": 64,
            "max_new_tokens": NEW_TOKENS,
            "document": "line",
        }
    )


@pytest.fixture(scope="module")
def dataset(task: TextGeneration, teacher_folder: Path) -> PromptDataset:
    found = encode(task, load_samples(task, seed=0, label_names=None), teacher_folder)
    assert isinstance(found, PromptDataset)
    return found


def _collected(variant: Any, dataset: PromptDataset, writer: BareWriter) -> WrittenOutcomes:
    return collect_texts(variant, dataset, writer, in_flight=3, progress=lambda step: None)


@pytest.fixture(scope="module")
def of_teacher(dataset: PromptDataset, teacher: BareWriter) -> WrittenOutcomes:
    return _collected(TEACHER, dataset, teacher)


@pytest.fixture(scope="module")
def of_student(dataset: PromptDataset, student: BareWriter) -> WrittenOutcomes:
    return _collected(STUDENT, dataset, student)


def _scores(outcomes: Any, dataset: PromptDataset, teacher: Any, variant: Any = STUDENT) -> Any:
    found = score(outcomes, dataset, variant=variant, teacher=teacher, seed=3)
    return {one.metric: one for one in found}


def test_every_prompt_is_asked_once_and_so_is_its_reference(
    dataset: PromptDataset, teacher_folder: Path
) -> None:
    writer = BareWriter(teacher_folder)
    _collected(TEACHER, dataset, writer)
    assert dataset.reference_ids is not None
    pairs = zip(dataset.prompts, dataset.reference_ids, strict=True)
    due = [*dataset.prompts, *((*prompt, *reference) for prompt, reference in pairs)]
    assert sorted(tokens for _, tokens in writer.asked) == sorted(due)


def test_texts_lie_at_their_prompts(
    of_teacher: WrittenOutcomes, dataset: PromptDataset, teacher: BareWriter
) -> None:
    for row, prompt in enumerate(dataset.prompts):
        alone = write_speculatively(
            lambda ids: teacher.model(torch.tensor([list(ids)])).logits[0].detach().numpy(),
            lambda ids: np.zeros((len(ids), 1)),
            prompt,
            draft_tokens=0,
            max_new_tokens=NEW_TOKENS,
            end_tokens=[teacher.model.generation_config.eos_token_id],
        )
        assert tuple(of_teacher.tokens[row].tolist()) == alone.tokens


def test_perplexity_is_that_of_the_bare_library(
    of_student: WrittenOutcomes, dataset: PromptDataset, student: BareWriter, of_teacher: Any
) -> None:
    losses, tokens = 0.0, 0
    for prompt, reference in zip(PROMPTS, REFERENCES, strict=True):
        ids = student.tokenizer(prompt + reference, return_tensors="pt")["input_ids"]
        behind = len(student.tokenizer(prompt)["input_ids"])
        if tuple(ids[0, :behind].tolist()) != tuple(student.tokenizer(prompt)["input_ids"]):
            own = student.tokenizer(reference, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[*student.tokenizer(prompt)["input_ids"], *own]])
        labels = ids.clone()
        labels[:, :behind] = -100
        count = ids.shape[1] - behind
        losses += float(student.model(ids, labels=labels).loss.detach()) * count
        tokens += count
    found = _scores(of_student, dataset, of_teacher)
    assert found["perplexity"].value == pytest.approx(np.exp(losses / tokens), rel=1e-5)
    size = sum(len(one.encode()) for one in REFERENCES)
    assert found["bits_per_byte"].value == pytest.approx(losses / size / np.log(2), rel=1e-5)


def test_the_students_text_is_the_teachers_as_far_as_told(
    of_student: WrittenOutcomes, of_teacher: WrittenOutcomes, dataset: PromptDataset
) -> None:
    same, shares = [], []
    for own, theirs in zip(of_student.tokens, of_teacher.tokens, strict=True):
        length = 0
        while length < min(len(own), len(theirs)) and own[length] == theirs[length]:
            length += 1
        same.append(own.tolist() == theirs.tolist())
        shares.append(length / len(theirs))
    assert 0 < np.mean(same) < 1  # the test would tell nothing otherwise
    found = _scores(of_student, dataset, of_teacher)
    for metric, value in (("agreement", np.mean(same)), ("prefix_agreement", np.mean(shares))):
        assert found[metric].value == pytest.approx(value)
        assert found[metric].relative_to_teacher == found[metric].value
        assert found[metric].low < value < found[metric].high
        assert (found[metric].relative_low, found[metric].relative_high) == (
            found[metric].low,
            found[metric].high,
        )


def test_prompts_of_a_document_are_one_unit(
    of_student: WrittenOutcomes, of_teacher: WrittenOutcomes, dataset: PromptDataset
) -> None:
    found = _scores(of_student, dataset, of_teacher)
    assert {one.units for one in found.values()} == {len(LINES)}
    alone = dataclasses.replace(dataset, documents=None)
    apart = dataclasses.replace(of_student, documents=None)
    found = _scores(apart, alone, dataclasses.replace(of_teacher, documents=None))
    assert {one.units for one in found.values()} == {len(PROMPTS)}


def test_the_teacher_agrees_with_itself(
    of_teacher: WrittenOutcomes, dataset: PromptDataset
) -> None:
    found = _scores(of_teacher, dataset, of_teacher, TEACHER)
    assert set(found) == {
        "chrf", "rouge_1", "rouge_2", "rouge_l", "perplexity", "bits_per_byte", "agreement",
        "prefix_agreement",
    }  # fmt: skip
    assert (found["agreement"].value, found["agreement"].relative_to_teacher) == (1.0, 1.0)
    assert found["prefix_agreement"].low == 1.0


def test_outcomes_are_kept_to_the_last_digit(
    of_student: WrittenOutcomes, of_teacher: WrittenOutcomes, dataset: PromptDataset, tmp_path: Path
) -> None:
    write_outcomes(tmp_path / "s.parquet", of_student, dataset, teacher=of_teacher)
    again = read_outcomes(tmp_path / "s.parquet")
    assert isinstance(again, WrittenOutcomes)
    assert again.texts == of_student.texts
    assert [one.tolist() for one in again.tokens] == [one.tolist() for one in of_student.tokens]
    assert again.vocabulary == of_student.vocabulary
    before, after = (_scores(one, dataset, of_teacher) for one in (of_student, again))
    assert before == after


def test_a_failed_prompt_is_left_out_on_both_sides_and_told(
    dataset: PromptDataset, student_folder: Path, of_teacher: WrittenOutcomes
) -> None:
    notes: list[str] = []
    # More than a hundredth is missing: then the rest is no longer the same test.
    writer = BareWriter(student_folder, fails=[dataset.prompts[4]])
    found = collect_texts(STUDENT, dataset, writer, progress=lambda step: notes.append(step.note))
    assert found.unanswered.tolist() == [row == 4 for row in range(dataset.size)]
    assert "1 of 18 prompts unanswered: the slot burst" in notes[-1]
    assert _scores(found, dataset, of_teacher) == {}


def test_nothing_answered_is_an_error(dataset: PromptDataset, student_folder: Path) -> None:
    writer = BareWriter(student_folder, fails=dataset.prompts)
    with pytest.raises(ServerError, match=r"answered none of 18 prompts .* the slot burst"):
        _collected(STUDENT, dataset, writer)


def test_a_server_that_does_not_tell_likelihoods_is_not_asked_for_them(
    dataset: PromptDataset, student_folder: Path, of_teacher: WrittenOutcomes
) -> None:
    writer = BareWriter(student_folder)
    variant = dataclasses.replace(STUDENT, outputs=STREAM_OUTPUTS)
    outcomes = _collected(variant, dataset, writer)
    assert len(writer.asked) == dataset.size
    found = _scores(outcomes, dataset, of_teacher)
    assert "perplexity" not in found
    assert "rouge_l" in found


def test_texts_of_another_vocabulary_are_compared_by_character(
    of_student: WrittenOutcomes, of_teacher: WrittenOutcomes, dataset: PromptDataset
) -> None:
    other = dataclasses.replace(
        of_student,
        vocabulary="another",
        tokens=tuple(one + 1 for one in of_student.tokens),
    )
    found = _scores(other, dataset, of_teacher)
    same = [a == b for a, b in zip(of_student.texts, of_teacher.texts, strict=True)]
    assert found["agreement"].value == pytest.approx(np.mean(same))
    assert found["perplexity"].relative_to_teacher is None
    assert found["bits_per_byte"].relative_to_teacher is not None


def test_measures_beside_the_teacher(
    of_student: WrittenOutcomes, of_teacher: WrittenOutcomes
) -> None:
    found = {
        one.measure: one for one in compare_with_teacher(of_student, of_teacher, family="f", seed=0)
    }
    change = of_student.log_likelihood - of_teacher.log_likelihood
    assert found["reference_change_nats"].value == pytest.approx(change.mean())
    assert found["common_prefix_tokens"].samples == len(PROMPTS)
    assert 0 < found["common_prefix_tokens"].value < NEW_TOKENS


def test_losses_by_slice_and_the_worst_prompts_are_in_rouge(
    of_student: WrittenOutcomes, of_teacher: WrittenOutcomes, dataset: PromptDataset,
    task: TextGeneration,
) -> None:  # fmt: skip
    family = family_of(task)
    assert isinstance(family, GenerationFamily)
    assert family.loss_metric_of(task) == "rouge_l"
    half = np.arange(len(PROMPTS)) // 9
    found = slice_losses(of_student, of_teacher, [Slicing("half", ("a", "b"), half, None)], seed=0)
    lost = of_teacher.rouge["rouge_l"] - of_student.rouge["rouge_l"]
    assert {one.name: one.loss.value for one in found} == {
        "a": pytest.approx(lost[:9].mean()),
        "b": pytest.approx(lost[9:].mean()),
    }
    worst = family.loss_details(of_student, of_teacher, dataset, PROMPTS).examples
    assert [one.loss for one in worst] == sorted(lost[lost > 0], reverse=True)[:10]


@pytest.mark.parametrize("streams", [1, 4])
def test_streams_at_once_change_no_answer_of_a_model_that_reads_them_alone(
    streams: int, dataset: PromptDataset, teacher: BareWriter
) -> None:
    (found,) = stream_consistency(TEACHER, dataset, teacher, in_flight=[streams], samples=5)
    assert (found.batch_size, found.samples) == (streams, 5)
    assert (found.changed_predictions, found.max_abs_difference) == (0, 0.0)


def test_streams_that_change_an_answer_are_counted(
    dataset: PromptDataset, teacher_folder: Path, student_folder: Path
) -> None:
    alone, crowded = BareWriter(teacher_folder), BareWriter(student_folder)

    class Crowded:
        """Answers as another model after the first round."""

        def __init__(self) -> None:
            self.asked = 0

        def write(self, *request: Any) -> Any:
            self.asked += 1
            return (alone if self.asked <= 2 * 18 else crowded).write(*request)

    (found,) = stream_consistency(TEACHER, dataset, Crowded(), in_flight=[2], samples=18)
    assert found.changed_predictions > 0
    assert found.max_abs_difference > 0


# The student as a draft


def test_the_drafts_matches_are_the_rounds_of_the_librarys_own_speculation(
    dataset: PromptDataset,
    of_teacher: WrittenOutcomes,
    student: BareWriter,
    teacher: BareWriter,
) -> None:
    matches = draft_matches(STUDENT, dataset, of_teacher, student, in_flight=2)
    assert [len(one) for one in matches] == [len(one) for one in of_teacher.tokens]
    ends = teacher.model.generation_config.eos_token_id

    def logits(writer: BareWriter) -> Any:
        return lambda ids: writer.model(torch.tensor([list(ids)])).logits[0].detach().numpy()

    found = replay(matches, 3)
    for row, prompt in enumerate(dataset.prompts):
        written = write_speculatively(
            logits(teacher),
            logits(student),
            prompt,
            draft_tokens=3,
            max_new_tokens=NEW_TOKENS,
            end_tokens=[ends],
        )
        assert written.tokens == tuple(of_teacher.tokens[row].tolist())
        assert found.rounds[row] == len(written.rounds)


def test_transformers_assisted_generation_writes_the_same(
    dataset: PromptDataset,
    of_teacher: WrittenOutcomes,
    student: BareWriter,
    teacher: BareWriter,
) -> None:
    for row, prompt in enumerate(dataset.prompts):
        ids = torch.tensor([list(prompt)])
        whole = teacher.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            assistant_model=student.model,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=0,
        )
        assert whole[0, len(prompt) :].tolist() == of_teacher.tokens[row].tolist()


def test_a_draft_of_another_vocabulary_is_refused(
    dataset: PromptDataset, of_teacher: WrittenOutcomes, student: BareWriter
) -> None:
    other = dataclasses.replace(of_teacher, vocabulary="another")
    with pytest.raises(DataError, match="another vocabulary than teacher-fp32"):
        draft_matches(STUDENT, dataset, other, student)
