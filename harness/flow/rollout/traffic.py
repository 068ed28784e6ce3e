"""The traffic of a rollout: scored rows sent under keys, split by a Triton model or by the client.

A request is one row. Whose it is decides the hash of its key, in the server and in the client
alike, so a user stays where he is as the student's share grows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import ServerError
from harness.planning.rollout.outcomes import NO_CLASS, LookOutcomes, ModelOutcomes
from harness.planning.rollout.stages import in_student_share
from harness.serving.endpoint import TritonClient
from harness.serving.router import (
    COPY_FAILED,
    KEY,
    MODEL_MS,
    NOT_ASKED,
    OTHER,
    SERVED_BY,
    ServedPair,
    TrafficSplitter,
    load_split,
)
from harness.tasks.classification.rows import LabelledDataset
from harness.types.rollout import RolloutMode, RolloutTraffic

Inputs = Mapping[str, NDArray[Any]]
_TEACHER, _STUDENT = 0, 1


@dataclass(frozen=True)
class ModelAnswer:
    """What one of the models did with a request."""

    asked: bool = False
    latency_ms: float = inf
    logits: NDArray[Any] | None = None
    """In the student's order of classes, (classes,); None where it failed or was not asked."""


@dataclass(frozen=True)
class SplitAnswer:
    """What the student and the teacher answered to one request."""

    teacher: ModelAnswer
    student: ModelAnswer
    served_by_student: bool


class SplitsTraffic(Protocol):
    """Whatever sends a request to the one model, to the other, or to both."""

    def set_share(self, share: float) -> None:
        """Send the student this share of the keys from now on.

        Raises:
            ServerError: the server does not take it.
        """
        ...

    def ask(self, inputs: Inputs, key: str) -> SplitAnswer:
        """Send one request; a failure is part of the answer."""
        ...


class RouterSplit:
    """A Triton model in front of both splits the traffic.

    In a canary a request's latency is what the client waited. Where both models are asked the
    client waits for the slower; then each model's own time inside the server counts.
    """

    def __init__(self, client: TritonClient, split: TrafficSplitter) -> None:
        self._client = client
        self._split = split
        self._teacher = ClientSplit(client, split.pair, RolloutMode.MIRROR, split.salt)
        self._share = 0.0

    def set_share(self, share: float) -> None:
        """Load the model in front with another share; requests in between go by the former one."""
        load_split(self._client, self._split, share)
        self._share = share

    def ask(self, inputs: Inputs, key: str) -> SplitAnswer:
        """Ask the model in front."""
        began = time.monotonic()
        name = self._split.variant.name
        try:
            said = self._client.infer(name, {**inputs, KEY: np.array([[key.encode()]], object)})
        except ServerError:
            return self._failed(inputs, key)
        waited_ms = 1e3 * (time.monotonic() - began)
        by_student = bool(said[SERVED_BY][0, 0])
        logits = said[self._split.variant.outputs[0].name][0]
        answers = [logits, said[OTHER][0]] if not by_student else [said[OTHER][0], logits]
        found = [
            _model_answer(float(took_ms), own)
            for took_ms, own in zip(said[MODEL_MS][0], answers, strict=True)
        ]
        if self._split.mode == RolloutMode.CANARY:
            which = _STUDENT if by_student else _TEACHER
            found[which] = ModelAnswer(True, waited_ms, logits)
        return SplitAnswer(found[_TEACHER], found[_STUDENT], by_student)

    def _failed(self, inputs: Inputs, key: str) -> SplitAnswer:
        """The model that was to answer the key failed; of a copy nothing is known.

        A failure of the student stays in the comparison: the same rows are asked of the teacher
        alone, where the mode compares them.
        """
        chosen = in_student_share(key, self._share, salt=self._split.salt)
        if chosen and self._split.mode != RolloutMode.SHADOW:
            compared = self._split.mode == RolloutMode.MIRROR
            teacher = self._teacher.ask_teacher(inputs) if compared else ModelAnswer()
            return SplitAnswer(teacher, ModelAnswer(asked=True), served_by_student=True)
        return SplitAnswer(ModelAnswer(asked=True), ModelAnswer(), served_by_student=False)


def _model_answer(took_ms: float, logits: NDArray[Any]) -> ModelAnswer:
    if took_ms == NOT_ASKED:
        return ModelAnswer()
    if took_ms == COPY_FAILED:
        return ModelAnswer(asked=True)
    return ModelAnswer(True, took_ms, logits)


class ClientSplit:
    """The client asks one model, the other, or one after the other; latency is what it waited."""

    def __init__(
        self, client: TritonClient, pair: ServedPair, mode: RolloutMode, salt: str
    ) -> None:
        self._client = client
        self._pair = pair
        self._mode = mode
        self._salt = salt
        self._share = 0.0

    def set_share(self, share: float) -> None:
        """Send the student this share of the keys from now on."""
        self._share = share

    def ask(self, inputs: Inputs, key: str) -> SplitAnswer:
        """Ask whom the key goes to."""
        chosen = in_student_share(key, self._share, salt=self._salt)
        student = self._ask_student(inputs) if chosen else ModelAnswer()
        to_teacher = not chosen or self._mode is not RolloutMode.CANARY
        teacher = self.ask_teacher(inputs) if to_teacher else ModelAnswer()
        return SplitAnswer(teacher, student, chosen and self._mode is not RolloutMode.SHADOW)

    def _ask_student(self, inputs: Inputs) -> ModelAnswer:
        return self._ask(self._pair.student.name, inputs, list(range(len(self._pair.columns))))

    def ask_teacher(self, inputs: Inputs) -> ModelAnswer:
        """Ask the teacher alone."""
        own = {spec.name: inputs[spec.name] for spec in self._pair.teacher.inputs}
        return self._ask(self._pair.teacher.name, own, list(self._pair.columns))

    def _ask(self, model: str, inputs: Inputs, columns: list[int]) -> ModelAnswer:
        began = time.monotonic()
        try:
            said = self._client.infer(model, inputs)
        except ServerError:
            return ModelAnswer(asked=True)
        waited_ms = 1e3 * (time.monotonic() - began)
        return ModelAnswer(True, waited_ms, said[self._pair.student.outputs[0].name][0, columns])


class RowTraffic:
    """Rows of the scored data, drawn with replacement, each under a user's key."""

    def __init__(
        self,
        split: SplitsTraffic,
        dataset: LabelledDataset,
        pair: ServedPair,
        traffic: RolloutTraffic,
    ) -> None:
        self._split = split
        self._pair = pair
        self._labels = dataset.labels
        self._traffic = traffic
        self._places = {
            int(row): (group.inputs, place)
            for group in dataset.groups
            for place, row in enumerate(group.rows)
        }

    def set_share(self, share: float) -> None:
        """Send the student this share of the keys from now on.

        Raises:
            ServerError: the server does not take it.
        """
        self._split.set_share(share)

    def send(self, look: int, requests: int | None = None) -> tuple[LookOutcomes, int]:
        """Send a look's requests and wait for all of them.

        Args:
            look: its number; with the seed it draws rows and keys, so that a look that is taken
                again sends the same.
            requests: instead of a look's usual number.

        Returns:
            What the models did, and how many requests the student answered for the user.
        """
        many = requests or self._traffic.requests
        draws = np.random.default_rng([self._traffic.seed, look])
        rows = draws.integers(0, len(self._labels), many)
        users = draws.integers(0, self._traffic.users or 2**62, many)
        with ThreadPoolExecutor(self._traffic.in_flight, thread_name_prefix="rollout") as pool:
            answers = list(pool.map(self._ask, rows.tolist(), users.tolist()))
        found = LookOutcomes(
            student=_outcomes([one.student for one in answers]),
            teacher=_outcomes([one.teacher for one in answers]),
            labels=self._labels[rows],
        )
        return found, sum(one.served_by_student for one in answers)

    def _ask(self, row: int, user: int) -> SplitAnswer:
        inputs, place = self._places[row]
        own = {
            spec.name: inputs[spec.name][place : place + 1].astype(spec.datatype.lower())
            for spec in self._pair.student.inputs
        }
        return self._split.ask(own, f"user-{user}")


def _outcomes(answers: list[ModelAnswer]) -> ModelOutcomes:
    classes = np.array([_class_of(one) for one in answers], dtype=np.int64)
    asked = np.array([one.asked for one in answers])
    failed = asked & (classes == NO_CLASS)
    latency_ms = np.array([one.latency_ms for one in answers])
    return ModelOutcomes(asked, failed, np.where(failed, inf, latency_ms), classes)


def _class_of(answer: ModelAnswer) -> int:
    if answer.logits is None or not np.isfinite(answer.logits).all():
        return NO_CLASS
    return int(answer.logits.argmax())
