"""Whether a plan can work at all: asked of its files and its server, before any load."""

from __future__ import annotations

from contextlib import closing

from harness.errors import ServerError, UsageError
from harness.load.known_answers import read_known_answers
from harness.load.payloads import read_payloads
from harness.pipeline.preflight import check_live, check_requests, find_model
from harness.serving.remote import RemoteModel, RemoteServer
from harness.serving.remote_http import HttpServer
from harness.types import TensorSpec, WireProtocol
from plan import Plan
from triton_users import befriend_grpc_and_gevent


def check_plan(plan: Plan) -> None:
    """Refuse a plan that could only fail; a variant of the repository is loaded where it is not.

    Raises:
        UsageError: a file that cannot be read, a server that does not answer or is not ready, a
            model it does not have, payloads that do not fit the model.
    """
    payloads = read_payloads(plan.payloads)
    if plan.known_answers is not None:
        read_known_answers(plan.known_answers)
    check_requests(ask_about(plan), payloads, plan.workload)


def ask_about(plan: Plan) -> RemoteModel:
    """What the server says of the model.

    Raises:
        UsageError: it cannot be reached, is not ready, has no such model, or cannot load it.
    """
    try:
        with closing(server_of(plan)) as server:
            check_live(server, plan.host)
            if plan.from_repository and not server.model_ready(plan.model):
                server.load(plan.model)
            return find_model(server, plan.host, plan.model)
    except ServerError as error:
        raise UsageError(str(error), next_step=error.next_step) from error


def expected_outputs(model: RemoteModel) -> tuple[TensorSpec, ...]:
    """What the model answers with, as the answer check wants it: without the batch dimension."""
    return tuple(TensorSpec(one.name, one.datatype, one.shape[1:]) for one in model.outputs)


def server_of(plan: Plan) -> RemoteServer:
    """A client of the plan's server, in its protocol."""
    if plan.workload.protocol is WireProtocol.HTTP:
        return HttpServer(plan.target)
    befriend_grpc_and_gevent()
    from harness.serving.remote_grpc import GrpcServer

    return GrpcServer(plan.target)
