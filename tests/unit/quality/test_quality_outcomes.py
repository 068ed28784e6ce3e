"""Collecting outcomes through an endpoint, and storing them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from quality_samples import CLASSES, RuleEndpoint, classify, dataset, speak, variant

from harness.errors import DataError, RunFolderError, ServerError, StorageError
from harness.quality.collection import ask, batches, collect_outcomes, read_outcomes, write_outcomes
from harness.tasks.causal_lm.outcomes import WindowOutcomes
from harness.tasks.causal_lm.rows import WindowDataset
from harness.tasks.classification.outcomes import NO_PREDICTION, ClassOutcomes, LabelOutcomes
from harness.tasks.encoding import EncodedDataset
from harness.tasks.question_answering.outcomes import QuestionOutcomes, numbered_contexts
from harness.tasks.question_answering.rows import Questions
from harness.types import ModelVariant, Progress, TensorSpec

LANGUAGE = variant("causal-lm")


def collect(
    endpoint: RuleEndpoint,
    split: EncodedDataset,
    model: ModelVariant | None = None,
    batch_size: int = 4,
    notes: list[Progress] | None = None,
) -> Any:
    return collect_outcomes(
        model or variant(),
        split,
        endpoint,
        batch_size=batch_size,
        progress=notes.append if notes is not None else lambda step: None,
    )


def same(first: Any, second: Any) -> bool:
    return all(
        np.array_equal(value, getattr(second, name), equal_nan=name in {"log_likelihood", "logits"})
        if isinstance(value, np.ndarray)
        else value == getattr(second, name)
        for name, value in vars(first).items()
        if name != "greedy"
    ) and all(map(np.array_equal, getattr(first, "greedy", ()), getattr(second, "greedy", ())))


def test_every_row_is_asked_once_in_batches_of_one_length() -> None:
    split = dataset()
    endpoint = RuleEndpoint(classify)

    collect(endpoint, split, batch_size=4)

    asked = [row for request in endpoint.requests for row in request]
    assert sorted(asked) == list(range(split.size))
    assert max(map(len, endpoint.requests)) == 4
    for request in endpoint.requests:
        assert sum(set(request) <= set(group.rows.tolist()) for group in split.groups) == 1


def test_predictions_stand_at_their_rows() -> None:
    split = dataset()
    rows = np.arange(split.size)

    outcomes = collect(RuleEndpoint(classify), split)

    assert np.array_equal(outcomes.correct, rows % 5 != 0)
    assert (outcomes.predictions[outcomes.correct] == rows[outcomes.correct] % len(CLASSES)).all()
    assert not outcomes.unanswered.any()
    assert outcomes.sha256 == "digest of student"
    assert not isinstance(outcomes, WindowOutcomes)


def test_likelihood_is_over_real_tokens_but_the_first() -> None:
    split = dataset(language=True)

    outcomes = collect(RuleEndpoint(speak), split, LANGUAGE)

    for group in split.groups:
        real = group.inputs["attention_mask"].sum(axis=1)
        assert np.array_equal(outcomes.tokens[group.rows], real - 1)
        expected = -(1 + group.rows / 100) * (real - 1)
        assert outcomes.log_likelihood[group.rows] == pytest.approx(expected, rel=1e-6)
    assert np.array_equal(outcomes.bytes, split.byte_counts)
    assert isinstance(outcomes, WindowOutcomes)


def test_the_order_of_answers_changes_nothing() -> None:
    split = dataset(language=True)
    jitter = random.Random(3)

    def late(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        time.sleep(jitter.random() / 200)
        return speak(rows, inputs)

    first, second = (collect(RuleEndpoint(late), split, LANGUAGE, batch_size=3) for _ in range(2))

    assert same(first, second)


def test_many_requests_are_in_flight() -> None:
    met = threading.Barrier(4, timeout=20)

    def together(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        met.wait()  # passes only while four requests wait here at once
        return classify(rows, inputs)

    split = dataset(16)
    outcomes = collect_outcomes(
        variant(),
        split,
        RuleEndpoint(together),
        batch_size=1,
        in_flight=4,
        progress=lambda step: None,
    )
    assert not outcomes.unanswered.any()


def test_a_failed_request_leaves_its_rows_unanswered_and_is_not_repeated() -> None:
    split = dataset()
    notes: list[Progress] = []
    endpoint = RuleEndpoint(classify, fails=lambda rows: 7 in rows)

    outcomes = collect(endpoint, split, notes=notes)

    failed = next(request for request in endpoint.requests if 7 in request)
    assert np.flatnonzero(outcomes.unanswered).tolist() == sorted(failed)
    assert (outcomes.predictions[list(failed)] == NO_PREDICTION).all()
    assert not outcomes.correct[list(failed)].any()
    assert endpoint.requests.count(failed) == 1
    assert f"{len(failed)} of 50 rows unanswered: refused rows" in notes[-1].note


def test_a_failed_window_has_no_likelihood_but_its_tokens() -> None:
    split = dataset(language=True)

    outcomes = collect(RuleEndpoint(speak, fails=lambda rows: 7 in rows), split, LANGUAGE)

    assert np.array_equal(np.isnan(outcomes.log_likelihood), outcomes.unanswered)
    assert outcomes.unanswered[7]
    assert (outcomes.tokens > 0).all()


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_numbers_that_are_none_are_no_answer(task: str) -> None:
    def broken(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        outputs = (classify if task == "sequence-classification" else speak)(rows, inputs)
        values = next(iter(outputs.values()))
        values = values.copy()
        values[rows == 11, 1] = np.nan
        return outputs | {next(iter(outputs)): values}

    split = dataset(language=task == "causal-lm")

    outcomes = collect(RuleEndpoint(broken), split, variant(task))

    assert np.flatnonzero(outcomes.unanswered).tolist() == [11]


def test_nan_at_padding_is_nothing() -> None:
    def padded(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        outputs = speak(rows, inputs)
        nan = np.where(inputs["attention_mask"] == 1, outputs["token_logprobs"], np.nan)
        return outputs | {"token_logprobs": nan}

    outcomes = collect(RuleEndpoint(padded), dataset(language=True), LANGUAGE)

    assert not outcomes.unanswered.any()


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (None, "without its output 'logits'"),
        (np.zeros((0,), np.float32), r"'logits' of shape \(0,\) where \(4, 3\) was due"),
        (np.zeros((4, 2), np.float32), r"of shape \(4, 2\)"),
        (np.zeros((3, 3), np.float32), r"of shape \(3, 3\)"),
    ],
)
def test_an_unusable_answer_is_a_failure(logits: NDArray[Any] | None, message: str) -> None:
    def unusable(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        return {} if logits is None else {"logits": logits}

    batch = next(batches(variant(), dataset().groups, 4))

    with pytest.raises(ServerError, match=message):
        ask(variant(), batch, RuleEndpoint(unusable))


def test_all_unanswered_is_an_error_with_the_first_failures_words() -> None:
    split = dataset()
    first = split.groups[0].rows[:4].tolist()

    with pytest.raises(ServerError, match=r"none of 50 rows.*: refused rows") as caught:
        collect(RuleEndpoint(classify, fails=lambda rows: True), split)
    assert str(min(first, split.groups[1].rows[:4].tolist())) in str(caught.value)


def test_an_input_the_data_lacks_is_named() -> None:
    wanting = replace(variant(), inputs=(TensorSpec("pixel_values", "INT64", (-1,)),))

    with pytest.raises(DataError, match=r"wants input pixel_values.*attention_mask, input_ids"):
        collect(RuleEndpoint(classify), dataset(), wanting)


def test_data_of_another_task_is_refused_before_any_request() -> None:
    endpoint = RuleEndpoint(classify)

    with pytest.raises(DataError, match="no labels"):
        collect(endpoint, dataset(language=True))
    with pytest.raises(DataError, match="no byte counts"):
        collect(endpoint, dataset(), LANGUAGE)
    assert endpoint.requests == []


def test_progress_ends_at_the_whole_split() -> None:
    notes: list[Progress] = []

    collect(RuleEndpoint(classify), dataset(), notes=notes)

    assert [step.done for step in notes] == sorted(step.done for step in notes)
    assert (notes[-1].done, notes[-1].total) == (50, 50)


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_stored_outcomes_come_back_to_the_last_digit(task: str, tmp_path: Path) -> None:
    split = dataset(language=task == "causal-lm")
    rule = classify if task == "sequence-classification" else speak
    outcomes = collect(RuleEndpoint(rule, fails=lambda rows: 9 in rows), split, variant(task))
    path = tmp_path / "samples" / "student.parquet"

    write_outcomes(path, outcomes, split)

    assert same(read_outcomes(path), outcomes)
    assert [file.name for file in path.parent.iterdir()] == ["student.parquet"]


def test_windows_know_their_document_and_questions_the_context_they_share(tmp_path: Path) -> None:
    split = dataset(6, language=True)
    assert isinstance(split, WindowDataset)
    split = replace(split, windows=tuple((row // 3, 10 * row, 10 * row + 9) for row in range(6)))
    outcomes = collect(RuleEndpoint(speak), split, LANGUAGE)
    assert outcomes.groups is not None
    assert outcomes.groups.tolist() == [0, 0, 0, 1, 1, 1]

    write_outcomes(tmp_path / "a.parquet", outcomes, split)
    stored = read_outcomes(tmp_path / "a.parquet").groups
    assert stored is not None
    assert stored.tolist() == [0, 0, 0, 1, 1, 1]

    asked = Questions(("a b", "c d", "a b"), ((),) * 3, np.arange(3), (), False)
    apart = replace(asked, contexts=("a b", "c d", "e f"))
    assert numbered_contexts(asked).tolist() == [0, 1, 0]
    assert numbered_contexts(apart).tolist() == [0, 1, 2]
    answered = QuestionOutcomes(
        variant="v",
        sha256="",
        unanswered=np.zeros(3, dtype=bool),
        correct=np.ones(3, dtype=bool),
        f1=np.ones(3),
        answers=("a", "c", "b"),
        contexts=numbered_contexts(asked),
    )
    assert answered.groups is not None
    assert answered.groups.tolist() == [0, 1, 0]
    assert replace(answered, contexts=numbered_contexts(apart)).groups is None


def test_the_stored_table_reads_without_the_harness(tmp_path: Path) -> None:
    split = dataset()
    write_outcomes(tmp_path / "a.parquet", collect(RuleEndpoint(classify), split), split)

    table = pd.read_parquet(tmp_path / "a.parquet")

    assert table["row"].tolist() == list(range(50))
    assert (table["correct"] == (table["label"] == table["prediction"])).all()
    assert set(table["padded_length"]) == {4, 7}
    assert "log_likelihood" not in table


OLD_COLUMNS = {
    "row": pa.int64(),
    "label": pa.int64(),
    "prediction": pa.int64(),
    "correct": pa.bool_(),
    "log_likelihood": pa.float64(),
    "tokens": pa.int64(),
    "bytes": pa.int64(),
    "words": pa.int64(),
    "f1": pa.float64(),
    "answer": pa.string(),
    "unanswered": pa.bool_(),
    "padded_length": pa.int64(),
    "logits": pa.list_(pa.float32()),
    "group": pa.int64(),
    "greedy_tokens": pa.list_(pa.int64()),
}
"""Of every file before each family had outcomes of its own; null where a task had none."""


def old_file(path: Path, without: tuple[str, ...] = (), **filled: list[Any]) -> Any:
    """Two rows as an earlier release wrote them, read by this one."""
    filled = {"row": [0, 1], "unanswered": [False, False], "padded_length": [4, 7]} | filled
    columns = {
        name: pa.array(filled.get(name, [None, None]), kind)
        for name, kind in OLD_COLUMNS.items()
        if name not in without
    }
    metadata = {"variant": "v", "sha256": "s", "label_names": '["no", "yes"]'}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return read_outcomes(path)


def test_files_of_earlier_releases_are_read_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    answered = {"label": [1, 0], "prediction": [1, 1], "correct": [True, False]}

    classes = old_file(path, **answered, logits=[[0.5, 1.5], [0.25, 2.0]])
    assert isinstance(classes, ClassOutcomes)
    assert (classes.variant, classes.sha256, classes.label_names) == ("v", "s", ("no", "yes"))
    assert classes.logits.tolist() == [[0.5, 1.5], [0.25, 2.0]]
    assert (classes.predictions.tolist(), classes.correct.tolist()) == ([1, 1], [True, False])
    assert classes.groups is None

    ensemble = old_file(path, ("logits", "group"), **answered)
    assert type(ensemble) is LabelOutcomes
    assert ensemble.predictions.tolist() == [1, 1]

    spoken = {"log_likelihood": [-3.5, -7.25], "tokens": [3, 6], "bytes": [9, 20]}
    windows = old_file(
        path, **spoken, words=[2, 4], group=[5, 5], greedy_tokens=[[1, 2, 3], [4, 5, 6, 7, 8, 9]]
    )
    assert isinstance(windows, WindowOutcomes)
    assert windows.groups is not None
    assert windows.groups.tolist() == [5, 5]
    assert [row.tolist() for row in windows.greedy] == [[1, 2, 3], [4, 5, 6, 7, 8, 9]]

    older = old_file(path, ("group", "greedy_tokens"), **spoken, words=[0, 0])
    assert older.groups is None  # documents were not told
    assert older.log_likelihood.tolist() == [-3.5, -7.25]
    assert older.words.tolist() == [0, 0]

    questions = old_file(path, correct=[True, False], f1=[1.0, 0.5], answer=["a", ""])
    assert isinstance(questions, QuestionOutcomes)
    assert (questions.answers, questions.f1.tolist()) == (("a", ""), [1.0, 0.5])
    assert questions.groups is None


def test_a_file_of_something_else_is_no_outcomes(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")

    for name in ("text.parquet", "missing.parquet"):
        with pytest.raises(RunFolderError, match=name):
            read_outcomes(tmp_path / name)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    split = dataset()

    with pytest.raises(StorageError, match=r"file/student\.parquet"):
        write_outcomes(
            tmp_path / "file" / "student.parquet", collect(RuleEndpoint(classify), split), split
        )
