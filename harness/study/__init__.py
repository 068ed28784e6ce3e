"""What a study is: the one thing a user writes. study_file.py reads it.

Strict pydantic: unknown keys and wrong types are refused. Validation has no side effects; it only
looks whether named files exist.
"""

from harness.study.cost import CostBasis
from harness.study.document import (
    PIPELINE_SUFFIX,
    PLAN_SUFFIX,
    Family,
    Model,
    Study,
    Task,
    plans_of,
    study_schema,
    teacher_first,
    variant_name,
    variant_names,
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
    "PIPELINE_SUFFIX",
    "PLAN_SUFFIX",
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
    "study_schema",
    "teacher_first",
    "variant_name",
    "variant_names",
    "variants_of",
]
