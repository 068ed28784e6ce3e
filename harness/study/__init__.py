"""What a study is: the one thing a user writes. study_file.py reads it.

Strict pydantic: unknown keys and wrong types are refused. Validation has no side effects; it only
looks whether named files exist.
"""

from harness.study.document import Family, Study, plans_of, study_schema, variant_names
from harness.study.models import (
    PIPELINE_SUFFIX,
    PLAN_SUFFIX,
    Model,
    teacher_first,
    variant_name,
    variants_of,
)
from harness.study.serving import ServingSpace
from harness.study.tasks import Task
from harness.study.traffic import Traffic
from harness.tasks.causal_lm.section import CausalLanguageModelling
from harness.tasks.classification.section import SequenceClassification
from harness.tasks.question_answering.section import QuestionAnswering
from harness.tasks.section import ConllData, CsvData, HubData, JsonLinesData, ReferenceData
from harness.tasks.sentence_embedding.section import SentenceEmbedding
from harness.tasks.token_classification.section import TokenClassification

__all__ = [
    "PIPELINE_SUFFIX",
    "PLAN_SUFFIX",
    "CausalLanguageModelling",
    "ConllData",
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
