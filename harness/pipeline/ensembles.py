"""The pipelines of a family that asks for them: text in, label out, around each variant."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.serving.ensemble import TEXT, TEXT_PAIR, Pipeline, TextTokenizer, make_pipeline
from harness.study import PIPELINE_SUFFIX, Family, SequenceClassification, Study
from harness.tasks.encoding import EncodedDataset
from harness.tasks.samples import Samples
from harness.tasks.tokenizer import load_tokenizer
from harness.types import ModelVariant, Trial, TrialResult

PIPELINE_STAGE = "pipeline"
"""Stage of the trial that measures a winner's whole pipeline."""


@dataclass(frozen=True)
class PreparedPipeline:
    """A pipeline in the model repository, and the texts to send it."""

    pipeline: Pipeline
    texts: tuple[Mapping[str, NDArray[np.object_]], ...]
    """By input name, (n, 1): the samples of each of the data set's groups, in its order."""


def prepare_pipeline(
    family: Family,
    variant: ModelVariant,
    samples: Samples,
    dataset: EncodedDataset,
    *,
    trust_remote_code: bool,
) -> PreparedPipeline:
    """Describe a variant's pipeline with the tokenizer that lies beside its artefact.

    Raises:
        DataError: nobody names the classes.
    """
    task = family.task
    if not isinstance(task, SequenceClassification) or dataset.label_names is None:
        raise DataError(
            f"family {family.name}: a pipeline answers with the names of classes, and there are "
            "none",
            next_step="give the task's labels",
        )
    tokenizer = load_tokenizer(variant.path / "tokenizer", trust_remote_code=trust_remote_code)
    text_tokenizer = TextTokenizer(
        definition=tokenizer.backend_tokenizer.to_str(),
        is_pair=task.text_pair is not None,
        max_length=task.max_length,
        buckets=task.buckets,
        pad_token_id=int(tokenizer.pad_token_id),
        pad_token_type_id=int(tokenizer.pad_token_type_id),
    )
    pipeline = make_pipeline(variant, text_tokenizer, dataset.label_names)
    return PreparedPipeline(pipeline, text_groups(samples, dataset))


def text_groups(
    samples: Samples, dataset: EncodedDataset
) -> tuple[Mapping[str, NDArray[np.object_]], ...]:
    """The samples as texts, grouped as they are when encoded: the same requests, before tokenising.

    Bytes as Python's objects: numpy's fixed-width bytes lose the zero bytes at a text's end.
    """
    columns = {TEXT: samples.texts} | ({TEXT_PAIR: samples.pairs} if samples.pairs else {})
    arrays = {
        name: np.array([one.encode() for one in texts], object) for name, texts in columns.items()
    }
    return tuple(
        {name: array[group.rows][:, None] for name, array in arrays.items()}
        for group in dataset.groups
    )


def is_pipeline(study: Study, variant: str) -> bool:
    """Whether a name is that of a pipeline rather than of a variant."""
    return variant.endswith(PIPELINE_SUFFIX) and study.family_of(variant).pipeline


def pipeline_trial(result: TrialResult, pipeline: Pipeline) -> Trial:
    """The same load on the whole pipeline, as long as the model alone was measured at most."""
    trial = result.trial
    return dataclasses.replace(trial, variant=pipeline.variant.name, stage=PIPELINE_STAGE, repeat=0)
