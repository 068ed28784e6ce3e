"""Tags to entities: every scheme, compared with seqeval on thousands of random sequences."""

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, IOBES, Tokens

from harness.tasks.token_classification.tags import (
    TagNames,
    TagScheme,
    strange_tags,
    tags_of_data,
    tags_of_model,
)

SCHEMES = {
    TagScheme.IOB2: ("BI", IOB2),
    TagScheme.IOBES: ("BIES", IOBES),
    TagScheme.BILOU: ("BILU", BILOU),
}
pytestmark = pytest.mark.filterwarnings("ignore")


def names_of(scheme):
    letters, _ = SCHEMES[scheme]
    return ("O", *(f"{letter}-{kind}" for letter in letters for kind in ("PER", "LOC")))


def sequences(scheme, count=3000):
    draw = random.Random(str(scheme))
    for _ in range(count):
        yield [draw.choice(names_of(scheme)) for _ in range(draw.randint(0, 7))]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_strict_entities_are_seqevals(scheme):
    read = TagNames(names_of(scheme), scheme)
    for tags in sequences(scheme):
        theirs = {(e.tag, e.start, e.end - 1) for e in Tokens(tags, SCHEMES[scheme][1]).entities}
        assert read.entities(tags, strict=True) == theirs, tags


@pytest.mark.parametrize("scheme", [TagScheme.IOB2, TagScheme.IOBES])
def test_lenient_entities_are_seqevals_default(scheme):
    read = TagNames(names_of(scheme), scheme)
    for tags in sequences(scheme):
        assert read.entities(tags) == set(get_entities(tags)), tags


def test_bilou_reads_as_iobes_does():
    """seqeval's default knows no U and L: in the other scheme's letters it does."""
    read = TagNames(names_of(TagScheme.BILOU), TagScheme.BILOU)
    for tags in sequences(TagScheme.BILOU):
        theirs = get_entities([tag.replace("L-", "E-").replace("U-", "S-") for tag in tags])
        assert read.entities(tags) == set(theirs), tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_written_reads_back(scheme):
    read = TagNames(names_of(scheme), scheme)
    for tags in sequences(scheme, 500):
        entities = read.entities(tags)
        written = read.write(sorted(entities), len(tags))
        assert read.entities(written, strict=True) == entities


def test_iob1_marks_a_beginning_only_behind_its_own_type():
    read = TagNames(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), TagScheme.IOB1)
    tags = ["I-PER", "I-PER", "B-PER", "I-LOC", "O", "I-PER"]
    entities = {("PER", 0, 1), ("PER", 2, 2), ("LOC", 3, 3), ("PER", 5, 5)}
    assert read.entities(tags) == entities
    assert read.entities(tags, strict=True) == entities
    assert read.write(sorted(entities), 6) == tags


def test_types_without_letters_are_runs_of_one_type():
    read = tags_of_data([["PER", "PER", "O", "LOC"], ["O"]])
    assert read.scheme is TagScheme.IO
    assert read.entities(["PER", "PER", "O", "LOC"]) == {("PER", 0, 1), ("LOC", 3, 3)}
    assert read.types == ("LOC", "PER")


def test_other_marks_of_a_model_are_outside():
    read = tags_of_model(("[PAD]", "[CLS]", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
    assert read.scheme is TagScheme.IOB2
    assert read.entities(["[CLS]", "B-PER", "I-PER", "[CLS]", "I-LOC"]) == {
        ("PER", 1, 2),
        ("LOC", 4, 4),
    }


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["B-A", "I-A", "B-A"], ["O", "B-B"]], TagScheme.IOB2),
        ([["I-A", "I-A", "B-A"], ["O", "I-B"]], TagScheme.IOB1),
        ([["I-A", "O"], ["I-B"]], TagScheme.IO),
        ([["S-A", "B-B", "E-B"]], TagScheme.IOBES),
        ([["U-A", "B-B", "L-B"]], TagScheme.BILOU),
        ([["B-A", "O"]], TagScheme.IOB2),
        ([["B-A", "M-A", "E-A"], ["S-A"]], TagScheme.IOBES),
        ([["B-A", "M-A", "E-A"], ["W-A"]], TagScheme.IOBES),
        ([["B", "I", "O", "B"]], TagScheme.IOB2),
        ([["I", "I", "O", "I", "B"]], TagScheme.IOB1),
        ([["NN", "VB"]], TagScheme.IO),
    ],
)
def test_the_scheme_of_data_is_recognised(sentences, scheme):
    assert tags_of_data(sentences).scheme is scheme


def test_a_mixture_of_both_iob_is_not_guessed():
    with pytest.raises(ValueError, match=r"neither IOB1 nor IOB2.*word 2 in sentence 1"):
        tags_of_data([["O", "B-A"], ["O", "I-A"]])


def test_letters_behind_the_type_are_refused():
    with pytest.raises(ValueError, match="behind the type"):
        tags_of_model(("O", "PER-B", "PER-I"))


@pytest.mark.parametrize("letters", ["BMES", "BMEW"])
@pytest.mark.parametrize("strict", [False, True])
def test_bmes_reads_as_iobes_does(letters, strict):
    """Chinese corpora write M- for what others call I-, and some W- for S-."""
    others = dict(zip("BIES", letters, strict=True))
    names = ("O", *(f"{letter}-{kind}" for letter in letters for kind in ("PER", "LOC")))
    read = tags_of_model(names)
    assert read.scheme is TagScheme.IOBES
    assert read.types == ("LOC", "PER")
    plain = TagNames(names_of(TagScheme.IOBES), TagScheme.IOBES)
    for tags in sequences(TagScheme.IOBES, 500):
        spelt = [others.get(tag[0], tag[0]) + tag[1:] for tag in tags]
        entities = plain.entities(tags, strict=strict)
        assert read.entities(spelt, strict=strict) == entities, spelt
        assert read.entities(read.write(sorted(entities), len(tags))) == entities


def test_entities_of_one_type_without_a_name():
    read = tags_of_model(("B", "I", "O"))
    tags = ["B", "I", "B", "O", "I"]
    assert read.entities(tags) == {("_", 0, 1), ("_", 2, 2), ("_", 4, 4)}
    assert read.entities(tags, strict=True) == {("_", 0, 1), ("_", 2, 2)}
    assert read.write([("_", 0, 1), ("_", 2, 2)], 4) == ["B", "I", "B", "O"]


def test_small_letters_before_the_type_are_refused():
    """Read as types of their own, b-per and i-per would part every entity of two words."""
    with pytest.raises(ValueError, match="b-per begin with a small letter"):
        tags_of_data([["b-per", "i-per", "O"]])
    assert tags_of_data([["e-mail", "phone", "O"]]).types == ("e-mail", "phone")


def test_tags_of_a_data_set_that_say_nothing_are_named():
    read = tags_of_data([["B-PER", "I-PER", "O", "MISC", "[CLS]", "X"]])
    assert strange_tags(read) == ("MISC",)
    assert strange_tags(TagNames(("b-per", "O"), TagScheme.IOB2)) == ("b-per",)
    assert strange_tags(tags_of_data([["PER", "MISC", "O"]])) == ()


def test_marks_beside_the_tags_of_one_type_do_not_hide_the_scheme():
    read = tags_of_model(("[PAD]", "[CLS]", "[SEP]", "X", "O", "B-Disease", "I-Disease"))
    assert (read.scheme, read.types) == (TagScheme.IOB2, ("Disease",))
    assert tags_of_data([["NOUN", "X", "OTHER"]]).types == ("NOUN", "OTHER", "X")


def test_a_type_without_a_beginning_makes_a_model_s_tags_iob1():
    # xlm-roberta-large-finetuned-conll03-english: no person of its data follows another at once.
    names = ("B-LOC", "B-MISC", "B-ORG", "I-LOC", "I-MISC", "I-ORG", "I-PER", "O")
    read = tags_of_model(names)
    assert read.scheme is TagScheme.IOB1
    assert read.write([("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4)], 5) == [
        "I-PER", "I-PER", "O", "I-LOC", "B-LOC",
    ]  # fmt: skip


def test_a_tag_that_a_model_lacks_is_written_as_what_it_cannot_answer():
    read = tags_of_model(("O", "B-PER", "I-PER", "B-LOC"))
    assert read.scheme is TagScheme.IOB2
    assert read.write([("LOC", 0, 1)], 2) == ["B-LOC", "I-LOC"]
