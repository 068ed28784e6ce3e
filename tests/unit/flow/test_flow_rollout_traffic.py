"""A rollout's requests against models made of numpy: who is asked, and what is counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import sample_variant

from harness.errors import RunFolderError, ServerError
from harness.flow.rollout.job import (
    ROLLOUT,
    RolloutRequest,
    _increases,
    _of_the_latest,
    _read,
)
from harness.flow.rollout.traffic import ClientSplit, RouterSplit, RowTraffic
from harness.planning.rollout.asked import OwnCounters
from harness.planning.rollout.outcomes import NO_CLASS
from harness.planning.rollout.stages import begin, in_student_share
from harness.runs.documents import write_document
from harness.serving.router import ServedPair, make_split, write_split
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.encoding import EncodedGroup
from harness.types import Role, ServingConfig, TensorSpec
from harness.types.rollout import (
    BadOutcome,
    Comparison,
    Guardrail,
    RolloutMode,
    RolloutPlan,
    RolloutRecord,
    RolloutTraffic,
    Tally,
)

COLUMNS = (2, 0, 1)
"""Of the student's classes, in order, the place among the teacher's."""


@pytest.fixture
def pair(tmp_path: Path) -> ServedPair:
    student, teacher = (
        dataclasses.replace(
            sample_variant(name, role),
            outputs=(TensorSpec("logits", "FP32", (3,)),),
            path=tmp_path / name,
        )
        for name, role in (("student-fp32", Role.STUDENT), ("teacher-fp32", Role.TEACHER))
    )
    for one in (student, teacher):
        one.path.mkdir()
    serving = ServingConfig(max_batch_size=8)
    return ServedPair(student, teacher, serving, serving, COLUMNS)


class Server:
    """Student: the class is the row's id modulo 3. Teacher: always the student's class 1."""

    def __init__(self, *, failing: str = "", split: Any = None) -> None:
        self.failing = failing
        self.split = split
        self.asked: list[str] = []

    def load(self, model: str, config: str | None = None) -> None:
        """Take any configuration."""

    def infer(self, model: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(model)
        if model == self.failing:
            raise ServerError(f"{model} is gone")
        if self.split is not None and model == self.split["model"]:
            return self.split["answer"]
        ids = inputs["input_ids"][:, 0]
        student = np.eye(3, dtype=np.float32)[ids % 3]
        teacher = np.zeros((len(ids), 3), dtype=np.float32)
        teacher[:, COLUMNS[1]] = 1
        return {"logits": student if model.startswith("student") else teacher}


def ask(split: Any, key: str = "user-1") -> Any:
    return split.ask({"input_ids": np.array([[5]])}, key)


@pytest.mark.parametrize(
    ("mode", "share", "asked", "by_student"),
    [
        ("canary", 0.0, ["teacher-fp32"], False),
        ("canary", 1.0, ["student-fp32"], True),
        ("mirror", 0.0, ["teacher-fp32"], False),
        ("mirror", 1.0, ["student-fp32", "teacher-fp32"], True),
        ("shadow", 1.0, ["student-fp32", "teacher-fp32"], False),
    ],
)
def test_the_client_asks_whom_the_key_goes_to(
    pair: ServedPair, mode: str, share: float, asked: list[str], by_student: bool
) -> None:
    server = Server()
    split = ClientSplit(server, pair, RolloutMode(mode), "s")
    split.set_share(share)
    found = ask(split)
    assert server.asked == asked
    assert found.served_by_student is by_student
    if found.student.asked:
        assert found.student.logits.argmax() == 2
    if found.teacher.asked:
        assert found.teacher.logits.argmax() == 1  # in the student's order of classes


def answered(by_student: int, times: list[float], other: list[float]) -> dict[str, Any]:
    return {
        "logits": np.array([[0.0, 9.0, 0.0]], dtype=np.float32),
        "SERVED_BY": np.array([[by_student]]),
        "OTHER": np.array([other], dtype=np.float32),
        "MODEL_MS": np.array([times], dtype=np.float32),
    }


NAN = [np.nan] * 3


@pytest.mark.parametrize(
    ("mode", "answer", "teacher", "student"),
    [
        # (asked, milliseconds or None for what the client waited, class or None)
        ("mirror", answered(1, [7.0, 3.0], [9.0, 0.0, 0.0]), (True, 7.0, 0), (True, 3.0, 1)),
        ("shadow", answered(0, [7.0, 3.0], [0.0, 0.0, 9.0]), (True, 7.0, 1), (True, 3.0, 2)),
        ("mirror", answered(0, [7.0, -1.0], NAN), (True, 7.0, 1), (False, np.inf, None)),
        # The copy failed: a failure of the student, and no request's.
        ("shadow", answered(0, [7.0, -2.0], NAN), (True, 7.0, 1), (True, np.inf, None)),
        ("canary", answered(1, [-1.0, 3.0], NAN), (False, np.inf, None), (True, None, 1)),
    ],
)
def test_what_the_model_in_front_says_is_told_apart(
    pair: ServedPair,
    mode: str,
    answer: dict[str, Any],
    teacher: tuple[bool, float | None, int | None],
    student: tuple[bool, float | None, int | None],
) -> None:
    split = make_split(pair, mode=mode, salt="s")
    server = Server(split={"model": split.variant.name, "answer": answer})
    found = ask(RouterSplit(server, split))
    for one, (asked, took_ms, best) in ((found.teacher, teacher), (found.student, student)):
        assert one.asked is asked
        if took_ms is None:
            assert 0 < one.latency_ms < 60_000
        else:
            assert one.latency_ms == took_ms
        assert (None if one.logits is None else int(one.logits.argmax())) == best


@pytest.mark.parametrize(
    ("mode", "share", "blamed", "also"),
    [
        ("canary", 1.0, "student", []),
        ("mirror", 1.0, "student", ["teacher-fp32"]),  # so that the pair is whole
        ("shadow", 1.0, "teacher", []),
        ("mirror", 0.0, "teacher", []),
    ],
)
def test_a_request_that_fails_is_its_models_failure(
    pair: ServedPair, mode: str, share: float, blamed: str, also: list[str]
) -> None:
    split = make_split(pair, mode=mode, salt="s")
    write_split(split, 0.0)
    server = Server(failing=split.variant.name)
    router = RouterSplit(server, split)
    router.set_share(share)
    found = ask(router)
    failed, other = (found.student, found.teacher)[:: 1 if blamed == "student" else -1]
    assert failed.asked
    assert failed.logits is None
    assert other.asked is bool(also)
    assert server.asked == [split.variant.name, *also]


def dataset() -> LabelledDataset:
    """Six rows in two groups; row r has the id r, and r modulo 3 as its class."""
    groups = tuple(
        EncodedGroup({"input_ids": np.array(rows, dtype=np.int64)[:, None]}, np.array(rows))
        for rows in ([1, 3, 5], [0, 2, 4])
    )
    return LabelledDataset(
        groups=groups,
        size=6,
        truncated=0,
        padding_share=0.0,
        digest="d",
        pad_token_id=0,
        labels=np.arange(6) % 3,
        label_names=("a", "b", "c"),
        class_names=("a", "b", "c"),
    )


def traffic(pair: ServedPair, users: int = 0, failing: str = "") -> RowTraffic:
    split = ClientSplit(Server(failing=failing), pair, RolloutMode.MIRROR, "s")
    asked = RolloutTraffic(400, 4, users, seed=3, through_router=False)
    found = RowTraffic(split, dataset(), pair, asked)
    found.set_share(0.5)
    return found


def test_a_look_is_counted_row_by_row(pair: ServedPair) -> None:
    found, by_student = traffic(pair).send(1)
    assert len(found.labels) == 400
    chosen = found.student.asked
    assert by_student == chosen.sum()
    assert 150 < by_student < 250
    # The student is always right here, the teacher says class 1 whatever it is asked.
    assert (found.student.classes[chosen] == found.labels[chosen]).all()
    assert (found.student.classes[~chosen] == NO_CLASS).all()
    assert (found.teacher.classes == 1).all()
    assert np.isfinite(found.student.latency_ms[chosen]).all()
    assert np.isinf(found.student.latency_ms[~chosen]).all()
    assert set(found.labels.tolist()) == {0, 1, 2}


def test_a_look_that_is_taken_again_sends_the_same_and_the_next_one_others(
    pair: ServedPair,
) -> None:
    first, again, other = (traffic(pair).send(look)[0] for look in (1, 1, 2))
    assert (first.labels == again.labels).all()
    assert (first.student.asked == again.student.asked).all()
    assert (first.labels != other.labels).any()


def test_a_user_stays_where_he_is(pair: ServedPair) -> None:
    """Of five users, the student has those whose key it has, whichever look."""
    theirs = sum(in_student_share(f"user-{number}", 0.5, salt="s") for number in range(5))
    assert 0 < theirs < 5
    split = ClientSplit(Server(), pair, RolloutMode.MIRROR, "s")
    split.set_share(0.5)
    for number in range(5):
        answers = {ask(split, f"user-{number}").served_by_student for _ in range(3)}
        assert answers == {in_student_share(f"user-{number}", 0.5, salt="s")}


def test_a_failing_student_is_counted_as_failing_and_slow(pair: ServedPair) -> None:
    found, _ = traffic(pair, failing="student-fp32").send(1)
    assert (found.student.failed == found.student.asked).all()
    assert not found.teacher.failed.any()
    assert np.isinf(found.student.latency_ms).all()


class Prometheus:
    """Whatever the two counters stand at."""

    def __init__(self, **values: float | None) -> None:
        self.values = values

    def value(self, query: str) -> float | None:
        return self.values[query]


@pytest.mark.parametrize(
    ("before", "now", "counted"),
    [
        ({"bad": 5, "all": 100}, {"bad": 8, "all": 160}, {"own": Tally(3, 60)}),
        ({"bad": 5, "all": 100}, {"bad": 1, "all": 160}, {}),  # reset in between
        ({"bad": 5, "all": 100}, {"bad": 5, "all": 20}, {}),
        ({"bad": 5, "all": 100}, {"bad": 50, "all": 110}, {}),  # more bad ones than there were
        ({"bad": None, "all": 100}, {"bad": 8, "all": 160}, {}),
        ({"bad": 5, "all": 100}, {"bad": 8, "all": None}, {}),
        ({"bad": 5, "all": 100}, {"bad": 5, "all": 100}, {"own": Tally(0, 0)}),
    ],
)
def test_counters_are_differences_and_silence_is_no_data(
    before: dict[str, float | None], now: dict[str, float | None], counted: dict[str, Tally]
) -> None:
    own = [OwnCounters("own", "bad", "all")]
    readings = [_read(Prometheus(**values), own) for values in (before, now)]
    assert _increases(*readings) == counted


def test_what_is_gone_on_with_needs_no_names(tmp_path: Path) -> None:
    """The latest rollout's student and teacher, unless others are named; without one, a reason."""
    sent = RolloutTraffic(1000, 8, 0, 0, through_router=True)
    request = RolloutRequest(sent, (), RolloutMode.MIRROR, 0.05, 10)
    with pytest.raises(RunFolderError, match="has no rollout to go on with"):
        _of_the_latest(tmp_path, request)
    errors = Guardrail("error_rate < 2%", BadOutcome.FAILED, Comparison.LIMIT, 0.02)
    plan = RolloutPlan("student-int8", "teacher-fp32", (errors,))
    state = begin(plan)
    write_document(tmp_path, ROLLOUT, RolloutRecord("f", "ab", "cd", sent, (), (), state))
    found = _of_the_latest(tmp_path, request)
    assert (found.student, found.teacher) == ("student-int8", "teacher-fp32")
    named = _of_the_latest(tmp_path, dataclasses.replace(request, student="other"))
    assert (named.student, named.teacher) == ("other", "teacher-fp32")
