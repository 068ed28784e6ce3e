r"""Locust users that drive a model on Triton; every answer is checked.

By itself, with Locust's web page or without, on payloads that a run of the harness left behind:

    locust -f locustfiles/triton.py --host http://127.0.0.1:8000 \
        --model topics-student-fp32 --payloads runs/<run>/payloads/topics.npz
    locust -f locustfiles/triton.py --host grpc://127.0.0.1:8001 --model ... --payloads ...

The host's scheme chooses the user. `session.py` runs the same users for the harness.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gevent
from locust import User, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import WorkerRunner

from harness.errors import HarnessError, UsageError
from harness.load.answers import AnswerCheck
from harness.load.closed_loop import ClosedLoop
from harness.load.payloads import (
    EncodedRequest,
    Payload,
    draw_payloads,
    encode_payloads,
    read_payloads,
)
from harness.load.transports.contract import Transport
from harness.load.transports.http import HttpTransport

REQUEST_TIMEOUT_S = 30.0
MOST_BLOCKING_CALLS = 10_000
"""Cap of gevent's native thread pool; threads are made as they are needed."""
GOLDEN_RATIO = 0.6180339887498949

logger = logging.getLogger(__name__)


@dataclass
class Traffic:
    """What the users of one test send."""

    model: str
    requests: Sequence[EncodedRequest]
    check: AnswerCheck
    next_user: int = 0

    def first_request(self) -> int:
        """Index of the next user's first request.

        Multiples of the golden ratio, so that users start apart however many there will be.
        """
        first = int(self.next_user * GOLDEN_RATIO * len(self.requests)) % len(self.requests)
        self.next_user += 1
        return first


class TritonUser(User):
    """One request in flight: the next is sent when the one before is answered."""

    abstract = True
    wait_time = constant(0)
    request_type: ClassVar[str]
    scheme: ClassVar[str]
    traffic: ClassVar[Traffic | None] = None
    timeout_s: ClassVar[float] = REQUEST_TIMEOUT_S

    @classmethod
    def open_transport(cls, address: str) -> Transport:
        """This protocol's transport; it connects when it is asked to."""
        raise NotImplementedError

    @classmethod
    def encode(cls, model: str, payloads: Sequence[Payload], address: str) -> list[EncodedRequest]:
        """The payloads in this protocol's bytes."""
        return encode_payloads(payloads, cls.open_transport(address), model)

    def on_start(self) -> None:
        """Take a place in the traffic."""
        self.transport = self.open_transport(self.host or "")
        if self.traffic is not None:
            self.loop = ClosedLoop(
                self.transport,
                self.traffic.requests,
                self.traffic.check,
                first=self.traffic.first_request(),
            )

    def on_stop(self) -> None:
        """Hang up."""
        self.transport.close()

    @task
    def infer(self) -> None:
        """Send one request and tell Locust what became of it."""
        if self.traffic is None:
            raise StopUser  # make_traffic said why
        exchange = self.loop.step()
        record = exchange.record
        self.environment.events.request.fire(
            request_type=self.request_type,
            name=self.traffic.model,
            response_time=(record.completed_ns - record.scheduled_ns) / 1e6,
            response_length=exchange.answer_bytes,
            exception=exchange.failure,
            context=self.context(),
        )


class TritonHttpUser(TritonUser):
    """KServe v2 over HTTP with binary tensors."""

    request_type = "HTTP"
    scheme = "http"

    @classmethod
    def open_transport(cls, address: str) -> Transport:
        """A connection of its own."""
        return HttpTransport(address, timeout_s=cls.timeout_s)


class TritonGrpcUser(TritonUser):
    """KServe v2 over gRPC."""

    request_type = "gRPC"
    scheme = "grpc"

    @classmethod
    def open_transport(cls, address: str) -> Transport:
        """A channel of its own."""
        befriend_grpc_and_gevent()
        from harness.load.transports.grpc import GrpcTransport

        return GrpcTransport(address, timeout_s=cls.timeout_s)


USERS: tuple[type[TritonUser], ...] = (TritonHttpUser, TritonGrpcUser)


@cache
def befriend_grpc_and_gevent() -> None:
    """Make grpcio's blocking calls yield to other greenlets; before the first channel, once.

    A blocking call holds a native thread of gevent's pool. With the ten it has by default, the
    eleventh user would wait for another's answer, and its latency would be the generator's fault.
    """
    from grpc.experimental.gevent import init_gevent

    init_gevent()
    gevent.get_hub().threadpool.maxsize = MOST_BLOCKING_CALLS


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks are untyped
def add_arguments(parser: LocustArgumentParser) -> None:
    """The harness's own arguments, on the command line and on the web page's start form."""
    group = parser.add_argument_group("Triton")
    group.add_argument("--model", default="", help="Name of the model on the server")
    group.add_argument("--payloads", default="", help="Payload file (.npz) of a harness run")
    group.add_argument("--client-batch-size", type=int, default=1, help="Rows a request")
    group.add_argument("--payload-seed", type=int, default=0, help="Draws rows from the payloads")


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks are untyped
def choose_users(environment: Environment, **_: Any) -> None:
    """Keep the user that speaks the host's scheme; a worker keeps all and is told which to run."""
    speaking = [user for user in environment.user_classes if _speaks(user, environment.host)]
    if speaking and not isinstance(environment.runner, WorkerRunner):
        environment.user_classes[:] = speaking


@events.test_start.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks are untyped
def make_traffic(environment: Environment, **_: Any) -> None:
    """Encode the payloads for the users of a test that Locust itself drives.

    A mistake ends a headless test; on the web page it can be mended and the test started again.
    """
    options = environment.parsed_options
    if options is None:
        return  # driven by session.py, which brings its own
    for user in USERS:
        user.traffic = None
    try:
        user = _user_for(environment)
        user.traffic = _traffic_of(user, environment.host or "", options)
    except HarnessError as error:
        logger.error("%s", "; ".join(filter(None, [str(error), error.next_step])))
        if options.headless:
            raise SystemExit(error.exit_code) from error


def _speaks(user: type[User], host: str | None) -> bool:
    scheme = host.partition("://")[0] if host and "://" in host else TritonHttpUser.scheme
    return issubclass(user, TritonUser) and user.scheme == scheme


def _user_for(environment: Environment) -> type[TritonUser]:
    for user in environment.user_classes:
        if issubclass(user, TritonUser) and _speaks(user, environment.host):
            return user
    names = ", ".join(user.__name__ for user in environment.user_classes)
    raise UsageError(
        f"{names} does not speak what --host {environment.host} says",
        next_step="write the host as http://HOST:PORT or grpc://HOST:PORT and restart Locust",
    )


def _traffic_of(user: type[TritonUser], address: str, options: Namespace) -> Traffic:
    if not options.model or not options.payloads:
        raise UsageError(
            "nothing to send", next_step="--model and --payloads say what: both are needed"
        )
    payloads = draw_payloads(
        read_payloads(Path(options.payloads)),
        batch_size=options.client_batch_size,
        seed=options.payload_seed,
    )
    requests = user.encode(options.model, payloads, address)
    return Traffic(options.model, requests, AnswerCheck())
