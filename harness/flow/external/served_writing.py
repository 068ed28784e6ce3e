"""A server's models that write, as a study's variants: prompts encoded, each asked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import ServerError, UsageError
from harness.flow.external.texts import EndpointTexts, TextEndpoint
from harness.flow.external.writing import ExternalWriting
from harness.flow.external.written_identity import WrittenIdentities
from harness.flow.opening import OpenedFamily, OpenedModel, open_families
from harness.flow.options import RunSettings
from harness.flow.preparation import PreparedFamily
from harness.flow.prompts import prompt_requests
from harness.flow.serving import Served
from harness.load.generators.pool import REQUEST_TIMEOUT_S
from harness.load.requests.generation import GenerationRequest
from harness.quality.writing import Writer
from harness.serving.external.grpc import open_client
from harness.serving.external.server import ExternalModel
from harness.serving.streams import TritonStreams
from harness.study import Family, Study, variant_name
from harness.tasks.generation.rows import PromptDataset
from harness.tasks.registry import family_of
from harness.types import (
    ModelFormat,
    ModelVariant,
)


def serve_writing(study: Study, external: ExternalWriting, settings: RunSettings) -> Served:
    """Encode the prompts, and make sure that every model writes.

    Checkpoints are opened for their tokenizers; no weights are read or fetched.

    Raises:
        UsageError: a model that does not answer the first prompts; nothing was driven yet.
    """
    families = open_families(
        study, study.families, settings.progress, settings.warn, settings.inputs, weights=False
    )
    writer: Writer
    if external.by_tokens:
        address = external.address
        streams = TritonStreams(
            address.target.authority, connect=lambda _: open_client(address.target)
        )
        external.closing.callback(streams.close)
        writer = streams
    else:
        texts = EndpointTexts(_endpoint(external), dict(_prompts(external, families)))
        external.closing.callback(texts.close)
        writer = texts
    identities = WrittenIdentities(writer, external.url, external.tell_of)
    prepared = tuple(_prepared(one, external, identities, settings) for one in families)
    site = dataclasses.replace(external.site, streams=writer, check_model=identities.check)
    return Served(
        prepared,
        site,
        {variant: model.serving for variant, model in external.models.items()},
        generations=external.generations,
    )


def _endpoint(external: ExternalWriting) -> TextEndpoint:
    by_name = {external.models[variant].name: one for variant, one in external.generations.items()}
    address = external.address
    return TextEndpoint(address.target, address.protocol, by_name, REQUEST_TIMEOUT_S)


def _prompts(
    external: ExternalWriting, families: Sequence[OpenedFamily]
) -> Iterator[tuple[str, dict[tuple[int, ...], GenerationRequest]]]:
    """By the model's name there: what is sent for a prompt of these tokens."""
    for variant, opened in _variants(families):
        requests = prompt_requests(opened)
        dataset = opened.dataset
        assert isinstance(dataset, PromptDataset)  # noqa: S101  (of a task that writes)
        yield external.models[variant].name, dict(zip(dataset.prompts, requests, strict=True))


def _variants(families: Sequence[OpenedFamily]) -> Iterator[tuple[str, OpenedModel]]:
    for family in families:
        for opened in family.teacher_first:
            for artefact in opened.model.artefacts:
                yield variant_name(opened.model, *artefact), opened


def _prepared(
    opened: OpenedFamily,
    external: ExternalWriting,
    identities: WrittenIdentities,
    settings: RunSettings,
) -> PreparedFamily:
    variants, by_variant = [], {}
    for name, one in _variants([opened]):
        by_variant[name] = one
        dataset = one.dataset
        assert isinstance(dataset, PromptDataset)  # noqa: S101  (of a task that writes)
        there = external.models[name]
        try:
            identity = identities.establish(
                there.name, dataset.prompts, dataset.stop, dataset.max_new_tokens, settings.warn
            )
        except ServerError as error:
            raise UsageError(
                f"the server at {external.url} does not answer the first prompt: {error}",
                next_step="ask it what it said by hand, or name another --generate",
            ) from error
        variants.append(_variant(name, one, opened.family, there, identity, external))
    return PreparedFamily(
        family=opened.family,
        variants=tuple(variants),
        datasets={name: one.dataset for name, one in by_variant.items()},
        opened=by_variant,
        training_file=opened.training_file,
    )


def _variant(
    name: str,
    opened: OpenedModel,
    family: Family,
    there: ExternalModel,
    identity: str,
    external: ExternalWriting,
) -> ModelVariant:
    (precision,) = {
        precision
        for precision, form in opened.model.artefacts
        if variant_name(opened.model, precision, form) == name
    }
    return ModelVariant(
        name=name,
        family=family.name,
        role=opened.model.role,
        task=family.task.kind,
        format=ModelFormat.ONNX,
        precision=precision,
        source=opened.model.checkpoint,
        sha256=identity,
        path=Path(),
        inputs=there.inputs,
        outputs=there.outputs if external.by_tokens else family_of(family.task).outputs(0),
        parameters=opened.checkpoint.parameters,
        size_bytes=None,
        served_as=there.name,
    )
