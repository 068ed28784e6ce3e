"""Asked before any load: what the repository offers, is the server there, do the requests fit.

`harness export` leaves a variant's manifest and payloads beside the model that Triton loads:
`<variant>/manifest.json` and `<variant>/payloads.npz`. Whoever has the repository then needs no
run folder to send it load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ServerError, UsageError
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.fit import check_payloads_fit
from harness.load.requests.payloads import EncodedRequest, Group, draw_workload, encode_payloads
from harness.load.transports.contract import (
    OutputTensor,
    RequestFailure,
    TensorTransport,
    WireAnswer,
)
from harness.serving.external.server import (
    NO_KSERVE,
    READY,
    ExternalModel,
    ExternalServer,
    describe,
    header_asked_for,
    header_step,
)
from harness.types import FREE_SIZE, ServingConfig, TensorSpec, Workload

if TYPE_CHECKING:
    from harness.study import Family

MANIFEST, PAYLOADS = "manifest.json", "payloads.npz"


def variants_in(repository: Path) -> dict[str, Path]:
    """The payload file of each variant of a repository, by the variant's name, in their order.

    A folder without one of the two files is none: hand-written models lie there too. A repository
    that does not exist, or cannot be read, has none.
    """
    try:
        folders = sorted(one for one in repository.iterdir() if (one / MANIFEST).is_file())
    except OSError:
        return {}
    return {one.name: one / PAYLOADS for one in folders if (one / PAYLOADS).is_file()}


def payloads_of(repository: Path, variant: str) -> Path:
    """The payload file of one variant.

    Raises:
        UsageError: the repository has no such variant, or has no payloads for it.
    """
    found = variants_in(repository)
    if variant in found:
        return found[variant]
    if (repository / variant / MANIFEST).is_file():
        problem = f"{repository / variant} has no {PAYLOADS}"
        raise UsageError(problem, next_step="export it again: harness export STUDY writes both")
    known = ", ".join(found) or "none: harness export STUDY makes them"
    raise UsageError(
        f"{repository} has no variant '{variant}'", next_step=f"variants there: {known}"
    )


NAMES_SHOWN = 20
PROBES = 4
"""Requests that tell an output as long as its request from one that was so by chance."""
_REFUSALS = {"http_401", "http_403", "grpc_unauthenticated", "grpc_permission_denied"}
_UNKNOWN = frozenset({"http_404", "http_405", "http_501"})


def check_live(server: ExternalServer, url: str) -> None:
    """Make sure that a server answers, and does not say that it takes no requests.

    One that knows nothing of being asked may answer requests all the same: they will show.

    Raises:
        UsageError: it does not.
    """
    with as_usage(next_step="check its address, and that it is up"):
        problem = server.not_live()
    if problem and NO_KSERVE not in problem:
        raise UsageError(f"the server at {url}: {problem}", next_step=_step_for(problem))


def find_model(server: ExternalServer, url: str, model: str) -> ExternalModel:
    """What a server says of a model that is ready there.

    A server that tells neither which models are ready nor which there are may have it: then what
    is returned is in doubt, and its first request decides.

    Raises:
        UsageError: the server does not have it, or not loaded; names those it has.
    """
    with as_usage():
        if server.model_ready(model):
            return describe(server, model)
        states = server.models()
        if states is None:
            return describe_untold(server, url, model)
    if states and model in states:
        raise UsageError(
            f"the server at {url} has not loaded the model '{model}' "
            f"({states[model] or 'it is only in its repository'})",
            next_step="load it there: this command does not change the server",
        )
    raise UsageError(f"the server at {url} has no model '{model}'", next_step=those_ready(states))


def describe_untold(server: ExternalServer, url: str, model: str) -> ExternalModel:
    """A model of a server that does not tell whether it is there: its first request decides.

    Raises:
        ServerError: the server does not answer.
    """
    problem = server.not_live()
    doubt = f"{url}: {problem}" if problem else f"{url} does not list a model '{model}'"
    return dataclasses.replace(describe(server, model), doubt=f"the server at {doubt}")


def those_ready(states: Mapping[str, str] | None) -> str:
    """The models that a server has ready, in words."""
    ready = sorted(name for name, state in (states or {}).items() if state == READY)
    shown = ", ".join(ready[:NAMES_SHOWN]) + (", ..." if len(ready) > NAMES_SHOWN else "")
    return f"models that are ready there: {shown or 'none that it lists'}"


def check_requests(model: ExternalModel, groups: Sequence[Group], workload: Workload) -> None:
    """Make sure that a workload can be drawn from payloads, and that the model takes it.

    A model whose server does not say what its inputs are is asked by its first request.

    Raises:
        DataError: an input that the model does not have, or has with another datatype or shape;
            a batch above the model's; a mix with a length that no payload has.
    """
    largest = model.serving.max_batch_size
    if model.inputs:
        check_payloads_fit(
            groups,
            rows_apart(model.inputs) if largest else model.inputs,
            largest,
            batch_size=workload.client_batch_size,
            optional=model.optional,
        )
    draw_workload(groups, workload)


def try_one_request(
    model: ExternalModel,
    groups: Sequence[Group],
    workload: Workload,
    open_transport: Callable[[], TensorTransport],
    following: Container[str] = (),
) -> tuple[TensorSpec, ...]:
    """Send the load's first request, by the load's own transport, and look at the answer.

    A few more are sent where an output's dynamic size seems to be as long as the request.

    Args:
        model: as its server describes it.
        groups: arrays (n, ...) by input name.
        workload: what is to be sent.
        open_transport: makes the load's transport.
        following: outputs whose dynamic sizes are known to follow the request's.

    Returns:
        The outputs to hold every answer against; where the server declares none, as it answered.

    Raises:
        UsageError: the server cannot be reached this way, or does not answer as it should.
    """
    payloads = draw_workload(groups, workload)[:PROBES]
    transport = open_transport()
    try:
        request, *others = encode_payloads(payloads, transport, model.name)
        transport.connect()
        answer = transport.send(request.body)
        held = held_outputs(model, answer.layout.outputs, request.batch_size)
        held = _following(held, answer, request, following)
        for other in others if any(-1 in one.shape for one in held) else ():
            held = _following(held, transport.send(other.body), other, following)
        AnswerCheck(held).check(answer, request)
    except RequestFailure as failure:
        step = "check its address and the model's name" if model.doubt else ""
        if failure.kind in _UNKNOWN:
            step = (
                "check the address and the model's name: nothing takes KServe v2's inference "
                "requests there (Triton's metrics, for one, have their own port)"
            )
        if failure.kind.lower() in _REFUSALS or header_asked_for(str(failure)):
            step = header_step(str(failure))
        doubt = f"{model.doubt}; " if model.doubt else ""
        raise UsageError(
            f"{doubt}the first request to '{model.name}' failed: {failure}", next_step=step
        ) from failure
    finally:
        transport.close()
    return held


def takes_binary(
    model: ExternalModel,
    groups: Sequence[Group],
    workload: Workload,
    open_transport: Callable[[], TensorTransport],
) -> bool:
    """Whether a server that says nothing of it takes binary tensors: asked with one request.

    A refusal of the client, or no answer at all, says nothing about bodies.
    """
    payload = draw_workload(groups, workload)[0]
    with closing(open_transport()) as transport:
        try:
            transport.send(transport.encode(model.name, payload.inputs))
        except RequestFailure as failure:
            kind = failure.kind.lower()
            return kind in _REFUSALS or not kind.startswith(("http_", "malformed"))
    return True


def check_served(workload: Workload, serving: ServingConfig, family: Family) -> None:
    """Make sure that a workload fits what the embedded server will be told to serve.

    Raises:
        UsageError: a batch above `max_batch_size`, or a length that the task does not pad to.
    """
    if workload.client_batch_size > serving.max_batch_size:
        raise UsageError(
            f"requests of {workload.client_batch_size} rows: Triton would refuse what is above "
            f"its max_batch_size, {serving.max_batch_size}",
            next_step="raise --max-batch-size or lower --client-batch-size",
        )
    padded = family.task.buckets
    for length, _ in workload.length_mix:
        if length not in padded:
            raise UsageError(
                f"the length mix names {length}, and the samples of {family.name} are not padded "
                "to it",
                next_step=f"the padded lengths there are: {', '.join(map(str, padded))}",
            )


def rows_apart(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The shapes of one row."""
    return tuple(dataclasses.replace(one, shape=one.shape[1:]) for one in specs)


def held_outputs(
    model: ExternalModel,
    answered: Sequence[OutputTensor],
    batch_size: int,
) -> tuple[TensorSpec, ...]:
    """What every answer is compared with: the outputs as they are declared, rows apart.

    Of a model that batches each has the batch dimension. Of another one it has it where it is
    declared with a dynamic first size that was answered with the request's rows.

    Args:
        model: as its server describes it.
        answered: the first answer's outputs; none where nothing was asked yet.
        batch_size: rows of its request.
    """
    shapes = {one.name: one.shape for one in answered}
    if not model.outputs:
        return tuple(_as_answered(one, batch_size) for one in answered)
    held = []
    for spec in model.outputs:
        shape = shapes.get(spec.name)
        batched = model.serving.max_batch_size > 0 or _has_rows(model, spec, shape, batch_size)
        sizes = spec.shape
        if batched and (shape is None or len(shape) == len(sizes)):
            sizes = sizes[1:]
        held.append(dataclasses.replace(spec, shape=sizes, batched=batched))
    return tuple(held)


def _following(
    held: Sequence[TensorSpec],
    answer: WireAnswer,
    request: EncodedRequest,
    known: Container[str],
) -> tuple[TensorSpec, ...]:
    """The same outputs; a dynamic size that differed from the request's follows nothing."""
    shapes = {one.name: one.shape for one in answer.layout.outputs}
    following = []
    for spec in held:
        answered = shapes.get(spec.name, ())[int(spec.batched) :]
        if spec.name in known or len(answered) != len(spec.shape):
            following.append(spec)  # known to, or wrong in a way that the check says best
            continue
        sizes = tuple(
            FREE_SIZE if promised < 0 and size not in request.lengths else promised
            for promised, size in zip(spec.shape, answered, strict=True)
        )
        following.append(dataclasses.replace(spec, shape=sizes))
    return tuple(following)


def _has_rows(
    model: ExternalModel, spec: TensorSpec, shape: tuple[int, ...] | None, batch_size: int
) -> bool:
    """Whether an output of a model that says nothing of batches has one row for each."""
    if any(one.shape and one.shape[0] > 1 for one in model.inputs):
        return False  # it takes requests of one size only
    if shape is None:
        return False
    undeclared = model.config is None and len(shape) == len(spec.shape) + 1
    dynamic = len(shape) == len(spec.shape) and spec.shape[:1] == (-1,)
    return shape[:1] == (batch_size,) and (undeclared or dynamic)


def _as_answered(output: OutputTensor, batch_size: int) -> TensorSpec:
    """Where nothing is declared: name, datatype and rank of the first answer."""
    batched = output.shape[:1] == (batch_size,)
    free = (FREE_SIZE,) * (len(output.shape) - batched)
    return TensorSpec(output.name, output.datatype, free, batched=batched)


def _step_for(problem: str) -> str:
    if "refuses" in problem:
        return header_step(problem)
    return "wait until it is up, or look at its log"


@contextmanager
def as_usage(next_step: str = "") -> Iterator[None]:
    """The error as a usage error: before the start, a silent server is a wrong address."""
    try:
        yield
    except ServerError as error:
        raise UsageError(str(error), next_step=error.next_step or next_step) from error
