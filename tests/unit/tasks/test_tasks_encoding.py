import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import LINES, byte_level_tokenizer, word_piece_tokenizer
from tokenizers.processors import TemplateProcessing

from harness.errors import CheckpointError, DataError
from harness.study import CausalLanguageModelling, SequenceClassification
from harness.tasks.causal_lm.outcomes import read_tokens, scored_tokens
from harness.tasks.causal_lm.rows import WindowDataset, cut_windows
from harness.tasks.classification.rows import LabelledSamples
from harness.tasks.encoding import take_rows
from harness.tasks.loading import encode
from harness.tasks.outcomes import Batch
from harness.tasks.samples import Samples
from harness.tasks.tokenizers import load_tokenizer
from tests.architectures import ARCHITECTURES, Sides, make_tokenizer

DATA = {"source": "reference", "name": "topics"}


def samples(texts, pairs=None, labels=None):
    common = {
        "texts": tuple(texts),
        "pairs": pairs,
        "digest": "d",
        "rows": tuple(range(len(texts))),
        "seed": 5,
    }
    if labels is None:
        return Samples(**common)
    return LabelledSamples(**common, labels=labels, label_names=("code", "prose", "other"))


def classification(**changes):
    return SequenceClassification.model_validate(
        {"kind": "sequence-classification", "data": DATA, "max_length": 16, **changes}
    )


def language(**changes):
    return CausalLanguageModelling.model_validate({"kind": "causal-lm", "data": DATA, **changes})


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordpiece")
    word_piece_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytelevel")
    byte_level_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def byte_level_with_begin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytelevelbegin")
    byte_level_tokenizer(begin_of_text=True).save_pretrained(folder)
    return folder


def test_samples_go_to_the_next_bucket_with_their_rows(word_piece):
    texts = ["the fox " * 8, "a", "the quick fox", "b", "the fox jumps over the dog " * 9]
    encoded = encode(
        classification(max_length=32, length_buckets=[8, 16, 32]),
        samples(texts, labels=(0, 1, 2, 1, 0)),
        word_piece,
    )
    lengths = [group.length for group in encoded.groups]
    assert lengths == sorted(set(lengths)) == [8, 32]
    assert sorted(np.concatenate([group.rows for group in encoded.groups])) == list(range(5))
    assert encoded.size == 5
    assert encoded.truncated == 1
    assert encoded.labels.tolist() == [0, 1, 2, 1, 0]
    tokenizer = load_tokenizer(word_piece)
    for group in encoded.groups:
        for position, row in enumerate(group.rows):
            mask = group.inputs["attention_mask"][position].astype(bool)
            ids = group.inputs["input_ids"][position]
            expected = tokenizer(texts[row], truncation=True, max_length=32)["input_ids"]
            assert ids[mask].tolist() == expected
            assert (ids[~mask] == tokenizer.pad_token_id).all()
            assert mask[: mask.sum()].all()


def test_padding_share_is_padded_over_all_positions(word_piece):
    encoded = encode(classification(max_length=8), samples(["a", "the"]), word_piece)
    real = sum(group.inputs["attention_mask"].sum() for group in encoded.groups)
    assert encoded.padding_share == pytest.approx(1 - real / 16)


@pytest.mark.parametrize(
    ("architecture", "settings", "announced", "typed"),
    [
        ("bert", {}, True, True),
        ("bert", {}, False, True),  # the model was trained with them, whatever its tokenizer lists
        ("albert", {}, False, True),
        ("bert", {"type_vocab_size": 1}, False, False),  # nothing to tell apart
        ("deberta-v3", {}, True, False),  # no table of types
        ("distilbert", {}, True, False),  # the forward pass does not take them
        ("gpt2", {}, False, False),  # it would add word number 0 to every token
        ("xlnet", {}, False, True),  # it compares types, without a table
    ],
)
def test_pairs_get_token_types_where_the_model_reads_them(
    tmp_path, architecture, settings, announced, typed
):
    import transformers

    made = ARCHITECTURES[architecture]
    config = getattr(transformers, made.config)(**{**made.settings, **settings})
    config.save_pretrained(tmp_path)
    tokenizer = make_tokenizer("words", Sides())
    if announced:
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.save_pretrained(tmp_path)
    (group,) = encode(classification(), samples(["bada bade"], pairs=("badi",)), tmp_path).groups
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    assert list(group.inputs) == names
    if typed:
        assert group.inputs["token_type_ids"][0, :6].tolist() == [0, 0, 0, 0, 1, 1]


def test_a_token_type_that_the_model_does_not_know_is_refused(tmp_path):
    import transformers

    made = ARCHITECTURES["bert"]
    getattr(transformers, made.config)(**{**made.settings, "type_vocab_size": 2}).save_pretrained(
        tmp_path
    )
    tokenizer = make_tokenizer("words", Sides())
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"type_id": 1', '"type_id": 4'))
    with pytest.raises(CheckpointError, match="makes token type 4, but the model has 2 types"):
        encode(classification(), samples(["bada bade"], pairs=("badi",)), tmp_path)


def test_without_a_model_beside_it_the_tokenizers_word_stands(word_piece):
    assert (
        "token_type_ids"
        not in encode(classification(), samples(["a"]), word_piece).groups[0].inputs
    )


def test_a_tokenizer_without_pad_token_pads_with_its_end_token(byte_level):
    encoded = encode(classification(), samples(["a", "the quick brown"]), byte_level)
    group = encoded.groups[0]
    assert encoded.pad_token_id == 0
    assert (group.inputs["input_ids"][group.inputs["attention_mask"] == 0] == 0).all()


def test_the_digest_follows_texts_and_lengths(word_piece):
    digest = encode(classification(), samples(["a", "b"]), word_piece).digest
    assert encode(classification(), samples(["a", "b"]), word_piece).digest == digest
    assert encode(classification(), samples(["a", "the"]), word_piece).digest != digest
    assert encode(classification(max_length=15), samples(["a", "b"]), word_piece).digest != digest


def test_no_tokenizer_says_what_was_looked_for(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no tokenizer \(none of tokenizer.json"):
        encode(classification(), samples(["a"]), tmp_path)


def test_a_broken_tokenizer_is_said_to_be_one(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        encode(classification(), samples(["a"]), tmp_path)


def test_windows_of_running_text(byte_level):
    texts = [LINES[0] * 4, "", "x", LINES[1]]
    encoded = encode(language(max_length=16), samples(texts), byte_level)
    tokenizer = load_tokenizer(byte_level)
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    # A remainder of one token has nothing to score: dropped.
    expected = [
        min(16, length - start)
        for length in lengths
        for start in range(0, length, 16)
        if length - start > 1
    ]
    (group,) = encoded.groups
    assert group.inputs["attention_mask"].sum(1).tolist() == expected
    assert group.length == 16
    assert list(group.inputs) == ["input_ids", "attention_mask"]
    assert isinstance(encoded, WindowDataset)
    window = tokenizer.convert_ids_to_tokens(group.inputs["input_ids"][0])
    assert encoded.byte_counts[0] == sum(len(token) for token in window[1:])
    assert encoded.byte_counts.shape == (encoded.size,)


def test_windows_are_drawn_by_the_samples_seed(byte_level):
    texts = [line * 3 for line in LINES]
    everything = encode(language(max_length=8), samples(texts), byte_level)
    drawn = encode(language(max_length=8, samples=10), samples(texts), byte_level)
    again = encode(language(max_length=8, samples=10), samples(texts), byte_level)
    assert drawn.size == 10
    assert drawn.digest == again.digest
    whole = everything.groups[0].inputs["input_ids"].tolist()
    assert all(row in whole for row in drawn.groups[0].inputs["input_ids"].tolist())


def test_the_words_of_scored_text_are_those_that_white_space_parts(byte_level_with_begin):
    text = "  one two\tthree\n\nnaïve café, dash-words 東京  "
    for length in (2, 3, 8, 64):
        encoded = encode(language(max_length=length), samples([text]), byte_level_with_begin)
        assert encoded.word_counts.sum() == len(text.split())


def test_a_word_whose_bytes_are_not_scored_is_not_counted(byte_level):
    tokenizer = load_tokenizer(byte_level)
    text = "the quick brown fox"
    (window,) = cut_windows([text], tokenizer, 64)
    first = len(tokenizer.convert_ids_to_tokens(window.token_ids[0]))
    assert window.scored_words == len(text[first:].split())


def test_nothing_to_score_is_an_error(byte_level):
    with pytest.raises(DataError, match="nothing can be scored"):
        encode(language(), samples(["x", ""]), byte_level)


def test_a_begin_of_text_token_starts_every_window_and_all_text_is_scored(byte_level_with_begin):
    encoded = encode(language(max_length=8), samples([LINES[1]]), byte_level_with_begin)
    ids = encoded.groups[0].inputs["input_ids"]
    assert (ids[:, 0] == 1).all()
    assert encoded.byte_counts.sum() == len(LINES[1].encode())


def test_of_several_special_tokens_in_front_none_is_scored(byte_level, tmp_path):
    """GLM's are two: how probable the second is behind the first says nothing of a text."""
    tokenizer = load_tokenizer(byte_level)
    lead = ["[gMASK]", "<sop>"]
    tokenizer.add_special_tokens({"additional_special_tokens": lead})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[gMASK] <sop> $A",
        special_tokens=[(one, tokenizer.convert_tokens_to_ids(one)) for one in lead],
    )
    tokenizer.save_pretrained(tmp_path)
    encoded = encode(language(max_length=8), samples([LINES[1]]), tmp_path)
    (group,) = encoded.groups
    ids, real = group.inputs["input_ids"], group.inputs["attention_mask"].sum(axis=1)
    assert tokenizer.convert_ids_to_tokens(ids[0, :2].tolist()) == lead
    said = {
        "token_logprobs": np.tile(np.float32([0, -9, -1, -1, -1, -1, -1, -1]), (len(ids), 1)),
        "greedy_token_ids": ids,
    }
    answer = read_tokens(Batch(group, group.inputs), said)
    assert answer.log_likelihood.tolist() == (2.0 - real).tolist()
    assert [len(one) for one in answer.greedy] == (real - 2).tolist()
    (few,) = take_rows(encoded, np.array([1])).groups
    assert scored_tokens(few).sum() == real[1] - 2


@given(text=st.text(st.characters(codec="utf-8"), max_size=60), length=st.integers(2, 9))
def test_scored_bytes_are_those_of_the_scored_tokens(byte_level, text, length):
    """Against the byte-level alphabet itself, in which one letter of a token is one byte.

    A token that ends inside a character counts that character's bytes with the token that begins
    it, so a window may be off by the rest of one character at its start.
    """
    tokenizer = load_tokenizer(byte_level)
    for window in cut_windows([text], tokenizer, length):
        tokens = tokenizer.convert_ids_to_tokens(list(window.token_ids))
        exact = sum(len(token) for token in tokens[1:])
        assert exact - 3 <= window.scored_bytes <= exact + 3
    ascii_text = "".join(letter for letter in text if letter.isascii())
    for window in cut_windows([ascii_text], tokenizer, length):
        tokens = tokenizer.convert_ids_to_tokens(list(window.token_ids))
        assert window.scored_bytes == sum(len(token) for token in tokens[1:])


@given(text=st.text(st.characters(codec="utf-8"), max_size=60), length=st.integers(2, 9))
def test_with_a_lead_the_windows_cover_every_byte_once(byte_level_with_begin, text, length):
    tokenizer = load_tokenizer(byte_level_with_begin)
    windows = cut_windows([text], tokenizer, length)
    assert sum(window.scored_bytes for window in windows) == len(text.encode())
