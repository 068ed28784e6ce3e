"""Which transport speaks a protocol; each is imported only where it is used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.load.transports.address import Target
from harness.load.transports.contract import TensorTransport, Transport
from harness.load.transports.sockets import ReadWaiter, kernel_stamps
from harness.types import Generation, GrpcImplementation, WireProtocol, Workload


def answers_are_stamped(
    protocol: WireProtocol, target: Target, grpc: GrpcImplementation = GrpcImplementation.NATIVE
) -> bool:
    """Whether latencies end when the kernel received the answer, not when it was read."""
    grpcio = protocol is WireProtocol.GRPC and grpc is GrpcImplementation.GRPCIO
    return not target.encrypted and not grpcio and kernel_stamps()


def longest_request_s(workload: Workload, timeout_s: float) -> float:
    """How long a request in flight may take until it ends by itself, its connection made already.

    Args:
        workload: what is asked.
        timeout_s: of a request; of a stream, for each gap of its answer.
    """
    if workload.generation is None:
        return timeout_s
    from harness.load.transports.streams.http import LONGEST_S

    # The wait for its first bytes comes before that time, and its last gap may begin within it.
    return timeout_s + LONGEST_S + timeout_s


def transport_opener(
    protocol: WireProtocol,
    target: Target,
    *,
    timeout_s: float,
    grpc: GrpcImplementation = GrpcImplementation.NATIVE,
    waiter: ReadWaiter | None = None,
) -> Callable[[], TensorTransport]:
    """What makes a transport for one user; it connects when it is asked to.

    Args:
        protocol: what it speaks.
        target: the server.
        timeout_s: of a request, from its first byte to the answer's last.
        grpc: which implementation.
        waiter: of the process's event loop, where it has one.
    """
    if protocol is WireProtocol.HTTP:
        from harness.load.transports.http.transport import HttpTransport

        return partial(HttpTransport, target, timeout_s=timeout_s, waiter=waiter)
    if grpc is GrpcImplementation.GRPCIO:
        from harness.load.transports.grpc.grpcio import GrpcioTransport

        return partial(GrpcioTransport, target, timeout_s=timeout_s)
    from harness.load.transports.grpc.transport import GrpcTransport

    return partial(GrpcTransport, target, timeout_s=timeout_s, waiter=waiter)


def stream_opener(
    generation: Generation,
    protocol: WireProtocol,
    target: Target,
    *,
    timeout_s: float,
    waiter: ReadWaiter | None = None,
) -> Callable[[], Transport]:
    """What makes a transport for one user whose answers come token by token.

    Args:
        generation: by which interface, and what counts the tokens.
        protocol: of Triton's interface; OpenAI's is HTTP.
        target: the server.
        timeout_s: for each gap of an answer.
        waiter: of the process's event loop, where it has one.

    Raises:
        UsageError, MissingExtraError: the tokenizer cannot be read.
    """
    from harness.load.transports.streams.counting import token_counter

    counter = token_counter(generation.tokenizer) if generation.tokenizer else None
    if protocol is WireProtocol.GRPC:
        from harness.load.transports.streams.grpc import GrpcStreamTransport

        return partial(
            GrpcStreamTransport, target, timeout_s=timeout_s, waiter=waiter, counter=counter
        )
    from harness.load.transports.streams import events
    from harness.load.transports.streams.http import HttpStreamTransport

    openai = generation.api.is_openai
    return partial(
        HttpStreamTransport,
        target,
        events.parse_openai if openai else events.parse_generate,
        events.finish_openai if openai else events.finish_generate,
        timeout_s=timeout_s,
        waiter=waiter,
        counter=counter,
    )
