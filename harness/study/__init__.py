"""What a study is: the one thing a user writes. `harness.study.file` reads it.

Strict pydantic: unknown keys and wrong types are refused. Validation has no side effects; it only
looks whether named files exist.

A name is imported when it is first asked for, because the sections of all task families are part of
a study: whoever only reads an objective (`harness.study.objective`) is spared them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.study.cost import CostBasis
    from harness.study.document import (
        ENSEMBLE_SUFFIX,
        SPECULATIVE_SUFFIX,
        Family,
        Study,
        Task,
        plans_of,
        served_names,
        speculative_name,
        study_schema,
        variant_names,
    )
    from harness.study.model import (
        PLAN_SUFFIX,
        Model,
        teacher_first,
        variant_name,
        variants_of,
    )
    from harness.study.sweep import ServingSpace, Traffic
    from harness.tasks.causal_lm.rows import CausalLanguageModelling
    from harness.tasks.classification.rows import SequenceClassification
    from harness.tasks.question_answering.rows import QuestionAnswering
    from harness.tasks.section import ConllData, CsvData, HubData, JsonLinesData, ReferenceData
    from harness.tasks.sentence_embedding.rows import SentenceEmbedding
    from harness.tasks.token_classification.rows import TokenClassification

__all__ = [
    "ENSEMBLE_SUFFIX",
    "PLAN_SUFFIX",
    "SPECULATIVE_SUFFIX",
    "CausalLanguageModelling",
    "ConllData",
    "CostBasis",
    "CsvData",
    "Family",
    "HubData",
    "JsonLinesData",
    "Model",
    "QuestionAnswering",
    "ReferenceData",
    "SentenceEmbedding",
    "SequenceClassification",
    "ServingSpace",
    "Study",
    "Task",
    "TokenClassification",
    "Traffic",
    "plans_of",
    "served_names",
    "speculative_name",
    "study_schema",
    "teacher_first",
    "variant_name",
    "variant_names",
    "variants_of",
]

_MODULES = (
    "harness.study.document",
    "harness.study.model",
    "harness.study.cost",
    "harness.study.sweep",
    "harness.tasks.section",
    "harness.tasks.causal_lm.rows",
    "harness.tasks.classification.rows",
    "harness.tasks.question_answering.rows",
    "harness.tasks.sentence_embedding.rows",
    "harness.tasks.token_classification.rows",
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name of the public surface."""
        if name in __all__:
            for module in map(import_module, _MODULES):
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
