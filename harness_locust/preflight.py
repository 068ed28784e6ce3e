"""Whether a plan can work at all: asked of its files and its server, before any load."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from harness.errors import ServerError, UsageError
from harness.flow.preflight import (
    check_live,
    check_requests,
    find_model,
    held_outputs,
    rows_apart,
    takes_binary,
    try_one_request,
)
from harness.load.requests.answers import read_known_answers
from harness.load.requests.fit import cast_payloads
from harness.load.requests.payloads import Group, read_payloads
from harness.load.transports.address import Target
from harness.load.transports.contract import TensorTransport
from harness.load.transports.opening import transport_opener
from harness.serving.external.http import HttpServer
from harness.serving.external.server import BINARY_TENSORS, ExternalModel, ExternalServer
from harness.types import FREE_SIZE, Generation, TensorSpec, WireProtocol
from harness_locust.plan import Plan
from harness_locust.triton_users import make_grpc_yield

logger = logging.getLogger("harness")


def check_plan(plan: Plan) -> None:
    """Refuse a plan that could only fail; a variant of the repository is loaded where it is not.

    Raises:
        UsageError: a file that cannot be read, a server that does not answer or is not ready, a
            model it does not have, payloads that do not fit the model.
    """
    if plan.workload.generation is not None:
        ask_for_streams(plan)
        return
    payloads = read_payloads(plan.payloads)
    if plan.known_answers is not None:
        read_known_answers(plan.known_answers)
    asked = ask_about(plan, payloads)
    groups = cast_payloads(payloads, asked.model.inputs)
    check_requests(asked.model, groups, plan.workload)
    if asked.model.doubt:
        try_one_request(asked.model, groups, plan.workload, _opener(plan, asked.target))


@dataclass(frozen=True)
class Asked:
    """What a server said, asked for one plan."""

    model: ExternalModel
    target: Target
    """Where load is sent, with JSON bodies where the server takes no others."""


def ask_about(plan: Plan, payloads: Sequence[Group]) -> Asked:
    """What the server says of the model, and which bodies it takes.

    Raises:
        UsageError: it cannot be reached, is not ready, has no such model, or cannot load it.
    """
    try:
        with closing(server_of(plan)) as server:
            check_live(server, plan.host)
            facts = server.facts()
            if plan.from_repository and not server.model_ready(plan.model):
                server.load(plan.model)
            model = find_model(server, plan.host, plan.model)
    except ServerError as error:
        raise UsageError(str(error), next_step=error.next_step) from error
    if plan.workload.protocol is not WireProtocol.HTTP:
        return Asked(model, plan.target)
    binary = BINARY_TENSORS in facts.extensions
    if not facts.told:
        binary = takes_binary(model, payloads, plan.workload, _opener(plan, plan.target))
    return Asked(model, replace(plan.target, binary=binary))


def ask_for_streams(plan: Plan) -> Generation:
    """What the server says of a model that writes; the first prompt is asked.

    Raises:
        UsageError: it cannot be reached, has no such model, or does not answer as asked.
        DataError: the payloads are no prompts.
    """
    if plan.workload.protocol is WireProtocol.GRPC:
        make_grpc_yield()
    from harness.flow.external.generation import known_streams
    from harness.flow.external.server import ExternalAddress

    address = ExternalAddress(
        plan.host, plan.target, plan.workload.protocol, plan.metrics_url or None
    )
    prompts = plan.prompts(logger.warning)
    return known_streams(address, plan.model, plan.workload, prompts, plan.request_timeout_s)


def _opener(plan: Plan, target: Target) -> Callable[[], TensorTransport]:
    """Opens transports that need no event loop, for single requests."""
    return transport_opener(
        plan.workload.protocol, target, timeout_s=plan.request_timeout_s, grpc=plan.grpc
    )


def expected_outputs(model: ExternalModel, plan: Plan) -> tuple[TensorSpec, ...]:
    """What the model answers with, as the answer check wants it."""
    # Whether a model without a configuration batches is not told: nearly all declare rows.
    rows = rows_apart(model.outputs) if model.config is None else held_outputs(model, (), 1)
    if plan.from_repository:
        return rows
    return tuple(replace(one, shape=tuple(map(_free, one.shape))) for one in rows)


def _free(size: int) -> int:
    """A declared dimension of the output of a model the harness did not export.

    A dynamic one need not follow the request's.
    """
    return FREE_SIZE if size < 0 else size


def server_of(plan: Plan) -> ExternalServer:
    """A client of the plan's server, in its protocol."""
    if plan.workload.protocol is WireProtocol.HTTP:
        return HttpServer(plan.target)
    make_grpc_yield()
    from harness.serving.external.grpc import GrpcServer

    return GrpcServer(plan.target)
