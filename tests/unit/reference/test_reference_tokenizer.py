"""Tokenizers: framing, round trip, and the same vocabulary in every process."""

import json
import os
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from harness.reference.vocabulary import train_classifier_tokenizer, train_language_tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog and the dogs of the foxes.",
    "def forward(self, hidden_states): return self.projection(hidden_states)",
    "Gradients flow backwards, naïvely and quickly, through every hidden state.",
] * 20


@pytest.fixture(scope="module")
def classifier_tokenizer():
    return train_classifier_tokenizer(TEXTS, vocabulary=400, max_length=8)


@pytest.fixture(scope="module")
def language_tokenizer():
    return train_language_tokenizer(TEXTS, vocabulary=400, max_length=64)


def test_a_row_stands_between_its_marks_and_is_cut_and_padded(classifier_tokenizer):
    encoded = classifier_tokenizer(
        [TEXTS[0], "fox"], truncation=True, padding="max_length", max_length=8
    )
    cls, sep = classifier_tokenizer.cls_token_id, classifier_tokenizer.sep_token_id
    long, short = encoded["input_ids"]
    assert long[0] == cls
    assert long[-1] == sep
    assert len(long) == len(short) == 8
    assert short[-1] == classifier_tokenizer.pad_token_id == 0
    assert sum(encoded["attention_mask"][1]) == short.index(sep) + 1


def test_a_pair_has_two_separators(classifier_tokenizer):
    ids = classifier_tokenizer("fox", "dog")["input_ids"]
    assert ids.count(classifier_tokenizer.sep_token_id) == 2


def test_the_classifier_takes_ids_and_mask_only(classifier_tokenizer):
    assert set(classifier_tokenizer("fox")) == {"input_ids", "attention_mask"}


def test_case_does_not_matter_to_the_classifier(classifier_tokenizer):
    assert classifier_tokenizer("FOX")["input_ids"] == classifier_tokenizer("fox")["input_ids"]


@pytest.mark.parametrize(
    "text", ["Never seen: ÄÖÜ 漢字 🙂", "", "two  spaces\nand a line", TEXTS[0]]
)
def test_language_text_survives_the_round_trip(language_tokenizer, text):
    ids = language_tokenizer(text)["input_ids"]
    assert language_tokenizer.decode(ids) == text


def test_a_saved_tokenizer_says_the_same(language_tokenizer, tmp_path):
    language_tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS)["input_ids"] == language_tokenizer(TEXTS)["input_ids"]
    assert loaded.model_max_length == 64
    assert loaded.pad_token_id == loaded.eos_token_id == 0


def test_another_process_makes_the_same_vocabulary(classifier_tokenizer):
    code = (
        "import json, sys; from harness.reference.vocabulary import train_classifier_tokenizer;"
        "texts = json.load(sys.stdin);"
        "made = train_classifier_tokenizer(texts, vocabulary=400, max_length=8);"
        "print(made.backend_tokenizer.to_str())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(TEXTS),
        env=os.environ | {"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    fresh = train_classifier_tokenizer(TEXTS, vocabulary=400, max_length=8)
    assert answer.stdout.strip() == fresh.backend_tokenizer.to_str()
