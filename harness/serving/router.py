"""Two models behind one name: a router by confidence, and a rollout's split by key.

    <student>-router/    Python: the student's inputs -> its output, or where that is unsure the
                         teacher's
    <student>-rollout/   Python: the student's inputs and a KEY -> the output of the model that the
                         key goes to, and which that was

Both ask the two models in the same server (business logic scripting). They lie in the model
repository like any other model: a container serves them as the embedded server does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from harness.errors import UsageError
from harness.serving.python_models import (
    ModelLoader,
    listed,
    override_of,
    python_config,
    write_config_file,
    write_python_model,
)
from harness.serving.repository import config_override, write_config
from harness.types import ModelVariant, Role, ServingConfig, TensorSpec

ROUTER_SUFFIX, SPLIT_SUFFIX = "-router", "-rollout"
KEY = "KEY"
"""Input of a split: what a request's user or session is told apart by, BYTES (n, 1)."""
SERVED_BY, OTHER, MODEL_MS = "SERVED_BY", "OTHER", "MODEL_MS"
"""Further outputs of a split: 1 where the student answered, (n, 1); the other model's answer, not
numbers where it was not asked, (n, classes); milliseconds of teacher and student, (n, 2)."""
NOT_ASKED, COPY_FAILED = -1.0, -2.0
"""Stand in for the milliseconds of a model that was not asked, or whose copy failed."""

_SOURCES = Path(__file__).parent / "router_models"
_CASCADE, _SPLIT = "cascade_model.py", "split_model.py"
_SPLIT_INSTANCES = 4
"""Each executes one request at a time, so that none waits for another's slower model."""


@dataclass(frozen=True)
class ServedPair:
    """A student and its teacher as they are loaded, and how their answers correspond."""

    student: ModelVariant
    teacher: ModelVariant
    student_serving: ServingConfig
    teacher_serving: ServingConfig
    columns: tuple[int, ...]
    """For each of the student's classes, its index among the teacher's."""

    def check(self) -> None:
        """Refuse models that cannot stand behind one name.

        Raises:
            UsageError: they take other inputs, give other outputs, or take no batches.
        """
        known = {spec.name: spec.datatype for spec in self.student.inputs}
        missing = [one.name for one in self.teacher.inputs if known.get(one.name) != one.datatype]
        if missing:
            raise UsageError(
                f"{self.teacher.name} takes {', '.join(missing)}, which {self.student.name} does "
                "not: one request cannot be answered by either",
                next_step="route between models of one tokenizer",
            )
        if self.student.outputs != self.teacher.outputs or len(self.student.outputs) != 1:
            raise UsageError(
                f"{self.student.name} and {self.teacher.name} have different outputs, or several: "
                "one request cannot be answered by either"
            )
        if not (self.student_serving.max_batch_size and self.teacher_serving.max_batch_size):
            raise UsageError(
                f"{self.student.name} or {self.teacher.name} takes no batches, so a router cannot "
                "pass a part of its rows on"
            )

    @property
    def parameters(self) -> dict[str, str]:
        """What both of the models in front are told."""
        return {
            "student": self.student.name,
            "teacher": self.teacher.name,
            "teacher_batch": str(self.teacher_serving.max_batch_size),
            "teacher_inputs": listed([spec.name for spec in self.teacher.inputs]),
            "columns": listed(self.columns),
        }

    def write(self) -> None:
        """Write both models' `config.pbtxt`: a container then loads them as they are loaded here.

        Raises:
            StorageError: the repository cannot be written.
        """
        write_config(self.student, self.student_serving)
        write_config(self.teacher, self.teacher_serving)

    def load(self, control: ModelLoader) -> None:
        """Load both models.

        Raises:
            ServerError: with Triton's own message.
        """
        control.load(self.student.name, config_override(self.student, self.student_serving))
        control.load(self.teacher.name, config_override(self.teacher, self.teacher_serving))

    def unload(self, control: ModelLoader) -> None:
        """Unload both models.

        Raises:
            ServerError: with Triton's own message.
        """
        for one in (self.student, self.teacher):
            control.unload(one.name)


@dataclass(frozen=True)
class Router:
    """The student, and below a threshold of its confidence the teacher, as one servable model."""

    variant: ModelVariant
    """Named `<student>-router`: the student's inputs and output."""
    pair: ServedPair
    threshold: float

    @property
    def config(self) -> pb.ModelConfig:
        """Triton's configuration of the model in front.

        It has as many processes as both models have instances, so that the student works while
        another process waits for the teacher.
        """
        pair = self.pair
        return python_config(
            self.variant.name,
            max_batch_size=pair.student_serving.max_batch_size,
            inputs=self.variant.inputs,
            outputs=self.variant.outputs,
            parameters={
                **pair.parameters,
                "threshold": repr(self.threshold),
            },
            instances=pair.student_serving.instance_count + pair.teacher_serving.instance_count,
        )


def make_router(pair: ServedPair, threshold: float) -> Router:
    """Describe a router; nothing is written.

    Raises:
        UsageError: the two models cannot stand behind one name.
    """
    pair.check()
    return Router(_in_front(pair, ROUTER_SUFFIX, _CASCADE, repr(threshold)), pair, threshold)


def write_router(router: Router) -> None:
    """Write the router's folder into the model repository, and both models' configurations.

    Raises:
        StorageError: the repository cannot be written.
    """
    router.pair.write()
    repository = router.pair.student.path.parent
    write_python_model(repository, router.config, _SOURCES / _CASCADE)


def load_router(control: ModelLoader, router: Router) -> None:
    """Load both models, and the router before them.

    Raises:
        ServerError: with Triton's own message.
    """
    router.pair.load(control)
    control.load(router.variant.name, override_of(router.config))


def unload_router(control: ModelLoader, router: Router) -> None:
    """Unload the router first, then both models.

    Raises:
        ServerError: with Triton's own message.
    """
    control.unload(router.variant.name)
    router.pair.unload(control)


@dataclass(frozen=True)
class TrafficSplitter:
    """A rollout's split of the traffic between two models, as one servable model."""

    variant: ModelVariant
    """Named `<student>-rollout`: the student's inputs and a KEY."""
    pair: ServedPair
    mode: str
    """canary, mirror or shadow."""
    salt: str

    def config(self, share: float) -> pb.ModelConfig:
        """Triton's configuration of the model in front, with the student's share of all keys."""
        pair = self.pair
        return python_config(
            self.variant.name,
            max_batch_size=pair.student_serving.max_batch_size,
            inputs=self.variant.inputs,
            outputs=self.variant.outputs,
            parameters={
                **pair.parameters,
                "share": repr(share),
                "salt": self.salt,
                "mode": self.mode,
            },
            instances=_SPLIT_INSTANCES,
            joins=False,
        )


def make_split(pair: ServedPair, *, mode: str, salt: str) -> TrafficSplitter:
    """Describe a split; nothing is written.

    Raises:
        UsageError: the two models cannot stand behind one name.
    """
    pair.check()
    variant = _in_front(pair, SPLIT_SUFFIX, _SPLIT, f"{mode} {salt}")
    (logits,) = variant.outputs
    variant = dataclasses.replace(
        variant,
        inputs=(*variant.inputs, TensorSpec(KEY, "BYTES", (1,))),
        outputs=(
            logits,
            TensorSpec(SERVED_BY, "INT32", (1,)),
            TensorSpec(OTHER, logits.datatype, logits.shape),
            TensorSpec(MODEL_MS, "FP32", (2,)),
        ),
    )
    return TrafficSplitter(variant, pair, mode, salt)


def write_split(split: TrafficSplitter, share: float) -> None:
    """Write the split's folder into the model repository, and both models' configurations.

    Raises:
        StorageError: the repository cannot be written.
    """
    split.pair.write()
    repository = split.pair.student.path.parent
    write_python_model(repository, split.config(share), _SOURCES / _SPLIT)


def load_split(control: ModelLoader, split: TrafficSplitter, share: float) -> None:
    """Load the split with a share, in place of the one before, and keep that in its folder.

    Triton answers by the former one until the new one is ready, so no request is lost; when this
    returns, every new request goes by the new share, and a container that serves the repository
    later goes by it too.

    Raises:
        ServerError: with Triton's own message.
        StorageError: the repository cannot be written.
    """
    config = split.config(share)
    control.load(split.variant.name, override_of(config))
    write_config_file(split.pair.student.path.parent, config.name, config)


def _in_front(pair: ServedPair, suffix: str, source: str, setting: str) -> ModelVariant:
    """The model in front, with a digest of all that decides what it answers."""
    student, teacher = pair.student, pair.teacher
    made_of: list[object] = [student.sha256, teacher.sha256, list(pair.columns), setting]
    made_of += [dataclasses.asdict(one) for one in (pair.student_serving, pair.teacher_serving)]
    digest = hashlib.sha256(json.dumps(made_of).encode())
    digest.update((_SOURCES / source).read_bytes())
    name = f"{student.name}{suffix}"
    sizes = (student.size_bytes, teacher.size_bytes)
    return dataclasses.replace(
        student,
        name=name,
        role=Role.STUDENT,
        sha256=digest.hexdigest(),
        path=student.path.with_name(name),
        parity={},
        parameters=student.parameters + teacher.parameters,
        size_bytes=None if None in sizes else sum(one or 0 for one in sizes),
        routes_to=(student.name, teacher.name),
    )
