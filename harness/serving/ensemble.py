"""A variant with its pre- and post-processing as Triton serves it: text in, answer out.

    <variant>-tokenize/    Python: TEXT (and TEXT_PAIR) -> the variant's inputs, padded to a bucket
    <variant>/             the model itself, as it is served alone
    <variant>-label/       Python: logits -> LABEL and SCORE, of a classifier; or
    <variant>-spans/       Python: logits -> SPANS as JSON, of a token classifier
    <variant>-ensemble/    the ensemble that joins them; a sentence encoder's ends with the model

All of it lies in the model repository, so a container serves it as the embedded server does, if its
Python has `tokenizers` (pip install tokenizers).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from harness.serving.python_models import (
    ModelLoader,
    add_tensors,
    override_of,
    python_config,
    version_folder,
    write_config_file,
)
from harness.serving.repository import config_override
from harness.study import ENSEMBLE_SUFFIX
from harness.system.storage import storage_errors
from harness.tasks.outcomes import PLACES, TextAnswer
from harness.types import ModelVariant, ServingConfig, TensorSpec

TEXT, TEXT_PAIR = "TEXT", "TEXT_PAIR"

_SOURCES = Path(__file__).parent / "ensemble_models"
_TOKENIZE = "tokenize"
TEXT_TENSORS = "text_tensors.py"
_BESIDE = {_TOKENIZE: TEXT_TENSORS, "spans": "entity_spans.py"}
"""What a part's model imports, by the part."""


@dataclass(frozen=True)
class TextTokenizer:
    """How the first model of an ensemble makes tensors of texts."""

    definition: str
    """The tokenizer as transformers built it, in the form of `tokenizer.json`."""
    is_pair: bool
    max_length: int
    """Tokens; longer texts are truncated."""
    buckets: tuple[int, ...]
    """Padded lengths in ascending order."""
    pad_token_id: int
    pad_token_type_id: int
    truncation_side: str = "right"
    """Where a longer text is cut: `left` keeps its end."""
    split_special_tokens: bool = False
    """Whether special tokens that a text holds are text like any other."""
    unk_token_id: int | None = None
    """Token of what is not in the vocabulary, where words are told apart by it."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that `ensemble_models/text_tensors.py` takes beside the definition, as JSON has it.

        Of a pair it is the longer text that is cut, which is transformers' `truncation=True`.
        """
        return {
            **({} if self.unk_token_id is None else {"unk_token_id": self.unk_token_id}),
            "truncation": {
                "max_length": self.max_length,
                "stride": 0,
                "strategy": "longest_first",
                "direction": self.truncation_side,
            },
            "split_special_tokens": self.split_special_tokens,
            "buckets": list(self.buckets),
            "pads": {
                "input_ids": self.pad_token_id,
                "attention_mask": 0,
                "token_type_ids": self.pad_token_type_id,
            },
        }


@dataclass(frozen=True)
class Ensemble:
    """A variant with its pre- and post-processing, as one servable model."""

    variant: ModelVariant
    """The ensemble: named `<variant>-ensemble`, TEXT in, the answer's outputs out."""
    model: ModelVariant
    """The part in the middle: what is served alone as well."""
    tokenizer: TextTokenizer
    answer: TextAnswer

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the composing models, in the order a request passes them."""
        name = self.model.name
        last = (f"{name}-{self.answer.part}",) if self.answer.part else ()
        return (f"{name}-{_TOKENIZE}", name, *last)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """What the first part makes of the texts."""
        return (*self.model.inputs, *(PLACES if self.answer.takes_places else ()))


def make_ensemble(model: ModelVariant, tokenizer: TextTokenizer, answer: TextAnswer) -> Ensemble:
    """Describe the ensemble around a model; nothing is written."""
    names = (TEXT, TEXT_PAIR) if tokenizer.is_pair else (TEXT,)
    digest = hashlib.sha256(model.sha256.encode())
    made_of = [dataclasses.asdict(tokenizer), dataclasses.asdict(answer)]
    digest.update(json.dumps(made_of).encode())
    for source in sorted(_SOURCES.glob("*.py")):
        digest.update(source.read_bytes())
    variant = dataclasses.replace(
        model,
        name=f"{model.name}{ENSEMBLE_SUFFIX}",
        sha256=digest.hexdigest(),
        path=model.path.with_name(f"{model.name}{ENSEMBLE_SUFFIX}"),
        inputs=tuple(TensorSpec(name, "BYTES", (1,)) for name in names),
        outputs=answer.outputs,
        ensemble_of=model.name,
    )
    return Ensemble(variant, model, tokenizer, answer)


def write_ensemble(ensemble: Ensemble, serving: ServingConfig) -> None:
    """Write the folders of the parts that are not the model, and of the ensemble.

    Raises:
        StorageError: the repository cannot be written.
    """
    repository = ensemble.model.path.parent
    for name, config in _configs(ensemble, serving).items():
        version = version_folder(repository, name)
        with storage_errors(repository):
            kind = name.rpartition("-")[2]
            source = _SOURCES / f"{kind}_model.py"
            if source.is_file():
                shutil.copyfile(source, version / "model.py")
            if kind in _BESIDE:
                shutil.copyfile(_SOURCES / _BESIDE[kind], version / _BESIDE[kind])
            if kind == _TOKENIZE:
                definition = ensemble.tokenizer.definition
                (version / "tokenizer.json").write_text(definition, encoding="utf-8")
        write_config_file(repository, name, config)


def load_ensemble(control: ModelLoader, ensemble: Ensemble, serving: ServingConfig) -> None:
    """Load the model as asked, the other parts, and then the ensemble over them.

    Raises:
        ServerError: with Triton's own message.
    """
    control.load(ensemble.model.name, config_override(ensemble.model, serving))
    for name, config in _configs(ensemble, serving).items():
        control.load(name, override_of(config))


def unload_ensemble(control: ModelLoader, ensemble: Ensemble) -> None:
    """Unload the ensemble first, then its parts.

    Raises:
        ServerError: with Triton's own message.
    """
    for name in (ensemble.variant.name, *reversed(ensemble.parts)):
        control.unload(name)


def _configs(ensemble: Ensemble, serving: ServingConfig) -> dict[str, pb.ModelConfig]:
    """By name, the configuration of each composing model; the ensemble's own comes last."""
    tokenize, _, *last = ensemble.parts
    return {
        tokenize: _tokenize_config(ensemble, serving),
        **{name: _last_config(ensemble, name, serving) for name in last},
        ensemble.variant.name: _ensemble_config(ensemble, serving),
    }


def _tokenize_config(ensemble: Ensemble, serving: ServingConfig) -> pb.ModelConfig:
    tokenizer, name = ensemble.tokenizer, ensemble.parts[0]
    return python_config(
        name,
        max_batch_size=serving.max_batch_size,
        inputs=ensemble.variant.inputs,
        outputs=ensemble.tensors,
        parameters={"settings": json.dumps(tokenizer.settings)},
    )


def _last_config(ensemble: Ensemble, name: str, serving: ServingConfig) -> pb.ModelConfig:
    places = PLACES if ensemble.answer.takes_places else ()
    return python_config(
        name,
        max_batch_size=serving.max_batch_size,
        inputs=(*ensemble.model.outputs, *places),
        outputs=ensemble.variant.outputs,
        parameters=ensemble.answer.parameters,
    )


def _ensemble_config(ensemble: Ensemble, serving: ServingConfig) -> pb.ModelConfig:
    variant, model = ensemble.variant, ensemble.model
    config = pb.ModelConfig(
        name=variant.name, platform="ensemble", max_batch_size=serving.max_batch_size
    )
    add_tensors(config, variant.inputs, variant.outputs)
    places = PLACES if ensemble.answer.takes_places else ()
    flows = [(variant.inputs, ensemble.tensors), (model.inputs, model.outputs)]
    if ensemble.answer.part:
        flows.append(((*model.outputs, *places), variant.outputs))
    for part, (inputs, outputs) in zip(ensemble.parts, flows, strict=True):
        step = config.ensemble_scheduling.step.add(model_name=part, model_version=-1)
        for spec in inputs:
            step.input_map[spec.name] = spec.name
        for spec in outputs:
            step.output_map[spec.name] = spec.name
    return config
