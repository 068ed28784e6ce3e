"""harness init: what it finds in checkpoints and data, and what it refuses in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

from harness.cli.study_file import Corrections
from harness.errors import UsageError
from harness.flow.first_study.asked import FirstStudy
from harness.flow.first_study.checkpoints import distinct_names
from harness.flow.first_study.task import length_words
from harness.flow.first_study.write import write_first_study
from harness.flow.input_checks import check_inputs
from harness.study import Study
from harness.study.file import load_study
from harness.types import Precision, Role
from harness.words.numbers import number
from tests.local_study import question_rows, scored_pairs, tagged_rows
from tests.tiny_models import (
    LINES,
    make_classifier,
    make_language_model,
    make_question_answerer,
    make_sentence_encoder,
    make_token_classifier,
)

LABELS = ("code", "prose", "other")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier, a larger one, one without names, a language model."""
    folder = tmp_path_factory.mktemp("models")
    make_classifier(folder / "Tiny_Student", LABELS, seed=1)
    make_classifier(folder / "large", LABELS, seed=2, max_positions=512)
    make_classifier(folder / "unnamed", None, seed=3)
    make_language_model(folder / "lm", seed=4)
    make_question_answerer(folder / "qa", seed=5)
    make_token_classifier(folder / "tagger", seed=6)
    make_sentence_encoder(folder / "encoder", seed=7)
    make_sentence_encoder(folder / "headless", pooling=None, seed=8)
    return folder


def rows(folder: Path, *columns: str, count: int = 60) -> Path:
    """A CSV file: a text in the first column, a class in the last, a number in those between."""
    path = folder / "test.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number in range(count):
            between = [number] * (len(columns) - 2)
            writer.writerow([f"{LINES[number % 6]} {number}", *between, LABELS[number % 3]])
    return path


def written(folder: Path, data: Path, *checkpoints: Path, **said) -> tuple[Study, str]:
    asked = FirstStudy(tuple(map(str, checkpoints)), data, folder / "study.yaml", **said)
    study, text = write_first_study(asked)
    assert asked.out.read_text(encoding="utf-8") == text
    assert load_study(asked.out) == study
    check_inputs(study)
    return study, text


def test_a_study_of_two_classifiers_is_found_whole(models, tmp_path):
    data = rows(tmp_path, "sentence", "number", "kind")

    study, text = written(tmp_path, data, models / "Tiny_Student", models / "large")

    (family,) = study.families
    assert (family.task.kind, family.task.text, family.task.label) == (
        "sequence-classification",
        "sentence",
        "kind",
    )
    assert [(one.name, one.role) for one in family.models] == [
        ("large", Role.TEACHER),
        ("tiny_student", Role.STUDENT),
    ]
    assert family.models[1].precisions == [Precision.FP32, Precision.INT8]
    assert study.objective_of(study.families[0]).text == "p95 < 50 ms, accuracy >= 90% of teacher"
    assert family.task.max_length == 32  # of 18 tokens at most, as the tokenizer counts them
    assert "# code 20, prose 20, other 20" in text
    assert "the longest" in text
    assert "60 rows" in text


def test_odd_names_are_found_by_what_the_columns_hold(models, tmp_path):
    data = rows(tmp_path, "utterance", "number", "y")
    study, _ = written(tmp_path, data, models / "large")
    task = study.families[0].task
    assert (task.text, task.label) == ("utterance", "y")


def test_two_texts_are_a_pair_by_their_names(models, tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"premise": LINES[number % 6], "hypothesis": LINES[0], "label": number % 3}
        for number in range(30)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    study, _ = written(tmp_path, path, models / "large")
    task = study.families[0].task
    assert (task.text, task.text_pair, task.data.source) == ("premise", "hypothesis", "jsonl")


def test_what_a_person_says_is_taken(models, tmp_path):
    data = rows(tmp_path, "title", "sentence", "kind")
    study, _ = written(
        tmp_path,
        data,
        models / "Tiny_Student",
        models / "large",
        teacher="tiny_student",
        columns={"text": "title"},
        objective="p99 < 20 ms",
    )
    assert study.families[0].teacher.name == "tiny_student"
    assert study.families[0].task.text == "title"
    assert study.objective_of(study.families[0]).text == "p99 < 20 ms"


def test_classes_without_names_need_them_said(models, tmp_path):
    data = rows(tmp_path, "sentence", "kind")
    with pytest.raises(UsageError, match="labels do not match the classes of unnamed") as caught:
        written(tmp_path, data, models / "unnamed")
    assert "--labels" in caught.value.next_step
    assert "\n" not in str(caught.value)
    study, _ = written(tmp_path, data, models / "unnamed", labels=LABELS)
    assert study.families[0].task.labels == list(LABELS)


@pytest.mark.parametrize(("model", "metric"), [("lm", "perplexity <= 1.1x"), ("qa", "exact_match")])
def test_other_kinds_of_task_have_their_own_columns_and_objective(models, tmp_path, model, metric):
    path = tmp_path / "rows.jsonl"
    lines = question_rows() if model == "qa" else [{"text": f"{one} again"} for one in LINES]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    study, _ = written(tmp_path, path, models / model)
    assert metric in study.objective_of(study.families[0]).text
    assert study.families[0].task.max_length == 64  # the model's positions


@pytest.mark.parametrize("answer", ["reference", "response"])
def test_prompts_with_answers_are_gone_on_with(models, tmp_path, answer):
    """A language model's text of a column alone would only be asked how probable it is."""
    data = lines_of(
        tmp_path / "test.jsonl", [{"prompt": f"the dog {n}", answer: "runs"} for n in range(9)]
    )
    study, text = written(tmp_path, data, models / "lm")
    task = study.families[0].task
    assert (task.kind, task.prompt, task.reference) == ("generation", "prompt", answer)
    assert "objective: ttft p95 < 200 ms, itl p99 < 50 ms, perplexity <= 1.1x teacher" in text
    (tmp_path / "plain").mkdir()
    plain, _ = written(tmp_path / "plain", data, models / "lm", columns={"text": "prompt"})
    assert plain.families[0].task.kind == "causal-lm"


def test_nothing_is_overwritten(models, tmp_path):
    data = rows(tmp_path, "sentence", "kind")
    (tmp_path / "study.yaml").write_text("mine")
    with pytest.raises(UsageError, match="is there already, and nothing is overwritten"):
        written(tmp_path, data, models / "large")
    assert (tmp_path / "study.yaml").read_text() == "mine"


def test_the_first_problem_is_one_line_with_the_next_step(models, tmp_path):
    data = rows(tmp_path, "sentence", "kind")
    cases = [
        ((models / "large", models / "lm"), {}, "a family of models has one task"),
        ((models / "large",), {"teacher": "other"}, "the teacher other is none of the checkpoints"),
        ((models / "large",), {"columns": {"label": "absent"}}, "the data has no such column"),
        ((models / "large",), {"columns": {"answer": "kind"}}, "the task has no such key"),
        ((models / "qa",), {}, "it is not clear which column is the task's 'question'"),
        ((models / "large",), {"objective": "speed < 5"}, "unknown metric 'speed'"),
        ((models / "large",), {"objective": "p95 < 5 min"}, "not measured in 'min'; expected us"),
        ((models / "absent",), {}, "no such folder: .*absent"),
        ((models,), {}, r"no checkpoint there: .*models\d+ has no config.json"),
        ((data,), {}, "test.csv is a file, and a checkpoint is a folder"),
    ]
    for checkpoints, said, problem in cases:
        with pytest.raises(UsageError, match=problem) as caught:
            written(tmp_path, data, *checkpoints, **said)
        assert caught.value.exit_code == 2
        assert caught.value.next_step
        assert len(str(caught.value).splitlines()) == 1
        assert not (tmp_path / "study.yaml").exists()


def test_a_misspelt_folder_is_told_with_the_one_that_is_there(models, tmp_path, monkeypatch):
    """A name without a slash may be one of the hub's, so the hub is asked before it is refused."""
    data = rows(tmp_path, "sentence", "kind")
    monkeypatch.chdir(models)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"no folder larg is here \(hub model larg:") as no:
        write_first_study(FirstStudy(("larg", "Tiny_Student"), data, tmp_path / "study.yaml"))
    assert no.value.next_step == "did you mean large?"


def test_checkpoints_of_two_kinds_are_named_as_they_were_given(models, tmp_path, monkeypatch):
    data = rows(tmp_path, "sentence", "kind")
    monkeypatch.chdir(models)
    told = "^tagger does token-classification, and large does sequence-classification: "
    with pytest.raises(UsageError, match=told):
        write_first_study(FirstStudy(("large", "tagger"), data, tmp_path / "study.yaml"))


def test_numbers_are_no_text(models, tmp_path):
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n2,1\n")
    with pytest.raises(UsageError, match="it is not clear which column is the task's 'text'"):
        written(tmp_path, tmp_path / "numbers.csv", models / "large")


def test_checkpoints_of_one_name_get_two(models, tmp_path):
    other = make_classifier(tmp_path / "more" / "large", LABELS, seed=7)
    study, text = written(tmp_path, rows(tmp_path, "sentence", "kind"), models / "large", other)
    assert [one.name for one in study.families[0].models] == ["large", "large-2"]
    assert yaml.safe_load(text)["families"][0]["models"][1]["checkpoint"] == "./more/large"


def test_so_many_texts_have_at_most_so_many_tokens():
    words = length_words(np.arange(1, 11), 8)
    assert words.startswith("half have at most 5 tokens, 95% at most 10, the longest 10; 2 of 10")


def test_a_number_that_a_checkpoint_has_in_its_name_is_not_given_again():
    assert distinct_names(["student", "student", "student-2"]) == [
        "student",
        "student-3",
        "student-2",
    ]


def test_a_name_that_yaml_takes_for_a_number_stays_a_name(models, tmp_path):
    other = make_classifier(tmp_path / "1024", LABELS, seed=7)
    data = rows(tmp_path, "sentence", "kind").rename(tmp_path / "2024.csv")
    study, _ = written(tmp_path, data, models / "large", other)
    assert (study.name, study.families[0].name) == ("2024", "2024")
    assert [one.name for one in study.families[0].models] == ["large", "1024"]


@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_a_file_that_is_not_separated_by_commas_says_how_to_convert_it(
    models, tmp_path, monkeypatch, separator
):
    path = tmp_path / "test.csv"
    lines = [f"a line, the {number}th{separator}{LABELS[number % 3]}" for number in range(9)]
    path.write_text("\n".join([f"text{separator}kind", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="the columns are separated by") as caught:
        written(tmp_path, path, models / "large")
    _, step = caught.value.next_step.split(": ", 1)
    monkeypatch.chdir(tmp_path)
    exec(step.removeprefix('python -c "').removesuffix('"'), {})
    study, _ = written(tmp_path, tmp_path / "test-commas.csv", models / "large")
    assert (study.families[0].task.text, study.families[0].task.label) == ("text", "kind")


def test_a_row_is_not_taken_for_the_names_of_the_columns(models, tmp_path):
    path = rows(tmp_path, "sentence", "kind")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]), encoding="utf-8")
    with pytest.raises(UsageError, match="'code' there is also a value of its column"):
        written(tmp_path, path, models / "large")


def test_the_numbers_of_a_regression_are_found(tmp_path):
    make_classifier(tmp_path / "model", ("score",), seed=9, problem_type="regression")
    path = tmp_path / "rated.csv"
    lines = [f"{number},line {number},{number / 4}" for number in range(12)]
    path.write_text("\n".join(["id,sentence,rating", *lines]) + "\n", encoding="utf-8")
    study, _ = written(tmp_path, path, tmp_path / "model")
    assert (study.families[0].task.kind, study.families[0].task.label) == ("regression", "rating")


def test_a_column_for_each_label_is_found(tmp_path):
    kind = "multi_label_classification"
    make_classifier(tmp_path / "model", LABELS, seed=9, problem_type=kind)
    path = tmp_path / "tagged.csv"
    lines = [f"line {number},{number % 2},{1 - number % 2},0" for number in range(12)]
    path.write_text("\n".join(["text,code,prose,other", *lines]) + "\n", encoding="utf-8")
    study, text = written(tmp_path, path, tmp_path / "model")
    assert study.families[0].task.label_columns == list(LABELS)
    assert "label:" not in text


def test_a_column_of_several_labels_is_found_by_the_names_that_it_holds(tmp_path):
    kind = "multi_label_classification"
    make_classifier(tmp_path / "model", LABELS, seed=9, problem_type=kind)
    path = tmp_path / "tagged.csv"
    cells = ['"code, prose"', "", "other", "prose"]
    lines = [f"line {number},x,{cells[number % 4]}" for number in range(12)]
    path.write_text("\n".join(["comment,by,about", *lines]) + "\n", encoding="utf-8")
    study, text = written(tmp_path, path, tmp_path / "model")
    assert study.families[0].task.label == "about"
    assert "code + prose 3" in text


def test_another_separator_of_labels_is_asked_for_and_taken(tmp_path):
    kind = "multi_label_classification"
    make_classifier(tmp_path / "model", LABELS, seed=9, problem_type=kind)
    path = tmp_path / "tagged.csv"
    cells = ["code | prose", "", "other", "prose"]
    lines = [f"line {number},{cells[number % 4]}" for number in range(12)]
    path.write_text("\n".join(["text,labels", *lines]) + "\n", encoding="utf-8")

    assert "--set separator='|'" in refused(tmp_path, path, tmp_path / "model").next_step
    said = Corrections(settings=["separator=|"]).first_study([], path, tmp_path).settings
    study, _ = written(tmp_path, path, tmp_path / "model", settings=said)
    assert study.families[0].task.separator == "|"


@pytest.mark.parametrize(
    ("given", "value"),
    [("|", "|"), (",", ","), ("#", "#"), ("0.3", 0.3), ("true", True), ("[a, b]", ["a", "b"]),
     ("null", None)],
)  # fmt: skip
def test_a_setting_is_read_as_in_the_file_and_a_sign_is_itself(tmp_path, given, value):
    found = Corrections(settings=[f"key={given}"]).first_study([], tmp_path, tmp_path)
    assert found.settings == {"key": value}


def lines_of(path: Path, rows_of_it: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows_of_it), encoding="utf-8")
    return path


def refused(folder: Path, data: Path, *checkpoints: Path, **said) -> UsageError:
    with pytest.raises(UsageError) as caught:
        written(folder, data, *checkpoints, **said)
    assert not (folder / "study.yaml").exists()
    return caught.value


def test_words_and_tags_are_found_by_their_names(models, tmp_path):
    study, text = written(
        tmp_path, lines_of(tmp_path / "ner.jsonl", tagged_rows()), models / "tagger"
    )
    task = study.families[0].task
    assert (task.kind, task.tokens, task.tags) == ("token-classification", "tokens", "ner_tags")
    assert "entity_f1 >= 90% of teacher" in text
    assert "PER 71, LOC 62" in text  # counted by hand from the rows' B- tags
    tokenizer = AutoTokenizer.from_pretrained(models / "tagger")
    sizes = [
        len(tokenizer(row["tokens"], is_split_into_words=True)["input_ids"])
        for row in tagged_rows()
    ]
    assert f"half have at most {int(np.median(sizes))} tokens" in text
    assert f"the longest {max(sizes)}" in text


def test_words_and_tags_are_found_by_what_they_hold(models, tmp_path):
    """Parts of speech are lists of texts as well, and chunks are spelled as entities are."""
    odd = [
        {
            "pos": ["NN"] * len(row["tokens"]),
            "chunks": ["B-NP"] * len(row["tokens"]),
            "w": row["tokens"],
            "e": row["ner_tags"],
        }
        for row in tagged_rows()
    ]
    study, _ = written(tmp_path, lines_of(tmp_path / "ner.jsonl", odd), models / "tagger")
    assert (study.families[0].task.tokens, study.families[0].task.tags) == ("w", "e")


@pytest.mark.parametrize(
    ("name", "above"),
    [
        ("test.conll", ""),
        ("test.txt", ""),
        ("eng.testb", "-DOCSTART- O\n\n"),
        ("rows", "\ufeff# id 1\n"),
    ],
)
def test_a_file_of_conll_needs_nothing_said(models, tmp_path, name, above):
    sentences = [
        "\n".join(f"{word} {tag}" for word, tag in zip(row["tokens"], row["ner_tags"], strict=True))
        for row in tagged_rows()
    ]
    path = tmp_path / name
    path.write_text(above + "\n\n".join(sentences) + "\n", encoding="utf-8")
    study, _ = written(tmp_path, path, models / "tagger")
    assert study.families[0].task.data.source == "conll"


def test_running_text_has_no_tags(models, tmp_path):
    data = lines_of(tmp_path / "rows.jsonl", [{"text": one, "y": 1} for one in LINES])
    error = refused(tmp_path, data, models / "tagger")
    assert "no column holds a sentence's words with one of as many tags" in str(error)
    assert "--column tokens=COLUMN --column tags=COLUMN" in error.next_step


def test_pairs_with_a_score_are_found(models, tmp_path):
    pairs = [
        {"sentence1": one["text"], "sentence2": one["text_pair"], "mark": one["score"]}
        for one in scored_pairs()
    ]
    study, text = written(tmp_path, lines_of(tmp_path / "sts.jsonl", pairs), models / "encoder")
    task = study.families[0].task
    assert (task.text, task.text_pair, task.score) == ("sentence1", "sentence2", "mark")
    assert "sts_spearman >= 90% of teacher" in text
    low, high = (pick(one["mark"] for one in pairs) for pick in (min, max))
    assert f"from {number(low)} to {number(high)}" in text


def test_the_only_two_texts_beside_a_score_are_a_pair_whatever_they_are_called(models, tmp_path):
    pairs = [
        {"id": f"n{place}", "s1": one["text"], "s2": one["text_pair"], "score": one["score"]}
        for place, one in enumerate(scored_pairs())
    ]
    study, _ = written(tmp_path, lines_of(tmp_path / "sts.jsonl", pairs), models / "encoder")
    task = study.families[0].task
    assert (task.text, task.text_pair, task.score) == ("s1", "s2", "score")


def test_pairs_without_a_score_are_asked_about(models, tmp_path):
    pairs = [{"sentence1": one, "sentence2": one[::-1], "who": "me"} for one in LINES]
    data = lines_of(tmp_path / "sts.jsonl", pairs)
    error = refused(tmp_path, data, models / "encoder")
    assert "no column holds numbers" in str(error)
    assert "--column score=COLUMN" in error.next_step
    study, text = written(tmp_path, data, models / "encoder", columns={"text": "sentence1"})
    assert study.objective.text == "p95 < 50 ms"
    assert "No metric of quality is among it" in text


def test_a_folder_with_a_retrieval_set_is_taken_whole(models, tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    lines_of(folder / "corpus.jsonl", [{"_id": f"d{n}", "text": t} for n, t in enumerate(LINES)])
    lines_of(folder / "queries.jsonl", [{"_id": "q", "text": "which line"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    study, text = written(tmp_path, folder, models / "encoder")
    retrieval = study.families[0].task.retrieval
    assert (retrieval.corpus, retrieval.queries) == (
        folder / "corpus.jsonl", folder / "queries.jsonl",
    )  # fmt: skip
    assert retrieval.relevance == folder / "qrels" / "test.tsv"
    assert "ndcg_at_10 >= 90% of teacher" in text
    assert yaml.safe_load(text)["name"] == "beir"
    other = tmp_path / "other"
    other.mkdir()
    error = refused(other, folder, models / "tagger")
    assert "--data FILE" in error.next_step


def test_pooling_that_no_file_tells_is_asked_for(models, tmp_path):
    data = lines_of(tmp_path / "sts.jsonl", scored_pairs())
    error = refused(tmp_path, data, models / "headless")
    assert "modules.json" in str(error)
    assert "--set pooling=mean" in error.next_step
    study, _ = written(tmp_path, data, models / "headless", settings={"pooling": "cls"})
    assert study.families[0].task.pooling == "cls"


def test_lengths_that_are_said_stay(models, tmp_path):
    data = rows(tmp_path, "sentence", "kind")
    study, text = written(tmp_path, data, models / "large", settings={"max_length": 8})
    assert study.families[0].task.buckets == (8,)
    assert "are cut" in text
    (tmp_path / "study.yaml").unlink()
    settings = {"length_buckets": [8, 24], "max_length": 24}
    study, _ = written(tmp_path, data, models / "large", settings=settings)
    assert study.families[0].task.buckets == (8, 24)
    (tmp_path / "study.yaml").unlink()
    prompts = [{"prompt": one[:9], "reference": one[:9]} for one in LINES]
    asked = lines_of(tmp_path / "prompts.jsonl", prompts)
    short = {"max_length": 48, "max_new_tokens": 8}
    study, _ = written(tmp_path, asked, models / "lm", settings=short)
    assert study.families[0].task.max_length == 48


def test_a_setting_that_does_not_exist_is_named(models, tmp_path):
    data = lines_of(tmp_path / "sts.jsonl", scored_pairs())
    error = refused(tmp_path, data, models / "encoder", settings={"pooling": "median"})
    assert "pooling" in str(error)
    assert "normalised" in error.next_step


def test_two_columns_of_classes_are_named(models, tmp_path):
    lines = [{"body": one, "a": n % 3, "b": LABELS[n % 3]} for n, one in enumerate(LINES)]
    error = refused(tmp_path, lines_of(tmp_path / "rows.jsonl", lines), models / "large")
    assert "a, b hold classes of large alike" in str(error)
    assert error.next_step == "name it: --column label=COLUMN"


def test_a_label_that_is_no_class_is_named_with_its_line(models, tmp_path):
    lines = [{"body": f"{LINES[n % 6]} {n}", "what": LABELS[n % 3]} for n in range(12)]
    lines[4]["what"] = "alien"
    data = lines_of(tmp_path / "rows.jsonl", lines)
    error = refused(tmp_path, data, models / "large")
    assert "'what' holds classes of large but for 1 of 12 rows, the first line 5: 'alien'" in str(
        error
    )
