"""A checkpoint's tokenizer is what its own library makes of the folder, or it is refused."""

import json
import sys

import pytest
import transformers

from harness.errors import CheckpointError, DataError, MissingExtraError
from harness.study import QuestionAnswering, SequenceClassification
from harness.system import libraries
from harness.tasks import loading as tokenizer_notes
from harness.tasks.loading import encode
from harness.tasks.question_answering.rows import QuestionSamples
from harness.tasks.samples import Samples
from harness.tasks.tokenizers import load_tokenizer
from tests.tiny_models import byte_level_tokenizer
from tests.tiny_tokenizers import WORDS, amend, save, sentence_piece, word_level

DATA = {"source": "reference", "name": "topics"}
TEXTS = (" ".join(WORDS[:40]), WORDS[3], f"{WORDS[0]} [SEP] {WORDS[1]}")
PAIRS = (WORDS[5], "", " ".join(WORDS[40:70]))


def samples(texts=TEXTS, pairs=None, **more):
    made = QuestionSamples if "answers" in more else Samples
    return made(texts=texts, pairs=pairs, digest="d", rows=tuple(range(len(texts))), seed=1, **more)


def classification(length=12):
    return SequenceClassification.model_validate(
        {"kind": "sequence-classification", "data": DATA, "max_length": length}
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pair"])
def test_rows_are_what_the_bare_tokenizer_makes_of_each_alone(tmp_path, side, pairs):
    folder = save(word_level(), tmp_path / "ckpt")
    amend(folder, truncation_side=side, padding_side=side)
    bare = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = encode(classification(), samples(pairs=pairs), folder)
    for group in encoded.groups:
        for position, row in enumerate(group.rows.tolist()):
            mask = group.inputs["attention_mask"][position].astype(bool)
            wanted = bare(
                TEXTS[row],
                pairs[row] if pairs else None,
                truncation=True,
                max_length=12,
                return_token_type_ids=True,
            )
            assert group.inputs["input_ids"][position][mask].tolist() == wanted["input_ids"]
            if "token_type_ids" in group.inputs:
                types = group.inputs["token_type_ids"][position][mask].tolist()
                assert types == wanted["token_type_ids"]
            assert mask[: mask.sum()].all()
    assert encoded.truncated == (1 if pairs is None else 2)


def questions(**changes):
    section = {"kind": "question-answering", "data": DATA, "max_length": 16, "doc_stride": 4}
    return QuestionAnswering.model_validate(section | changes)


def test_an_order_of_question_and_context_that_may_be_the_other_one_is_said(tmp_path):
    folder = save(word_level(), tmp_path / "ckpt")
    assert said_of(folder, samples(), questions()) == ""
    amend(folder, padding_side="left")
    assert "here the question comes first" in said_of(folder, samples(), questions())
    assert said_of(folder, samples(), questions(context_first=True)) == ""
    assert said_of(folder, samples()) == ""


@pytest.mark.parametrize("context_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_token_of_a_long_context_is_asked_with_the_whole_question(
    tmp_path, side, context_first
):
    folder = save(word_level(), tmp_path / "ckpt")
    amend(folder, truncation_side=side, padding_side=side)
    asked = questions(context_first=context_first)
    rows = samples((WORDS[50],), (" ".join(WORDS[:40]),), answers=((WORDS[39],),))
    encoded = encode(asked, rows, folder)
    seen = {
        WORDS[token - 5]
        for group in encoded.groups
        for ids, context in zip(group.inputs["input_ids"], group.context, strict=True)
        for token in ids[context]
    }
    assert seen == set(WORDS[:40])
    for group in encoded.groups:
        rows_of_tokens = zip(
            group.inputs["input_ids"], group.inputs["attention_mask"].sum(1), strict=True
        )
        for ids, length in rows_of_tokens:
            assert ids[length - 2 if context_first else 1] == 55  # the question
        for position, window in enumerate(group.rows.tolist()):
            offsets = encoded.questions.offsets[window]
            for place in group.context[position].nonzero()[0]:
                first, end = offsets[place]
                token = group.inputs["input_ids"][position][place]
                assert encoded.questions.contexts[0][first:end] == WORDS[token - 5]


def test_a_pad_token_that_the_model_does_not_know_is_not_used(tmp_path):
    tokenizer = byte_level_tokenizer()
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    folder = save(tokenizer, tmp_path / "ckpt", {"model_type": "gpt2", "vocab_size": size})
    assert transformers.AutoTokenizer.from_pretrained(folder).pad_token_id == size
    encoded = encode(classification(), samples(("a", "the quick brown")), folder)
    assert encoded.pad_token_id == 0
    assert max(int(group.inputs["input_ids"].max()) for group in encoded.groups) < size


def test_a_tokenizer_without_any_special_token_pads_all_the_same(tmp_path):
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_level().backend_tokenizer
    )
    folder = save(tokenizer, tmp_path / "ckpt")
    bare = transformers.AutoTokenizer.from_pretrained(folder)
    assert bare.pad_token is bare.eos_token is bare.unk_token is None
    (group,) = encode(
        classification(4), samples((WORDS[3], f"{WORDS[3]} {WORDS[4]}")), folder
    ).groups
    assert group.inputs["input_ids"].tolist() == [[2, 8, 3, 0], [2, 8, 9, 3]]
    assert group.inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_a_vocabulary_without_its_unknown_token_is_refused_in_words(tmp_path):
    folder = tmp_path / "funnel"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "funnel", "vocab_size": 100}')
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[CLS]", "[SEP]", "the"]))
    with pytest.raises(CheckpointError, match=r"cannot encode the data: WordPiece error"):
        encode(classification(), samples(("the fox",)), folder)
    assert said_of(folder, samples(("the fox",))) == ""


@pytest.mark.parametrize(("pairs", "special"), [(None, 2), (PAIRS, 3)])
def test_a_length_that_special_tokens_fill_is_refused(tmp_path, pairs, special):
    folder = save(word_level(), tmp_path / "ckpt")
    encode(classification(special + 1), samples(pairs=pairs), folder)
    for length in range(1, special + 1):
        with pytest.raises(DataError, match=f"no room beside the tokenizer's {special} special"):
            encode(classification(length), samples(pairs=pairs), folder)


def test_a_vocabulary_larger_than_the_models_is_refused_with_the_token(tmp_path):
    folder = save(word_level(), tmp_path / "ckpt", {"vocab_size": 30})
    encode(classification(), samples((WORDS[24],)), folder)
    with pytest.raises(CheckpointError) as caught:
        encode(classification(), samples((WORDS[25],)), folder)
    assert f"makes token 30 ('{WORDS[25]}') of the data" in str(caught.value)
    assert "vocabulary ends at 29" in str(caught.value)


def test_a_tokenizer_that_its_class_rebuilds_is_said_with_both(tmp_path):
    folder = save(word_level(), tmp_path / "ckpt")
    assert said_of(folder, samples()) == ""
    known = json.loads((folder / "tokenizer.json").read_text())
    known["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(known))
    assert said_of(folder, samples()) == ""  # the file is what the library reads
    amend(folder, tokenizer_class="GPT2Tokenizer")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 200}))
    assert load_own(folder, TEXTS[0]) == [2, *range(5, 45), 3]
    made = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    said = said_of(folder, samples())

    assert "AutoTokenizer makes GPT2Tokenizer of" in said
    assert "for 3 of 3 rows of the data" in said
    assert made == [2, 3]
    assert "from token 1 on, [3] against [5, 6, 7, 8, 9, 10, 11, 12, ...]" in said
    assert said.endswith("AutoTokenizer's are used")


def test_what_differs_late_in_a_text_is_shown(tmp_path, monkeypatch):
    from tokenizers import processors

    folder = save(word_level(), tmp_path / "ckpt")
    library = word_level()
    library.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [MASK]", special_tokens=[("[CLS]", 2), ("[MASK]", 4)]
    )
    monkeypatch.setattr(tokenizer_notes, "open_bare", lambda *_, **__: library)
    said = said_of(folder, samples((WORDS[3],)))
    assert "for 1 of 1 rows" in said
    assert "from token 2 on, [4] against [3]" in said


def said_of(folder, rows, task=None):
    return tokenizer_notes.tokenizer_note(task or classification(), rows, folder)


def load_own(folder, text):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


@pytest.mark.parametrize(
    ("model", "name", "kind"),
    [
        ("xlm-roberta", "sentencepiece.bpe.model", "unigram"),
        ("xlnet", "spiece.model", "unigram"),
        ("deberta-v2", "spm.model", "unigram"),
        ("t5", "spiece.model", "unigram"),
        ("llama", "tokenizer.model", "bpe"),
    ],
)
def test_a_sentencepiece_model_alone_is_converted(tmp_path, model, name, kind):
    import sentencepiece

    folder = sentence_piece(tmp_path / model, name, kind=kind)
    (folder / "config.json").write_text(json.dumps({"model_type": model, "vocab_size": 500}))
    text = "the quick fox answers"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
    assert load_tokenizer(folder).tokenize(text) == pieces.encode(text, out_type=str)


def test_without_the_package_the_extra_is_named_with_the_file(tmp_path, monkeypatch):
    folder = sentence_piece(tmp_path / "xlnet", "spiece.model")
    (folder / "config.json").write_text('{"model_type": "xlnet", "vocab_size": 500}')
    there = libraries.find_spec
    monkeypatch.setattr(
        libraries, "find_spec", lambda name: None if name == "sentencepiece" else there(name)
    )
    with pytest.raises(MissingExtraError) as caught:
        load_tokenizer(folder)
    assert "only there as spiece.model needs the package 'sentencepiece'" in str(caught.value)
    assert caught.value.next_step == "pip install 'triton-distillation-harness[sentencepiece]'"
    (folder / "spiece.model").rename(folder / "tokenizer.model")
    (folder / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    monkeypatch.setattr(
        libraries, "find_spec", lambda name: None if name == "tiktoken" else there(name)
    )
    with pytest.raises(MissingExtraError, match="needs the package 'tiktoken'"):
        load_tokenizer(folder)


def test_a_release_that_does_not_meet_protobuf_is_named(tmp_path, monkeypatch):
    folder = sentence_piece(tmp_path / "xlnet", "spiece.model")
    (folder / "config.json").write_text('{"model_type": "xlnet", "vocab_size": 500}')
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(CheckpointError, match=r"sentencepiece [\d.]+ does not work with protobuf"):
        load_tokenizer(folder)


def test_a_class_that_reads_none_of_the_files_is_refused(tmp_path):
    folder = sentence_piece(tmp_path / "bert", "spiece.model")
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 500}')
    # Every text would be [UNK]: what the library makes, in silence.
    assert len(transformers.AutoTokenizer.from_pretrained(folder)) == 5
    with pytest.raises(CheckpointError, match=r"BertTokenizer reads nothing of spiece\.model"):
        load_tokenizer(folder)


def test_a_tokenizer_in_python_is_refused(tmp_path):
    folder = sentence_piece(tmp_path / "python", "spiece.model")
    amend(folder, tokenizer_class="SiglipTokenizer")
    (folder / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(CheckpointError, match="is a tokenizer in Python"):
        load_tokenizer(folder)
