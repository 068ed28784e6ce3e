"""What a tokenizer makes wrong is refused before anything starts, with the model it belongs to."""

import json

import pytest

from harness.errors import StudyError
from harness.flow import ensembles
from harness.flow.input_checks import check_inputs
from harness.study.file import parse_study
from tests.tiny_tokenizers import WORDS, amend, save, sentence_piece, word_level

CLASSES = {"num_labels": 2, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
ARCHITECTURE = {"architectures": ["BertForSequenceClassification"], **CLASSES}


def study(folder, *, ensemble=False, rows=((WORDS[0], "yes"), (WORDS[1], "no"))):
    data = folder / "d.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    data.write_text("\n".join(lines))
    # Whole, and without a tensor: they are not read before the export.
    (folder / "ckpt" / "model.safetensors").write_bytes(bytes([2, *[0] * 7]) + b"{}")
    model = {"name": "m", "role": "teacher", "checkpoint": str(folder / "ckpt")}
    task = {
        "kind": "sequence-classification",
        "data": {"source": "jsonl", "path": str(data)},
        "max_length": 12,
    }
    family = {"name": "f", "task": task, "models": [model], "ensemble": ensemble}
    document = {"name": "s", "objective": "p95 < 50 ms", "families": [family]}
    return parse_study(document, source="study")


def problems(asked):
    with pytest.raises(StudyError) as caught:
        check_inputs(asked)
    return "\n".join(caught.value.problems)


def test_a_vocabulary_larger_than_the_models(tmp_path):
    save(word_level(), tmp_path / "ckpt", {"vocab_size": 6, **ARCHITECTURE})
    said = problems(study(tmp_path))
    assert "family f, model m: " in said
    assert f"makes token 6 ('{WORDS[1]}') of the data" in said


def test_a_tokenizer_without_its_vocabulary(tmp_path):
    folder = sentence_piece(tmp_path / "ckpt", "spiece.model")
    config = {"model_type": "bert", "vocab_size": 100, **ARCHITECTURE}
    (folder / "config.json").write_text(json.dumps(config))
    assert "model m: " in problems(study(tmp_path))
    assert "reads nothing of spiece.model" in problems(study(tmp_path))


def test_an_ensemble_whose_tokens_would_be_others(tmp_path, monkeypatch):
    """As it was: the side of truncation did not reach the server."""
    folder = save(word_level(), tmp_path / "ckpt", ARCHITECTURE)
    amend(folder, truncation_side="left")
    asked = study(tmp_path, ensemble=True, rows=[(" ".join(WORDS[:30]), "yes")] * 2)
    check_inputs(asked)
    monkeypatch.setattr(ensembles, "TextTokenizer", _cut_on_the_right)
    said = problems(asked)
    assert "family f, model m: the ensemble of" in said
    assert "[2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 3] (12) inside the server" in said
    assert "[2, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 3] (12) by" in said


def test_an_ensemble_of_two_classes_with_one_name(tmp_path):
    save(word_level(), tmp_path / "ckpt", {**ARCHITECTURE, "id2label": {"0": "yes", "1": "yes"}})
    rows = [(WORDS[0], 0), (WORDS[1], 1)]
    check_inputs(study(tmp_path, rows=rows))
    said = problems(study(tmp_path, ensemble=True, rows=rows))
    assert "answers with the names of classes, and two have the same: yes" in said


def _cut_on_the_right(**settings):
    from harness.serving.ensemble import TextTokenizer

    return TextTokenizer(**settings | {"truncation_side": "right"})
