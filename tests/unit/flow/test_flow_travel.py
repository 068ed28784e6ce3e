"""Inside the server a text has the tokens that the checkpoint's own library makes of it.

The right values are those of `AutoTokenizer.from_pretrained(folder)(text, pair, truncation=True)`,
one row at a time.
"""

import dataclasses
import json

import pytest
import transformers

from harness.errors import CheckpointError
from harness.flow import ensembles
from harness.flow.ensembles import check_travel, travelling_tokenizer
from harness.serving.ensemble_models.text_tensors import TextTensors
from harness.study import SequenceClassification
from harness.tasks.samples import Samples
from tests.tiny_models import byte_level_tokenizer, word_piece_tokenizer
from tests.tiny_tokenizers import WORDS, amend, save, word_level

LONG = " ".join(WORDS[:40])
TEXTS = (LONG, WORDS[3], "", f"{WORDS[0]} [SEP] {WORDS[1]}", "Naïve CAFÉ 東京 x\x00")
PAIRS = (WORDS[5], LONG, "", f"{WORDS[2]} [MASK]", "")
MAX_LENGTH = 12
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def task(*, pairs=False):
    section = {
        "kind": "sequence-classification",
        "data": {"source": "reference", "name": "topics"},
        "max_length": MAX_LENGTH,
        "length_buckets": [4, MAX_LENGTH],
    }
    return SequenceClassification.model_validate(
        section | ({"text_pair": "other"} if pairs else {})
    )


def samples(pairs=None):
    rows = tuple(range(len(TEXTS)))
    return Samples(texts=TEXTS, pairs=pairs, digest="d", rows=rows, seed=1)


def travelling(folder, *, pairs=False):
    return travelling_tokenizer(
        task(pairs=pairs), folder, is_pair=pairs, tells_words=False, trust_remote_code=False
    )


def served_rows(folder, pairs=None):
    tokenizer = travelling(folder, pairs=pairs is not None)
    return TextTensors(tokenizer.definition, **tokenizer.settings).encode(TEXTS, pairs)


def library_rows(folder, pairs=None):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [
        tokenizer(
            text,
            pairs[row] if pairs else None,
            truncation=True,
            max_length=MAX_LENGTH,
            return_token_type_ids=True,
        )
        for row, text in enumerate(TEXTS)
    ]


SETTINGS = {
    "left": {"truncation_side": "left"},
    "padding-left": {"padding_side": "left", "pad_token": "[MASK]"},
    "split": {"split_special_tokens": True},
    "bos": {"bos_token": "[MASK]", "add_bos_token": True, "truncation_side": "left"},
    "baked": {},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pair"])
def test_every_setting_travels(tmp_path, setting, pairs):
    folder = save(word_level(), tmp_path / "ckpt")
    amend(folder, **SETTINGS[setting])
    if setting == "baked":  # as old trainers leave it
        file = folder / "tokenizer.json"
        known = json.loads(file.read_text())
        known["truncation"] = {
            "direction": "Left", "max_length": 5, "strategy": "OnlyFirst", "stride": 0
        }  # fmt: skip
        known["padding"] = {
            "strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        }  # fmt: skip
        file.write_text(json.dumps(known))
    served, library = served_rows(folder, pairs), library_rows(folder, pairs)
    for row, encoded in enumerate(library):
        assert served[row].ids == encoded["input_ids"], TEXTS[row]
        assert served[row].type_ids == encoded["token_type_ids"]
        assert served[row].attention_mask == encoded["attention_mask"]
    is_pair = pairs is not None
    made = travelling(folder, pairs=is_pair)
    check_travel(made, samples(pairs), folder, INPUTS, trust_remote_code=False)


def test_a_longer_text_keeps_its_end_where_the_checkpoint_cuts_on_the_left(tmp_path):
    folder = save(word_level(truncation_side="left"), tmp_path / "ckpt")
    words = [5 + number for number in range(40)]
    assert served_rows(folder)[0].ids == [2, *words[-MAX_LENGTH + 2 :], 3]


@pytest.mark.parametrize("flags", [{}, {"do_lower_case": False}, {"strip_accents": False}])
def test_flags_that_the_library_applies_as_it_loads_travel(tmp_path, flags):
    folder = save(word_piece_tokenizer(), tmp_path / "ckpt")
    amend(folder, tokenizer_class="BertTokenizer", **flags)
    served, library = served_rows(folder), library_rows(folder)
    assert [row.ids for row in served] == [row["input_ids"] for row in library]
    check_travel(travelling(folder), samples(), folder, INPUTS, trust_remote_code=False)


def test_a_byte_level_tokenizer_with_a_prefix_space_travels(tmp_path):
    model = {"model_type": "gpt2"}
    folder = save(byte_level_tokenizer(), tmp_path / "ckpt", model)
    amend(folder, tokenizer_class="GPT2Tokenizer", add_prefix_space=True)
    served, library = served_rows(folder), library_rows(folder)
    assert [row.ids for row in served] == [row["input_ids"] for row in library]


def test_a_padded_row_has_the_checkpoints_pads_after_its_own_tokens(tmp_path):
    folder = save(word_level(), tmp_path / "ckpt")
    amend(folder, padding_side="left", pad_token="[MASK]")
    tokenizer = dataclasses.replace(travelling(folder), pad_token_type_id=1)
    tensors = TextTensors(tokenizer.definition, **tokenizer.settings)
    padded = tensors.pad(tensors.encode([WORDS[0], ""]), INPUTS)
    assert padded["input_ids"].tolist() == [[2, 5, 3, 4], [2, 3, 4, 4]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert padded["token_type_ids"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]


def test_a_tokenizer_that_does_its_part_in_python_is_refused_with_the_text(tmp_path, monkeypatch):
    folder = save(word_level(), tmp_path / "ckpt")
    plain = transformers.PreTrainedTokenizerFast.__call__

    def shouting(self, text, *rest, **settings):
        return plain(self, text.replace(WORDS[3], WORDS[4]), *rest, **settings)

    made = travelling(folder)
    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "__call__", shouting)
    with pytest.raises(CheckpointError) as caught:
        check_travel(made, samples(), folder, INPUTS, trust_remote_code=False)
    assert "would be served with other tokens than its own: input_ids of" in str(caught.value)
    assert "leave `ensemble` out of the family" in caught.value.next_step


def test_a_part_that_cannot_be_written_down_is_refused(tmp_path, monkeypatch):

    class Letters:
        def pre_tokenize(self, text):
            text.split(lambda _, one: list(one))

    def with_python_inside(folder, **_):
        from tokenizers.pre_tokenizers import PreTokenizer

        tokenizer = word_level()
        tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(Letters())
        return tokenizer

    monkeypatch.setattr(ensembles, "load_tokenizer", with_python_inside)
    with pytest.raises(CheckpointError, match="be put into an ensemble: Custom PreTokenizer"):
        travelling(tmp_path)
