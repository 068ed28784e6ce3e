"""Sentences with a tag a word: read for a checkpoint, cut into pieces, scored as seqeval scores."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from harness.errors import DataError
from harness.study import TokenClassification
from harness.tasks.loading import encode, load_samples
from harness.tasks.token_classification.encoding import DROPPED, MISSED
from harness.tasks.token_classification.outcomes import TagAnswer, tagged_outcomes
from harness.tasks.token_classification.statistics import count_entities, tagging_statistics
from harness.tasks.token_classification.tags import TagNames, TagScheme
from tests.tiny_models import TAGS, make_token_classifier

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = [
    {"tokens": ["Ada", "Lovelace", "met", "London"], "ner_tags": ["B-PER", "I-PER", "O", "B-LOC"]},
    {"tokens": ["The", "quickest", "fox"], "ner_tags": ["O", "O", "B-PER"]},
]


def task_of(tmp_path, rows=ROWS, **changes):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = {"source": "jsonl", "path": str(path)}
    return TokenClassification.model_validate(
        {"kind": "token-classification", "data": data, **changes}
    )


def samples_of(tmp_path, rows=ROWS, names=TAGS, teacher=None, **changes):
    return load_samples(
        task_of(tmp_path, rows, **changes), seed=0, label_names=names, teacher=teacher
    )


def refusal(tmp_path, *args, **changes):
    with pytest.raises(DataError) as caught:
        samples_of(tmp_path, *args, **changes)
    return f"{caught.value}\n{caught.value.next_step}"


def test_tags_by_name(tmp_path):
    samples = samples_of(tmp_path)
    assert samples.texts == ("Ada Lovelace met London", "The quickest fox")
    assert samples.truth.entities == ({("PER", 0, 1), ("LOC", 3, 3)}, {("PER", 2, 2)})
    assert samples.truth.tags[0] == ("B-PER", "I-PER", "O", "B-LOC")


def test_tags_by_index_count_in_the_studys_labels_whatever_the_checkpoints_order(tmp_path):
    rows = [{"tokens": ["a", "b", "c"], "ner_tags": [1, 2, 0]}]
    order = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    samples = samples_of(tmp_path, rows, labels=order)
    assert samples.truth.entities == ({("LOC", 0, 1)},)


def test_tags_by_index_count_in_the_teachers_order(tmp_path):
    rows = [{"tokens": ["a", "b", "c"], "ner_tags": [1, 2, 0]}]
    teacher = samples_of(tmp_path, rows, names=("O", "B-LOC", "I-LOC", "B-PER", "I-PER")).reader
    samples = samples_of(tmp_path, rows, teacher=teacher)
    assert samples.truth.entities == ({("LOC", 0, 1)},)


def test_indexes_that_nobody_names_are_refused(tmp_path):
    rows = [{"tokens": ["a"], "ner_tags": [1]}]
    said = refusal(tmp_path, rows, names=("LABEL_0", "LABEL_1", "LABEL_2"))
    assert "indexes without names" in said
    assert "'labels'" in said


def test_unnamed_outputs_are_called_by_the_studys_labels(tmp_path):
    samples = samples_of(tmp_path, names=tuple(f"LABEL_{n}" for n in range(5)), labels=list(TAGS))
    assert samples.truth.model.names == TAGS


def test_an_entity_that_the_checkpoint_cannot_name_is_refused(tmp_path):
    rows = [{"tokens": ["a", "b"], "ner_tags": ["B-PERSON", "O"]}]
    said = refusal(tmp_path, rows)
    assert "entities of PERSON, the checkpoint knows LOC, PER" in said


def test_data_in_another_scheme_is_compared_by_entities_and_in_the_checkpoints_tags(tmp_path):
    rows = [{"tokens": ["a", "b", "c", "d"], "ner_tags": ["B-PER", "E-PER", "O", "S-LOC"]}]
    samples = samples_of(tmp_path, rows)
    assert samples.truth.tags == (("B-PER", "I-PER", "O", "B-LOC"),)
    assert "iobes" in samples.label_note


@pytest.mark.parametrize(
    ("names", "tags", "note"),
    [
        (("O", "I-PER", "I-LOC", "B-LOC"), ("I-PER", "I-PER", "O", "I-LOC"), "checkpoint's iob1"),
        (("O", "B-PER", "B-LOC", "I-LOC"), ("B-PER", "I-PER", "O", "B-LOC"), "has no tag I-PER:"),
    ],
)
def test_a_checkpoint_may_lack_a_tag_that_the_data_has(tmp_path, names, tags, note):
    samples = samples_of(tmp_path, names=names)
    assert note in samples.label_note
    assert samples.truth.entities[0] == {("PER", 0, 1), ("LOC", 3, 3)}
    assert samples.truth.tags[0] == tags


def test_iob1_is_recognised_and_its_tags_stay(tmp_path):
    rows = [{"tokens": ["a", "b", "c"], "ner_tags": ["I-PER", "B-PER", "I-LOC"]}]
    samples = samples_of(tmp_path, rows)
    assert samples.truth.entities == ({("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 2)},)
    assert samples.truth.model.scheme is TagScheme.IOB1


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "2 words and 1 tags"),
        ({"tokens": [], "ner_tags": []}, "there is no word"),
        ({"tokens": ["a"], "ner_tags": [None]}, "a word has no tag"),
        ({"tokens": 7, "ner_tags": ["O"]}, "'tokens' is not a list of words"),
        ({"tokens": "['a' 'b']", "ner_tags": ["O", "O"]}, "'tokens' is not a list of words"),
        ({"tokens": "[a, b]", "ner_tags": "[0, 0]"}, "'tokens' is not a list of words"),
        ({"tokens": "a b", "ner_tags": "[0 0]"}, "'ner_tags' is not a list of tags"),
    ],
)
def test_a_sentence_that_does_not_fit_is_named(tmp_path, row, fault):
    assert f"line 3: {fault}" in refusal(tmp_path, [*ROWS, row])


@pytest.mark.parametrize(
    ("tokens", "tags"),
    [
        ('["EU", "rejects", "it\'s"]', '["B-LOC", "O", "O"]'),
        ("""['EU', 'rejects', "it's"]""", "['B-LOC', 'O', 'O']"),
        ("""('EU', 'rejects', "it's")""", "B-LOC O O"),
        ("EU rejects it's", "B-LOC O O"),
    ],
)
def test_a_csvs_lists_are_json_or_pythons_or_words(tmp_path, tokens, tags):
    samples = samples_of(tmp_path, [{"tokens": tokens, "ner_tags": tags}])
    assert samples.words == (("EU", "rejects", "it's"),)
    assert samples.truth.entities == ({("LOC", 0, 0)},)


@pytest.mark.parametrize(
    "words", [["(", "Reuters", ")"], ["[", "Reuters", "said"], ["10\u00a0000", "gold", "francs"]]
)
def test_words_in_brackets_are_words(tmp_path, words):
    samples = samples_of(tmp_path, [*ROWS, {"tokens": " ".join(words), "ner_tags": "O O O"}])
    assert samples.words[2] == tuple(words)


def test_a_list_that_no_one_reads_is_to_be_written_as_json(tmp_path):
    row = {"tokens": "['EU' 'rejects']", "ner_tags": "[0 0]"}
    assert 'in a CSV a list is written as JSON: ["EU", "rejects"]' in refusal(tmp_path, [row])


def test_the_first_piece_stands_for_a_word_and_words_beyond_are_missed(tmp_path):
    folder = make_token_classifier(tmp_path / "bert")
    task = task_of(tmp_path, max_length=8)
    samples = load_samples(task, seed=0, label_names=TAGS)
    dataset = encode(task, samples, folder)
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for row, words in enumerate(samples.words):
        library = tokenizer(list(words), is_split_into_words=True, truncation=True, max_length=8)
        places = library.word_ids()
        wanted = [places.index(word) if word in places else MISSED for word in range(len(words))]
        assert dataset.pieces[row].tolist() == wanted
    assert MISSED in dataset.pieces[0]
    missed = sum(int((one == MISSED).sum()) for one in dataset.pieces)
    assert f"{missed} of 7 words" in dataset.cut_note


def test_words_that_are_cut_at_the_beginning_are_missed_too(tmp_path):
    folder = make_token_classifier(tmp_path / "model")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"truncation_side": "left"}))
    words = ["Ada", "Lovelace", "met", "London", "and", "more", "words", "here"]
    task = task_of(tmp_path, [{"tokens": words, "ner_tags": ["O"] * 8}], max_length=12)
    dataset = encode(task, load_samples(task, seed=0, label_names=TAGS), folder)
    (pieces,) = dataset.pieces
    assert pieces[0] == MISSED
    assert pieces[-1] > 0
    assert DROPPED not in pieces


def test_robertas_words_keep_the_space_before_them(tmp_path):
    """As transformers' run_ner opens such a tokenizer: add_prefix_space=True."""
    import transformers

    folder = make_token_classifier(tmp_path / "roberta", architecture="roberta")
    odd = ["\u00a0shy", "<unk>", "met", " spaced", "\tA"]
    rows = [*ROWS, {"tokens": odd, "ner_tags": ["O"] * len(odd)}]
    task = task_of(tmp_path, rows, max_length=48)
    samples = load_samples(task, seed=0, label_names=TAGS)
    dataset = encode(task, samples, folder)
    library = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    for row, words in enumerate(samples.words):
        wanted = library(list(words), is_split_into_words=True)["input_ids"]
        (group,) = dataset.groups
        place = group.rows.tolist().index(row)
        mask = group.inputs["attention_mask"][place] == 1
        assert group.inputs["input_ids"][place][mask].tolist() == wanted


@pytest.mark.parametrize("strict", [False, True])
def test_scores_are_seqevals(strict):
    draw = random.Random(3)
    true, predicted = (
        [[draw.choice(TAGS) for _ in range(length % 9 + 1)] for length in range(200)]
        for _ in range(2)
    )
    read = TagNames(TAGS, TagScheme.IOB2)
    found, right = (
        tuple(read.entities(tags, strict=strict) for tags in sentences)
        for sentences in (predicted, true)
    )
    words = np.array([len(tags) for tags in true])
    alike = np.array(
        [
            sum(a == b for a, b in zip(x, y, strict=True))
            for x, y in zip(predicted, true, strict=True)
        ]
    )
    statistics = tagging_statistics(count_entities(found, right), alike, words)
    mode = {"mode": "strict", "scheme": IOB2} if strict else {}
    assert {one.metric: pytest.approx(one.value, abs=1e-12) for one in statistics} == {
        "entity_f1": f1_score(true, predicted, **mode),
        "entity_precision": precision_score(true, predicted, **mode),
        "entity_recall": recall_score(true, predicted, **mode),
        "token_accuracy": accuracy_score(true, predicted),
    }
    for one in statistics:
        span = one.bounds(seed=0)
        assert span.low < one.value < span.high
        assert span.units == 200


def test_no_entity_found_is_a_score_of_zero_with_an_interval():
    nothing, true = (frozenset(),) * 40, (frozenset({("PER", 0, 0)}),) * 40
    words = np.full(40, 3)
    f1, precision, recall, accuracy = tagging_statistics(
        count_entities(nothing, true), words - 1, words
    )
    assert (f1.value, precision.value, recall.value) == (0.0, 0.0, 0.0)
    assert accuracy.value == pytest.approx(2 / 3)
    assert 0 <= f1.bounds(seed=0).low <= f1.bounds(seed=0).high < 0.2


@pytest.mark.parametrize("scheme", [None, "iob2"])
def test_tags_that_say_nothing_are_refused_and_never_outside(tmp_path, scheme):
    rows = [*ROWS, {"tokens": ["a", "b"], "ner_tags": ["MISC", "O"]}]
    assert "tags MISC are neither O nor begin with a letter" in refusal(
        tmp_path, rows, scheme=scheme
    )


class Answer:
    """The tags of every word's first piece, as a model would have answered with."""

    def __init__(self, dataset, tags, names=TAGS):
        (self.group,) = dataset.groups
        self.rows = self.group.rows
        self.tags = np.zeros(self.group.inputs["input_ids"].shape, dtype=np.int64)
        for place, row in enumerate(self.rows.tolist()):
            for word, piece in enumerate(dataset.pieces[row].tolist()):
                if piece >= 0:
                    self.tags[place, piece] = names.index(tags[row][word])
        self.usable = np.ones(len(self.rows), dtype=bool)


def test_a_word_that_the_tokenizer_drops_neither_parts_an_entity_nor_counts(tmp_path):
    """As in transformers' run_ner, where such a word has no token and seqeval never sees it."""
    folder = make_token_classifier(tmp_path / "bert")
    zero_width, control = "\u200b", "\x07"
    rows = [
        {
            "tokens": ["Ada", zero_width, "Lovelace", "met", "London", control],
            "ner_tags": ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "I-LOC"],
        },
        {"tokens": [control, "The", zero_width], "ner_tags": ["B-PER", "O", "O"]},
    ]
    task = task_of(tmp_path, rows, max_length=32)
    samples = load_samples(task, seed=0, label_names=TAGS)
    dataset = encode(task, samples, folder)
    absent = [(one == DROPPED).tolist() for one in dataset.pieces]
    assert absent == [[False, True, False, False, False, True], [True, False, True]]
    # The entity that nobody can find stays to be missed.
    assert dataset.entities == ({("PER", 0, 2), ("LOC", 4, 4)}, {("PER", 0, 0)})
    assert dataset.cut_note.startswith("4 of 9 words, in 2 of 2 sentences, have no token")

    answer = Answer(dataset, [row["ner_tags"] for row in rows])
    variant = SimpleNamespace(name="right", sha256="0")
    outcomes = tagged_outcomes(variant, dataset, [(answer, TagAnswer(answer.tags, answer.usable))])
    assert outcomes.entities == ({("PER", 0, 2), ("LOC", 4, 4)}, frozenset())
    assert outcomes.words.tolist() == [4, 1]
    assert outcomes.right_words.tolist() == [4, 1]


def test_without_an_entity_nothing_is_told_of_entities(tmp_path):
    found = samples_of(tmp_path, [{"tokens": ["a", "b"], "ner_tags": ["O", "O"]}])
    assert set(found.undefined_metrics) == {"entity_f1", "entity_precision", "entity_recall"}


def test_half_a_character_in_a_word_is_refused_with_the_line(tmp_path):
    found = refusal(tmp_path, [{"tokens": ["a", "b\ud83d"], "ner_tags": ["O", "O"]}])
    assert "line 1: a word holds half a surrogate pair" in found
