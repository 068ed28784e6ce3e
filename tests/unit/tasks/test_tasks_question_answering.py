"""SQuAD-like data in the forms that people have it in, and contexts cut into windows."""

import csv
import json

import pytest
from tiny_models import make_question_answerer
from transformers import AutoTokenizer

from harness.errors import DataError
from harness.study import CsvData, JsonLinesData, QuestionAnswering
from harness.tasks.loading import encode, load_samples
from harness.tasks.registry import family_of

MASKED = ("input_ids", "attention_mask")
WORDS = "the quick brown fox jumps over the lazy dog " * 4
ROWS = [
    {"question": "who jumps", "context": "a quick fox jumps", "answers": ["quick fox", "fox"]},
    {"question": "over whom", "context": WORDS, "answers": "lazy dog"},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_question_answerer(tmp_path_factory.mktemp("qa") / "bert")


def task_of(path, **changes):
    kind = CsvData(source="csv", path=path)
    if path.suffix == ".jsonl":
        kind = JsonLinesData(source="jsonl", path=path)
    settings = {"max_length": 24, "doc_stride": 6, "max_answer_length": 5} | changes
    return QuestionAnswering(kind="question-answering", data=kind, **settings)


def loaded(path, rows, **changes):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = task_of(path, **changes)
    return task, load_samples(task, seed=1, label_names=None)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("fox", ("fox",)),
        (["fox", "a fox"], ("fox", "a fox")),
        ({"text": ["fox"], "answer_start": [2]}, ("fox",)),
        ('{"text": ["fox"], "answer_start": [2]}', ("fox",)),
        ('["fox"]', ("fox",)),
        ("['fox', \"a fox's\"]", ("fox", "a fox's")),
        ("{'text': ['fox'], 'answer_start': [2]}", ("fox",)),
        ({"text": "fox"}, ("fox",)),
        (["", "fox", " "], ("fox",)),
        ({"text": ["fox", ""], "answer_start": [2, -1]}, ("fox",)),
    ],
)
def test_answers_are_read_in_each_form(tmp_path, written, read):
    row = {"question": "who", "context": "a fox", "answers": written}
    _, samples = loaded(tmp_path / "rows.jsonl", [row])
    assert samples.answers == (read,)


def test_a_csv_with_own_column_names_is_read(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["q", "passage", "gold"])
        writer.writerow(["who", "a [fox] jumps", "[fox] jumps"])
        writer.writerow(["who", "a fox jumps", json.dumps({"text": ["fox"]})])
    task = task_of(path, question="q", context="passage", answers="gold")
    samples = load_samples(task, seed=1, label_names=None)
    assert samples.texts == ("who", "who")
    assert samples.answers == (("[fox] jumps",), ("fox",))


@pytest.mark.parametrize(
    ("row", "told", "step"),
    [
        ({"answers": 3}, "line 2: 'answers' is not an answer: 3", "SQuAD"),
        ({"answers": "['fox' 'a fox']"}, "line 2: 'answers' is not an answer", "as JSON"),
        ({"answers": "{'text': array(['fox'])}"}, "line 2: 'answers' is not an", "as JSON"),
        ({"answers": []}, "line 2: the question has no answer", "unanswerable: true"),
        ({"answers": [""]}, "line 2: the question has no answer", "unanswerable: true"),
        ({"context": None}, "line 2: 'context' is missing", ""),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, row, told, step):
    with pytest.raises(DataError) as caught:
        loaded(tmp_path / "rows.jsonl", [ROWS[0], ROWS[0] | row])
    assert told in str(caught.value)
    assert step in caught.value.next_step


def test_a_file_without_the_named_column_says_which_it_has(tmp_path):
    with pytest.raises(DataError, match=r"no column 'passage' \(the task's 'context'\)") as caught:
        loaded(tmp_path / "rows.jsonl", ROWS, context="passage")
    assert "question, context, answers" in caught.value.next_step


def test_an_empty_split_and_mixed_up_columns_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no samples"):
        loaded(tmp_path / "rows.jsonl", [])
    with pytest.raises(DataError, match="no answer of any row occurs in its context"):
        loaded(tmp_path / "rows.jsonl", ROWS, context="question", question="context")


def test_unanswerable_questions_are_read_where_the_study_says_so(tmp_path):
    rows = [ROWS[0], ROWS[0] | {"answers": {"text": [], "answer_start": []}}]
    _, samples = loaded(tmp_path / "rows.jsonl", rows, unanswerable=True)
    assert samples.answers == (("quick fox", "fox"), ())


def test_a_long_context_is_windowed_with_its_stride_and_counted(tmp_path, checkpoint):
    task, samples = loaded(tmp_path / "rows.jsonl", ROWS)
    encoded = encode(task, samples, checkpoint)
    questions = encoded.questions
    assert (encoded.samples, questions.windowed) == (2, 1)
    assert encoded.size == len(questions.of_window) > 2
    assert questions.of_window.tolist() == sorted(questions.of_window.tolist())
    (group,) = encoded.groups
    assert group.length == 24
    assert list(group.inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    covered = [set(), set()]
    shared = []
    for row in range(encoded.size):
        context = group.context[row]
        assert (group.inputs["token_type_ids"][row][context] == 1).all()
        offsets = questions.offsets[row][context[: len(questions.offsets[row])]]
        characters = {c for start, end in offsets for c in range(start, end)}
        own = covered[questions.of_window[row]]
        shared.append(len([o for o in offsets.tolist() if set(range(*o)) <= own]))
        own |= characters
    wanted = [{i for i, c in enumerate(row["context"]) if not c.isspace()} for row in ROWS]
    assert covered == wanted
    # Neighbours share the stride; the last window of all starts where that leaves it.
    assert set(shared[2:]) == {6}


@pytest.mark.parametrize("context_first", [False, True])
def test_the_library_s_own_call_makes_the_tokens_that_are_sent(tmp_path, checkpoint, context_first):
    """Of a context in several windows, those of the first."""
    task, samples = loaded(tmp_path / "rows.jsonl", ROWS, context_first=context_first)
    dataset = encode(task, samples, checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    sent = {
        window: ids[mask == 1].tolist()
        for group in dataset.groups
        for window, ids, mask in zip(group.rows, *map(group.inputs.get, MASKED), strict=True)
    }
    for number, (question, context) in enumerate(zip(samples.texts, samples.pairs, strict=True)):
        window = dataset.questions.of_window.tolist().index(number)
        bare = family_of(task).bare_tokens(task, tokenizer, question, context)
        assert sent[window] == bare["input_ids"]


def test_a_question_that_leaves_no_room_is_refused(tmp_path, checkpoint):
    task, samples = loaded(tmp_path / "rows.jsonl", [ROWS[1] | {"question": WORDS}])
    with pytest.raises(
        DataError, match=r"1 of 1 questions leave no room .* max_length 24"
    ) as caught:
        encode(task, samples, checkpoint)
    assert "doc_stride" in caught.value.next_step


def test_a_stride_as_long_as_the_window_is_refused(tmp_path):
    with pytest.raises(ValueError, match="doc_stride is 24 and max_length 24"):
        loaded(tmp_path / "rows.jsonl", ROWS, doc_stride=24)
