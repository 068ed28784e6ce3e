"""A study's tensors under the names, and in the datatypes, that an external server's model has."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from harness.errors import UsageError
from harness.flow.serving import ModelClient
from harness.load.requests.fit import cast_array, cast_payloads
from harness.load.requests.payloads import Group
from harness.serving.external.server import ExternalModel
from harness.study import Model
from harness.tasks.family import AnyFamily
from harness.types import TensorSpec

Tensors = Mapping[str, NDArray[Any]]
_SEGMENTS = "token_type_ids"


@dataclass(frozen=True)
class TensorNames:
    """How a model there names and types what the study calls otherwise."""

    declared: tuple[TensorSpec, ...]
    """The inputs that the model declares."""
    inputs: Mapping[str, str]
    """By our name of an input, the server's where it differs."""
    outputs: Mapping[str, str]
    """By our name of an output, the server's, for every output of the task."""

    def groups(self, groups: Sequence[Group]) -> list[Group]:
        """Payloads as it takes them."""
        return cast_payloads([self.named(group) for group in groups], self.declared)

    def named(self, group: Group) -> dict[str, NDArray[Any]]:
        """One request under its names.

        Segment ids of nothing but zeros are what a model that takes none goes by: left out there.
        """
        named = {self.inputs.get(key, key): array for key, array in group.items()}
        declared = {one.name for one in self.declared}
        segments = named.get(_SEGMENTS)
        if declared and _SEGMENTS not in declared and segments is not None and not segments.any():
            del named[_SEGMENTS]
        return named

    @property
    def tag(self) -> str:
        """Tells payload files of one data set apart."""
        told = repr((sorted(self.inputs.items()), self.declared))
        return hashlib.sha256(told.encode()).hexdigest()[:8]


class NamingClient:
    """A `ModelClient` that takes and gives a study's names as well as the model's own.

    Args:
        client: of the server.
        names: by the model's name there.
    """

    def __init__(self, client: ModelClient, names: Mapping[str, TensorNames]) -> None:
        self._client = client
        self._names = names

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model."""
        return self._client.statistics(model)

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One request; the task's outputs are there under both names."""
        names = self._names.get(model)
        if names is None:
            return self._client.infer(model, inputs)
        types = {spec.name: spec.datatype for spec in names.declared}
        theirs = names.named(inputs)
        cast = {key: cast_array(key, array, types.get(key)) for key, array in theirs.items()}
        outputs = self._client.infer(model, cast)
        ours = {key: outputs[name] for key, name in names.outputs.items() if name in outputs}
        return outputs | ours


def names_of(model: Model, found: ExternalModel, family: AnyFamily, url: str) -> TensorNames:
    """How a study's model is named there.

    Raises:
        UsageError: the task has no such output, or the model there has none of that name.
    """
    wanted = tuple(spec.name for spec in family.outputs(0))
    unknown = sorted(model.outputs.keys() - set(wanted))
    if unknown:
        raise UsageError(
            f"model {model.name}: outputs names '{unknown[0]}', which a task of {family.kind} does "
            "not have",
            next_step=f"it has {', '.join(wanted)}: write one of them: THEIR NAME",
        )
    outputs = {name: model.outputs.get(name, name) for name in wanted}
    there = [one.name for one in found.outputs]
    missing = [name for name in outputs.values() if there and name not in there]
    if missing:
        ours = next(key for key, name in outputs.items() if name == missing[0])
        raise UsageError(
            f"the model '{found.name}' at {url} has no output '{missing[0]}': it has "
            f"{', '.join(there)}",
            next_step=f"say in the study which it is, under its model: outputs: "
            f"{{{ours}: {there[0]}}}",
        )
    return TensorNames(found.inputs, dict(model.inputs), outputs)


def task_outputs(
    found: ExternalModel, names: TensorNames, family: AnyFamily, classes: int
) -> ExternalModel:
    """The model with the outputs of its task alone, in the task's order.

    The number of classes, where it is declared as dynamic, is that of the data.
    """
    declared = {one.name: one for one in found.outputs}
    outputs = tuple(
        _sized(declared[names.outputs[ours.name]], ours)
        for ours in family.outputs(classes)
        if names.outputs[ours.name] in declared
    )
    return dataclasses.replace(found, outputs=outputs)


def _sized(declared: TensorSpec, ours: TensorSpec) -> TensorSpec:
    """The tensor with the size known here, where the server declares it as dynamic."""
    if declared.shape[-1:] != (-1,) or ours.shape[-1:] == (-1,):
        return declared
    return dataclasses.replace(declared, shape=(*declared.shape[:-1], *ours.shape[-1:]))
