import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.study import CausalLanguageModelling, SequenceClassification
from harness.tasks.classification.rows import LabelledSamples
from harness.tasks.loading import load_samples, load_training_samples

LABELS = ("code", "prose")


def classification(source, path, **changes):
    return SequenceClassification.model_validate(
        {
            "kind": "sequence-classification",
            "data": {"source": source, "path": str(path)},
            **changes,
        }
    )


def language(path, **changes):
    return CausalLanguageModelling.model_validate(
        {"kind": "causal-lm", "data": {"source": "jsonl", "path": str(path)}, **changes}
    )


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_jsonl(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def load(task, labels=LABELS, seed=0):
    return load_samples(task, seed=seed, label_names=labels)


def refusal(task, labels=LABELS):
    with pytest.raises(DataError) as caught:
        load(task, labels)
    return f"{caught.value}\n{caught.value.next_step}"


def test_csv_keeps_every_text_as_it_was_written(tmp_path):
    rows = [("NA", "code"), ("1e5", "prose"), ('two\nlines, "quoted"', "0"), ("", "1")]
    samples = load(classification("csv", write_csv(tmp_path / "d.csv", rows)))
    assert samples.texts == ("NA", "1e5", 'two\nlines, "quoted"', "")
    assert samples.labels == (0, 1, 0, 1)
    assert samples.label_names == LABELS
    assert samples.pairs is None


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\na,code\n")
    assert load(classification("csv", path)).texts == ("a",)


def test_half_a_character_is_refused_wherever_it_stands(tmp_path):
    """A cut emoji, as JSON may hold it, and no file of a run."""
    half = {"text": "a", "label": "code", "source": "web \ud83d"}
    path = write_jsonl(tmp_path / "d.jsonl", [half, {**half, "source": "web"}])
    task = classification("jsonl", path, slices=["source"])
    assert "line 1: 'source' holds half a surrogate pair" in refusal(task)
    path = write_jsonl(tmp_path / "e.jsonl", [{"text": "a", "label": "code \ud83d"}])
    assert "the data holds half a surrogate pair" in refusal(classification("jsonl", path), None)


def test_a_row_without_its_label_is_a_text_where_the_classes_are_not_known(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": "a", "label": "code"}, {"text": "b"}])
    assert load(classification("jsonl", path), labels=None).texts == ("a", "b")


def test_json_lines_with_pairs_and_labels_as_names_or_indexes(tmp_path):
    rows = [
        {"premise": "a\u2028b", "hypothesis": "c", "gold": "prose"},
        {"premise": "d", "hypothesis": "e", "gold": 0},
    ]
    task = classification(
        "jsonl",
        write_jsonl(tmp_path / "d.jsonl", rows),
        text="premise",
        text_pair="hypothesis",
        label="gold",
    )
    samples = load(task)
    assert samples.texts == ("a\u2028b", "d")
    assert samples.pairs == ("c", "e")
    assert samples.labels == (1, 0)


def test_a_missing_column_lists_those_that_are_there(tmp_path):
    path = write_csv(tmp_path / "d.csv", [("a", "b", "0")], ("sentence", "other", "gold"))
    text = refusal(classification("csv", path, text_pair="second"))
    assert "no column 'text'" in text
    assert "no column 'second'" in text
    assert "no column 'label'" in text
    assert "its columns are: sentence, other, gold" in text


def test_unknown_labels_are_said_once_with_the_model_the_first_line_and_both_lists(tmp_path):
    rows = [("a", "code"), ("two\nlines", "verse"), *((f"t{n}", "drama") for n in range(100))]
    path = write_csv(tmp_path / "d.csv", rows)
    with pytest.raises(DataError) as caught:
        load_samples(classification("csv", path), seed=0, label_names=LABELS, model="tiny-student")
    assert str(caught.value).startswith(f"{path}: labels do not match ")
    assert "the classes of tiny-student" in str(caught.value)
    assert "the data's are [code, drama, verse], the checkpoint's are [code, prose]" in str(
        caught.value
    )
    assert 'the label of 101 of 102 rows is none of them, the first line 3: "verse"' in str(
        caught.value
    )
    assert "set the task's 'labels'" in caught.value.next_step


def test_rows_without_a_label_are_counted_with_the_first_of_them(tmp_path):
    rows = [{"text": "a", "label": "code"}, {"text": "b", "label": None}, {"text": "c"}]
    text = refusal(classification("jsonl", write_jsonl(tmp_path / "d.jsonl", rows)))
    assert "2 of 3 rows have no label, the first line 2: null" in text


def test_twelve_classes_called_by_numbers_are_read_alike_from_csv_and_json_lines(tmp_path):
    names = tuple(sorted(map(str, range(12))))
    numbers = [(7 * row) % 12 for row in range(60)]
    texts = [f"text {row}" for row in range(60)]
    csv_file = write_csv(tmp_path / "d.csv", list(zip(texts, numbers, strict=True)))
    right = tuple(names.index(str(number)) for number in numbers)
    assert load(classification("csv", csv_file), names).labels == right
    for kind in (int, str, float):
        rows = [{"text": t, "label": kind(n)} for t, n in zip(texts, numbers, strict=True)]
        path = write_jsonl(tmp_path / "d.jsonl", rows)
        assert load(classification("jsonl", path), names).labels == right


def test_the_rows_that_are_not_drawn_count_for_the_reading_too(tmp_path):
    rows = [("a", "5"), *((f"t{n}", "1") for n in range(200))]
    path = write_csv(tmp_path / "d.csv", rows)
    drawn = load(classification("csv", path, samples=3), ("1", "2", "3", "4", "5"))
    assert drawn.labels == (0, 0, 0)


def test_training_data_are_read_as_the_data_are(tmp_path):
    stars = ("1", "2", "3", "4", "5")
    test = write_jsonl(tmp_path / "d.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 4}])
    train = write_jsonl(tmp_path / "t.jsonl", [{"text": "c", "label": 1}])
    training = {"source": "jsonl", "path": str(train)}
    task = classification("jsonl", test, training_data=training)
    read = load(task, stars)
    found = load_training_samples(task, label_names=stars, like=read.reader)
    assert (read.labels, found.labels) == ((0, 4), (1,))


def test_an_unlabelled_split_is_recognised(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": "a", "label": -1}])
    assert "unlabelled split" in refusal(classification("jsonl", path))


def test_the_studys_labels_must_be_the_checkpoints(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": "a", "label": 0}])
    text = refusal(classification("jsonl", path, labels=["pos", "neg"]))
    assert "[pos, neg]" in text
    assert "[code, prose]" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no samples"),
        (b"\n\n", "no samples"),
        (b'{"text": "a", "label": 0}\n{"text": "b"\n', "line 2: not JSON"),
        (b'{"text": "a", "label": 0}\n[1]\n', "line 2: not a JSON object"),
        (b'{"text": "a", "label": 0}\n{"label": 0}\n', "line 2: 'text' is missing"),
        (b'\n{"text": 7, "label": 0}\n', "line 2: 'text' is not text but 7"),
        (b'{"text": "\\ud800", "label": 0}\n', "half a surrogate pair"),
        (b'{"text": "a", "label": 0}\n{"text": "caf\xe9"}\n', "line 2: not UTF-8 (byte 0xe9)"),
        (b'{"text": " ", "label": 0}\n', "every 'text' is empty"),
    ],
)
def test_malformed_json_lines(tmp_path, content, words):
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    assert words in refusal(classification("jsonl", path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no samples"),
        (b"text,label\n", "no samples"),
        (b"text,label\na,code\nb\n", "line 3: 1 fields where the header has 2"),
        (b"text,label\na,code,x\n", "line 2: 3 fields where the header has 2"),
        (
            b'text,label\na,code\n"b,prose\n',
            "line 3: a quote that is opened in this row is never closed",
        ),
        (b"text,text\na,b\n", "repeated columns: text"),
        (b"text,label\na,code\n\xff,prose\n", "line 3: not UTF-8 (byte 0xff)"),
    ],
)
def test_malformed_csv(tmp_path, content, words):
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    assert words in refusal(classification("csv", path))


def test_reference_data_needs_its_file(tmp_path):
    task = SequenceClassification.model_validate(
        {"kind": "sequence-classification", "data": {"source": "reference", "name": "topics"}}
    )
    with pytest.raises(DataError, match="has not been made yet"):
        load(task)
    path = write_jsonl(tmp_path / "topics.jsonl", [{"text": "a", "label": "prose"}])
    samples = load_samples(task, seed=0, label_names=LABELS, data_file=path)
    assert samples.labels == (1,)


def test_a_draw_is_seeded_without_repeats_and_in_order(tmp_path):
    rows = [(f"t{n}", str(n % 2)) for n in range(50)]
    path = write_csv(tmp_path / "d.csv", rows)
    first = load(classification("csv", path, samples=20), seed=3)
    again = load(classification("csv", path, samples=20), seed=3)
    other = load(classification("csv", path, samples=20), seed=4)
    assert first == again
    assert first.rows != other.rows
    assert len(set(first.rows)) == 20
    assert list(first.rows) == sorted(first.rows)
    assert first.texts == tuple(f"t{row}" for row in first.rows)
    assert first.labels == tuple(row % 2 for row in first.rows)
    assert load(classification("csv", path, samples=50)).rows == tuple(range(50))


def test_the_digest_is_the_datas_not_the_checkpoints(tmp_path):
    path = write_csv(tmp_path / "d.csv", [("a", "code"), ("b", "prose")])
    task = classification("csv", path)
    one, other = load(task, ("code", "prose")), load(task, ("prose", "code"))
    assert one.labels != other.labels
    assert one.digest == other.digest
    path = write_csv(tmp_path / "e.csv", [("a", "code"), ("b", "code")])
    assert load(classification("csv", path)).digest != one.digest


def test_running_text_needs_no_labels(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": "a"}, {"text": ""}, {"text": "c"}])
    samples = load_samples(language(path, samples=1), seed=0, label_names=None)
    assert samples.texts == ("a", "", "c")
    assert not isinstance(samples, LabelledSamples)


@given(rows=st.lists(st.tuples(st.text(max_size=20), st.integers(0, 1)), min_size=1, max_size=8))
def test_csv_and_json_lines_give_back_what_was_written(tmp_path_factory, rows):
    texts = [text for text, _ in rows]
    if not any(text.strip() for text in texts):
        texts[0] = "x"
    # A carriage return or NUL alone is outside what CSV can hold.
    texts = [text.replace("\r", " ").replace("\0", " ") for text in texts]
    folder = tmp_path_factory.mktemp("data")
    pairs = [(text, str(label)) for text, (_, label) in zip(texts, rows, strict=True)]
    from_csv = load(classification("csv", write_csv(folder / "d.csv", pairs)))
    dicts = [{"text": text, "label": int(label)} for text, label in pairs]
    from_json = load(classification("jsonl", write_jsonl(folder / "d.jsonl", dicts)))
    assert from_csv.texts == from_json.texts == tuple(texts)
    assert from_csv.labels == from_json.labels
