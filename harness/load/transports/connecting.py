"""Opening a connection: TCP, TLS; and whether an idle one still stands."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import lru_cache

from harness.load.transports.address import Target
from harness.system.connections import connect

_ESTABLISHED = 1  # TCP_ESTABLISHED of Linux's include/net/tcp_states.h

ReadWaiter = Callable[[socket.socket], Callable[[], object]]
"""Makes, for a socket, what waits until it can be read.

In an event loop a read that is tried before the answer can be there costs a system call and an
exception, a sixth of all that a request costs: with a waiter it is not tried. Whoever knows the
event loop brings one; without, sockets wait by themselves.
"""


def wait_for(connected: socket.socket, waiter: ReadWaiter | None) -> Callable[[], object] | None:
    """What to call before reading, or None: what TLS has decrypted already makes nothing ready."""
    if waiter is None or isinstance(connected, ssl.SSLSocket):
        return None
    return waiter(connected)


def open_socket(target: Target, *, alpn: str, timeout_s: float) -> socket.socket:
    """Connect, with TLS where the target asks for it; the socket then blocks without a timeout.

    Args:
        target: the server.
        alpn: application protocol to offer over TLS, and the only one taken: `http/1.1`, `h2`.
        timeout_s: for all of it, the name's resolution and every address included.

    Raises:
        OSError: unresolvable, refused, unreachable, TLS that does not verify (`ssl.SSLError` is
            an OSError), or another application protocol.
        UsageError: the certificates to trust cannot be read.
    """
    connected = connect(target.host, target.port, timeout_s=timeout_s)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.encrypted:
            connected = _encrypt(connected, target, alpn)
        connected.settimeout(None)
    except BaseException:
        connected.close()
        raise
    return connected


def _encrypt(connected: socket.socket, target: Target, alpn: str) -> ssl.SSLSocket:
    context = _tls_context(target, alpn)
    encrypted = context.wrap_socket(connected, server_hostname=target.host)
    chosen = encrypted.selected_alpn_protocol()
    if chosen not in {alpn, None}:
        encrypted.close()
        raise ConnectionError(f"the server speaks {chosen}, not {alpn}")
    return encrypted


@lru_cache(maxsize=8)
def _tls_context(target: Target, alpn: str) -> ssl.SSLContext:
    """One for all connections: reading the system's certificates takes tens of milliseconds."""
    return target.tls_context(alpn)


def stands(connected: socket.socket) -> bool:
    """Whether the server has not hung up yet, as far as this machine has heard.

    Asks for the state of TCP (the first byte of `tcp_info`): unlike a look at what can be read
    it is not misled by what TLS sends on its own, and never waits, under gevent neither.
    """
    state = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == _ESTABLISHED
