"""One trial of a model that generates, on a server that is up: its answers are read as streams."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.flow.external.server import ExternalAddress, open_external
from harness.flow.external.single import SingleLoad, drive_one
from harness.flow.options import RunSettings
from harness.flow.preflight import as_usage, find_model
from harness.flow.serving import Site
from harness.load.generators.pool import REQUEST_TIMEOUT_S
from harness.load.requests.generation import (
    GenerationRequest,
    encode_requests,
    write_requests,
)
from harness.load.transports.contract import ClientLeft, RequestFailure
from harness.load.transports.opening import stream_opener
from harness.runs.folder import RunFolder
from harness.serving.external.openai import OpenAiServer
from harness.serving.external.server import REMOTE_DIGEST, ExternalModel
from harness.system.storage import in_file_names
from harness.types import (
    Generation,
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    ServiceLevelObjective,
    ServingConfig,
    Trial,
    TrialResult,
    Workload,
)
from harness.types.generation import TEXT_INPUT
from harness.words.numbers import asked

_SHOWN = 20


@dataclass(frozen=True)
class GenerationTrial:
    """A trial of streams whose first request was answered."""

    site: Site
    address: ExternalAddress
    trial: Trial
    variant: ModelVariant
    requests: Sequence[GenerationRequest]
    timeout_s: float


@contextmanager
def prepared_generation(
    address: ExternalAddress,
    model: str,
    workload: Workload,
    requests: Sequence[GenerationRequest],
    *,
    timeout_s: float | None = None,
) -> Iterator[GenerationTrial]:
    """Find a model, ask it the first request, and say how it will be measured.

    Args:
        address: the server.
        model: its name there.
        workload: whose `generation` is known.
        requests: the pool.
        timeout_s: the longest wait for a first or next token; None takes a request's usual one.

    Raises:
        UsageError: no such server or model, or one that does not generate; nothing was started.
    """
    generation = workload.generation
    assert generation is not None  # noqa: S101  (the caller's business)
    waits_s = REQUEST_TIMEOUT_S if timeout_s is None else timeout_s
    with _opened(address, model, generation) as (site, known, serving):
        converses = any(one.turns for one in requests)
        prompts = sum(1 + len(one.turns) for one in requests)
        asked = dataclasses.replace(known, converses=converses, prompts=prompts)
        workload = dataclasses.replace(workload, generation=asked)
        _try_first(address, model, workload, requests, waits_s)
        name = in_file_names(model)
        trial = Trial(name, name, serving, workload, stage="load")
        yield GenerationTrial(
            site, address, trial, _variant(address, model, known), requests, waits_s
        )


def known_streams(
    address: ExternalAddress,
    model: str,
    workload: Workload,
    requests: Sequence[GenerationRequest],
    timeout_s: float,
) -> Generation:
    """What a load asks a model for, with what its server says of it; the first prompt is asked.

    Raises:
        UsageError: as `prepared_generation`.
    """
    with prepared_generation(address, model, workload, requests, timeout_s=timeout_s) as found:
        known = found.trial.workload.generation
    assert known is not None  # noqa: S101  (a workload of streams)
    return known


def measure_generation(
    prepared: GenerationTrial,
    slo: ServiceLevelObjective,
    folder: RunFolder,
    settings: RunSettings,
) -> TrialResult:
    """Drive the load, and judge it."""
    payloads = folder.path / "payloads" / "prompts.jsonl"
    write_requests(payloads, prepared.requests)
    load = SingleLoad(
        prepared.site,
        prepared.address,
        prepared.variant,
        payloads,
        prepared.trial,
        prepared.timeout_s,
    )
    return drive_one(load, slo, folder, settings)


@contextmanager
def _opened(
    address: ExternalAddress, model: str, generation: Generation
) -> Iterator[tuple[Site, Generation, ServingConfig]]:
    if generation.api.is_openai:
        server = OpenAiServer(address.target)
        check_model(server, address, model)
        targets = {address.protocol: address.target}
        yield Site(server, server, None, targets), generation, ServingConfig(0, 0, 0, "cpu", 0)
        return
    with open_external(address) as opened:
        found = find_model(opened.server, address.url, model)
        known = of_triton(generation, found)
        site = dataclasses.replace(opened.site(), check_model=lambda _: None)
        yield site, known, found.serving


def of_triton(generation: Generation, found: ExternalModel) -> Generation:
    """How streams are asked of a model on Triton, by the inputs that it has.

    Raises:
        UsageError: it takes no text.
    """
    inputs = {one.name: one for one in found.inputs}
    if inputs and TEXT_INPUT not in inputs:
        raise UsageError(
            f"the model '{found.name}' takes no {TEXT_INPUT}: its inputs are {', '.join(inputs)}",
            next_step="leave --generate out for a model that answers in one, or name another",
        )
    batched = bool(inputs) and len(inputs[TEXT_INPUT].shape) > 1
    return dataclasses.replace(generation, inputs=tuple(inputs), batched=batched)


def check_model(server: OpenAiServer, address: ExternalAddress, model: str) -> None:
    """Make sure that a server of OpenAI's API lists a model; one that has no list may have it.

    Raises:
        UsageError: it does not answer, or lists others.
    """
    with as_usage(next_step="check its address, and that it is up"):
        models = server.models()
    if models is not None and model not in models:
        there = ", ".join(models[:_SHOWN]) or "none"
        raise UsageError(
            f"the server at {address.url} has no model '{model}'", next_step=f"it has: {there}"
        )


def _try_first(
    address: ExternalAddress,
    model: str,
    workload: Workload,
    requests: Sequence[GenerationRequest],
    timeout_s: float,
) -> None:
    """Ask the first request whose client stays: what it fails by, all would."""
    generation = workload.generation
    assert generation is not None  # noqa: S101  (the caller's business)
    first = dataclasses.replace(requests[0], leave_after=0)
    protocol, target = workload.protocol, address.target
    (encoded,) = encode_requests([first], generation, protocol, target, model)
    transport = stream_opener(generation, protocol, target, timeout_s=timeout_s)()
    try:
        transport.send(encoded.body)
    except ClientLeft:  # it was told to stay
        raise
    except RequestFailure as failure:
        raise UsageError(
            f"the server at {address.url} does not answer the first prompt: {failure}",
            next_step="ask it what it said by hand, or name another --generate; a token is waited "
            f"for {asked(timeout_s)} s (--stall-timeout)",
        ) from failure
    finally:
        transport.close()


def _variant(address: ExternalAddress, model: str, generation: Generation) -> ModelVariant:
    """What is served, as far as it is known: its address and its name."""
    identity, name = f"{address.url} {generation.api} {model}", in_file_names(model)
    return ModelVariant(
        name=name,
        family=name,
        role=Role.STUDENT,
        task="generation",
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source="",
        sha256=REMOTE_DIGEST + hashlib.sha256(identity.encode()).hexdigest(),
        path=Path(),
        inputs=(),
        outputs=(),
        parameters=0,
        size_bytes=None,
        served_as=model,
    )
