"""Prompts and references: read, put into a chat template, tokenised as a model reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny_models import byte_level_tokenizer, make_language_model
from transformers import AutoTokenizer

from harness.errors import DataError
from harness.tasks.generation.rows import PromptDataset, PromptSamples, TextGeneration
from harness.tasks.loading import encode, load_samples

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROWS = [
    {"prompt": "the quick brown", "reference": " fox jumps over", "page": "b"},
    {"prompt": "a server answers", "reference": "requests", "page": "a"},
    {"prompt": "teachers are", "reference": " large, students are small", "page": "b"},
]


def _task(tmp_path: Path, rows: list[Any], **settings: Any) -> TextGeneration:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    document = {"kind": "generation", "data": {"source": "jsonl", "path": path}, "max_length": 48,
                "max_new_tokens": 8, **settings}  # fmt: skip
    return TextGeneration.model_validate(document, context={"folder": tmp_path})


def _samples(task: TextGeneration) -> PromptSamples:
    samples = load_samples(task, seed=0, label_names=None)
    assert isinstance(samples, PromptSamples)
    return samples


def _encoded(task: TextGeneration, folder: Path) -> PromptDataset:
    dataset = encode(task, _samples(task), folder)
    assert isinstance(dataset, PromptDataset)
    return dataset


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_model(tmp_path_factory.mktemp("llama") / "llama", architecture="llama")


def test_prompts_are_the_librarys_own_tokens_and_are_not_padded(
    checkpoint: Path, tmp_path: Path
) -> None:
    dataset = _encoded(_task(tmp_path, ROWS), checkpoint)
    bare = AutoTokenizer.from_pretrained(checkpoint)
    assert dataset.prompts == tuple(tuple(bare(row["prompt"])["input_ids"]) for row in ROWS)
    assert dataset.prompts[0][0] == bare.bos_token_id
    assert dataset.padding_share == 0.0
    sent = {
        row: tuple(ids)
        for group in dataset.groups
        for row, ids in zip(group.rows.tolist(), group.inputs["input_ids"].tolist(), strict=True)
    }
    assert sent == dict(enumerate(dataset.prompts))


def test_a_reference_is_what_the_library_makes_of_it_behind_its_prompt(
    checkpoint: Path, tmp_path: Path
) -> None:
    dataset = _encoded(_task(tmp_path, ROWS), checkpoint)
    bare = AutoTokenizer.from_pretrained(checkpoint)
    assert dataset.reference_ids is not None
    for row, prompt, reference in zip(ROWS, dataset.prompts, dataset.reference_ids, strict=True):
        assert bare.decode(prompt[1:]) == row["prompt"]
        assert bare.decode(reference) == row["reference"]
        assert bare.bos_token_id not in reference
    # A space is a word's first letter here, so this seam goes through no token.
    whole = bare(ROWS[0]["prompt"] + ROWS[0]["reference"])["input_ids"]
    assert (*dataset.prompts[0], *dataset.reference_ids[0]) == tuple(whole)


def test_a_reference_whose_first_token_would_go_across_the_seam_is_tokenised_apart(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "th", "reference": "e quick brown fox"}]
    dataset = _encoded(_task(tmp_path, rows), checkpoint)
    bare = AutoTokenizer.from_pretrained(checkpoint)
    whole = bare("the quick brown fox")["input_ids"]
    assert tuple(whole[: len(dataset.prompts[0])]) != dataset.prompts[0]
    assert dataset.reference_ids == (
        tuple(bare("e quick brown fox", add_special_tokens=False)["input_ids"]),
    )


def test_prompts_of_one_document_belong_together(checkpoint: Path, tmp_path: Path) -> None:
    dataset = _encoded(_task(tmp_path, ROWS, document="page"), checkpoint)
    assert dataset.documents is not None
    assert dataset.documents.tolist() == [1, 0, 1]
    assert _encoded(_task(tmp_path, ROWS), checkpoint).documents is None


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}"
            "{% endif %}" + TEMPLATE,
            r"row 1 of the data, counted from 0 \(system, user\): No system role",
        ),
        ("{% for m in messages %}{{ m.content }}{{ m.x.y }}{% endfor %}", r"row 0 .* \(user\): "),
        ("{% for m in messages %}{{ m.content | nothing }}{% endfor %}", "No filter named"),
    ],
)
def test_a_template_that_fails_on_a_conversation_is_told_with_its_row(
    template: str, told: str, tmp_path: Path
) -> None:
    folder = _chat_checkpoint(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(template)
    system = {"role": "system", "content": "be brief"}
    rows = [
        {"prompt": "hello", "reference": "r"},
        {"prompt": [system, {"role": "user", "content": "hello"}], "reference": "r"},
    ]
    with pytest.raises(DataError, match=told) as caught:
        _encoded(_task(tmp_path, rows, chat_template=True), folder)
    assert "roles" in caught.value.next_step


def test_what_a_template_would_write_beside_a_messages_text_is_refused(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "what is it?", "tool_calls": None, "name": "me"}
    called = {"role": "assistant", "content": "let me see", "tool_calls": [{"id": "1"}]}
    told = {"role": "tool", "content": "42"}
    rows = [
        {"prompt": [asked], "reference": "r"},
        {"prompt": [asked, called, told], "reference": "r"},
    ]
    with pytest.raises(DataError, match="line 2: a message of 'prompt' has 'tool_calls' beside"):
        _samples(_task(tmp_path, rows, chat_template=True))
    (conversation,) = _samples(_task(tmp_path, rows[:1], chat_template=True)).conversations or ()
    assert conversation == ({"role": "user", "content": "what is it?"},)


@pytest.mark.parametrize("missing", [None, "", " ", float("nan")])
def test_a_prompt_without_its_document_is_refused(missing: object, tmp_path: Path) -> None:
    """All of them would be one unit of the intervals."""
    rows = [*ROWS, {**ROWS[0], "page": missing}]
    with pytest.raises(DataError, match="line 4: 'page' is missing"):
        _samples(_task(tmp_path, rows, document="page"))


def test_without_references_there_are_none(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"]} for row in ROWS]
    dataset = _encoded(_task(tmp_path, rows, reference=None), checkpoint)
    assert dataset.references is None
    assert dataset.reference_ids is None
    with pytest.raises(DataError, match=r"no column 'reference' \(the task's 'reference'\)"):
        _samples(_task(tmp_path, rows))


def test_references_that_rouge_cannot_read_leave_it_undefined(tmp_path: Path) -> None:
    """One is enough: the others would be another test than the one that was asked for."""
    rows = [*ROWS, {"prompt": "capital of China", "reference": "\u5317\u4eac", "page": "c"}]
    undefined = _samples(_task(tmp_path, rows)).undefined_metrics
    assert set(undefined) == {"rouge_1", "rouge_2", "rouge_l"}
    assert "1 of 4 references hold too few, the first in row 3" in undefined["rouge_l"]
    assert not _samples(_task(tmp_path, ROWS)).undefined_metrics
    assert not _samples(_task(tmp_path, rows, reference=None)).undefined_metrics


def test_samples_are_drawn_with_the_seed_and_keep_what_belongs_together(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "reference": f"r{n}", "page": f"d{n}"} for n in range(30)]
    drawn = _samples(_task(tmp_path, rows, samples=7, document="page"))
    assert len(drawn.texts) == 7
    assert drawn.references == tuple(text.replace("p", "r") for text in drawn.texts)
    assert drawn.documents == tuple(text.replace("p", "d") for text in drawn.texts)


# Conversations


def _chat_checkpoint(folder: Path) -> Path:
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("hello", "<user>hello<assistant>"),
        (
            [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
            "<system>be brief<user>hello<assistant>",
        ),
        ('[{"role": "user", "content": "from a CSV"}]', "<user>from a CSV<assistant>"),
        ("[{'role': 'user', 'content': 'of pandas'}]", "<user>of pandas<assistant>"),
        ("[not JSON", "<user>[not JSON<assistant>"),
        ("[x for x in y]", "<user>[x for x in y]<assistant>"),
    ],
)
def test_a_chat_template_is_the_tokenizers_own(
    prompt: str | list[Mapping[str, str]], asked: str, tmp_path: Path
) -> None:
    folder = _chat_checkpoint(tmp_path / "chat")
    task = _task(tmp_path, [{"prompt": prompt, "reference": "hi"}], chat_template=True)
    dataset = _encoded(task, folder)
    bare = AutoTokenizer.from_pretrained(folder)
    assert bare.decode(dataset.prompts[0]) == asked
    assert dataset.reference_ids == (tuple(bare("hi", add_special_tokens=False)["input_ids"]),)


@pytest.mark.parametrize(
    "prompt",
    [
        [],
        7,
        [{"role": "user"}],
        [{"role": "user", "content": "  "}],
        "[{'role': 'user', 'content': 'a'}\n {'role': 'user', 'content': 'b'}]",
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    ],
)
def test_what_is_no_conversation_is_told_with_its_line(prompt: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "fine", "reference": "x"}, {"prompt": prompt, "reference": "x"}]
    with pytest.raises(DataError, match="line 2: 'prompt' is no conversation"):
        _samples(_task(tmp_path, rows, chat_template=True))


def test_a_message_that_the_template_leaves_out_is_refused(tmp_path: Path) -> None:
    folder = _chat_checkpoint(tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE.replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"
    )
    tokenizer.save_pretrained(folder)
    asked = [{"role": "tool", "content": "7"}, {"role": "user", "content": "7"}]
    rows = [{"prompt": "fine", "reference": "x"}, {"prompt": asked, "reference": "x"}]
    with pytest.raises(DataError, match=r"1 prompts.* row 1 .* message 0 there, of the role tool"):
        _encoded(_task(tmp_path, rows, chat_template=True), folder)


def test_a_tokenizer_without_a_template_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no chat template"):
        _encoded(_task(tmp_path, ROWS, chat_template=True), checkpoint)


# What cannot be asked


def test_a_prompt_without_room_for_its_answer_is_refused_and_not_cut(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = [*ROWS, {"prompt": "fox " * 60, "reference": " dog"}]
    with pytest.raises(DataError, match=r"1 of 4 prompts leave no room .* row 3 of the data"):
        _encoded(_task(tmp_path, rows), checkpoint)


def test_a_reference_beyond_the_models_length_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "the", "reference": " fox" * 60}]
    with pytest.raises(DataError, match=r"or for their reference; the longest, row 0"):
        _encoded(_task(tmp_path, rows), checkpoint)


@pytest.mark.parametrize("column", ["prompt", "reference"])
def test_an_empty_text_is_told_with_its_line(column: str, tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    rows[1][column] = " "
    with pytest.raises(DataError, match="line 2"):
        _samples(_task(tmp_path, rows))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_tokens": 48}, "no room for a prompt"),
        ({"max_new_tokens": 0}, "greater than or equal to 1"),
        ({"stop": ["\n", ""]}, "end every answer at once"),
        ({"chain_samples": 5}, "should be 0"),
    ],
)
def test_a_section_that_means_nothing_is_refused(
    settings: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=said):
        _task(tmp_path, ROWS, **settings)
