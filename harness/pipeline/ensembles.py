"""The pipelines of a family that asks for them: text in, label out, around each variant."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.pipeline.travel import check_travel, travelling_tokenizer
from harness.serving.ensemble import TEXT, TEXT_PAIR, Pipeline, TextTokenizer, make_pipeline
from harness.study import PIPELINE_SUFFIX, Family, SequenceClassification, Study
from harness.tasks.encoding import EncodedDataset
from harness.tasks.samples import Samples
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
    folder: Path,
    *,
    trust_remote_code: bool,
) -> PreparedPipeline:
    """Describe a variant's pipeline with its checkpoint's tokenizer.

    Args:
        family: whose task it does.
        variant: the model alone.
        samples: the study's rows.
        dataset: the same as the model alone takes them.
        folder: of the checkpoint.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        DataError: nobody names the classes, or two have one name.
        CheckpointError: inside the server its tokenizer would make other tokens.
    """
    tokenizer = checked_tokenizer(
        family, samples, dataset, folder, trust_remote_code=trust_remote_code
    )
    pipeline = make_pipeline(variant, tokenizer, dataset.label_names or ())
    return PreparedPipeline(pipeline, text_groups(samples, dataset))


def checked_tokenizer(
    family: Family,
    samples: Samples,
    dataset: EncodedDataset,
    folder: Path,
    *,
    trust_remote_code: bool,
) -> TextTokenizer:
    """What a pipeline's first part would run, if the pipeline can answer rightly at all.

    Raises:
        DataError: nobody names the classes, or two have one name.
        CheckpointError: inside the server its tokenizer would make other tokens.
    """
    task, labels = family.task, dataset.label_names
    if not isinstance(task, SequenceClassification) or labels is None:
        raise DataError(
            "a pipeline answers with the names of classes, and there are none",
            next_step="give the task's labels",
        )
    repeated = sorted({name for name in labels if labels.count(name) > 1})
    if repeated:
        raise DataError(
            f"a pipeline answers with the names of classes, and two have the same: "
            f"{', '.join(repeated)}",
            next_step="name each class once in the checkpoint's id2label",
        )
    tokenizer = travelling_tokenizer(task, folder, trust_remote_code=trust_remote_code)
    names = list(dataset.groups[-1].inputs)
    check_travel(tokenizer, samples, folder, names, trust_remote_code=trust_remote_code)
    return tokenizer


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
