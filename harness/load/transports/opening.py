"""Which transport speaks a protocol; each is imported only where it is used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.load.transports.address import Target
from harness.load.transports.contract import Transport
from harness.load.transports.sockets import ReadWaiter, kernel_stamps
from harness.types import GrpcImplementation, WireProtocol


def answers_are_stamped(
    protocol: WireProtocol, target: Target, grpc: GrpcImplementation = GrpcImplementation.NATIVE
) -> bool:
    """Whether latencies end when the kernel received the answer, not when it was read."""
    grpcio = protocol is WireProtocol.GRPC and grpc is GrpcImplementation.GRPCIO
    return not target.encrypted and not grpcio and kernel_stamps()


def transport_opener(
    protocol: WireProtocol,
    target: Target,
    *,
    timeout_s: float,
    grpc: GrpcImplementation = GrpcImplementation.NATIVE,
    waiter: ReadWaiter | None = None,
) -> Callable[[], Transport]:
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
