"""The task families there are: the one place where a kind of task is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.tasks.causal_lm.family import CausalLmFamily
from harness.tasks.classification.family import ClassificationFamily
from harness.tasks.family import AnyFamily
from harness.tasks.generation.family import GenerationFamily
from harness.tasks.multi_label.family import MultiLabelFamily
from harness.tasks.question_answering.family import QuestionAnsweringFamily
from harness.tasks.regression.family import RegressionFamily
from harness.tasks.section import TaskSection
from harness.tasks.sentence_embedding.family import SentenceEmbeddingFamily
from harness.tasks.token_classification.family import TokenClassificationFamily

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES: list[AnyFamily] = [
    ClassificationFamily(),
    MultiLabelFamily(),
    RegressionFamily(),
    QuestionAnsweringFamily(),
    CausalLmFamily(),
    GenerationFamily(),
    TokenClassificationFamily(),
    SentenceEmbeddingFamily(),
]


def family_of(task: TaskSection | str) -> AnyFamily:
    """The family of a study's section, or of a kind by its name.

    Raises:
        KeyError: there is no such kind.
    """
    kind = task if isinstance(task, str) else task.kind
    for family in FAMILIES:
        if family.kind == kind:
            return family
    raise KeyError(kind)


def kind_writes(kind: str) -> bool:
    """Whether models of this kind write token by token; a model without a task does not."""
    return any(family.writes for family in FAMILIES if family.kind == kind)


def family_of_checkpoint(config: PretrainedConfig) -> AnyFamily | None:
    """The family that a checkpoint was saved for; None for any other than ours.

    Several families may take one architecture (a classifier's head serves regressions too): then
    the first that finds no problem with the rest of the configuration.
    """
    made_for = [family for family in FAMILIES if family.made_for(config)]
    sound = (family for family in made_for if not any(family.problems(config)))
    return next(sound, made_for[0] if made_for else None)
