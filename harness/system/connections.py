"""Connections: a name is asked for once per process, and nothing waits for it beyond its own time.

`socket.create_connection` asks the name server for every connection, and waits for it without a
limit: with a slow one, users that connect again would measure it instead of the model's server, a
trial would outlive the time in which its last request must have ended, and the server's counters
would be read long after the window's edge.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import Future
from functools import lru_cache, partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any

Address = tuple[int, int, int, str, tuple[Any, ...]]
"""An entry of `socket.getaddrinfo`: family, type, protocol, canonical name, socket address."""
_SHORTEST_S = 0.001

_lookups: dict[tuple[str, int], Future[Sequence[Address]]] = {}
"""Name look-ups that are under way, and those that succeeded."""
_lock = threading.Lock()


def connect(host: str, port: int, *, timeout_s: float) -> socket.socket:
    """To the first of a host's addresses that takes the connection.

    Args:
        host: a name or an address.
        port: of TCP.
        timeout_s: for all of it, the name's resolution and every address included; what is left
            of it is the socket's timeout.

    Raises:
        OSError: unresolvable, refused or unreachable; what the last address said.
        TimeoutError: nobody has answered within `timeout_s`.
    """
    deadline_s = time.monotonic() + timeout_s
    problem = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in resolve(host, port, timeout_s=timeout_s):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(_until(deadline_s))
            connected.connect(address)
            connected.settimeout(_until(deadline_s))
        except OSError as error:
            connected.close()
            problem = error
        except BaseException:
            connected.close()
            raise
        else:
            return connected
    forget(host, port)
    raise problem


def resolve(host: str, port: int, *, timeout_s: float) -> Sequence[Address]:
    """Addresses of a server, in the order in which they should be tried.

    A lookup that takes longer goes on, for whoever asks next; one that failed is tried again.

    Raises:
        OSError: the name is not known (`socket.gaierror`).
        TimeoutError: nobody has answered within `timeout_s`.
    """
    place = (host, port)
    with _lock:
        lookup = _lookups.get(place)
        is_new = lookup is None
        if lookup is None:
            lookup = _lookups[place] = Future()
    if is_new:  # not under the lock: a greenlet's start lets others run
        threading.Thread(target=_look_up, args=(place, lookup), daemon=True).start()
    try:
        return lookup.result(timeout_s)
    except TimeoutError as error:
        raise TimeoutError(f"the name {host} is not resolved yet") from error


def forget(host: str, port: int) -> None:
    """Ask again next time: nobody could be reached at the addresses that were found."""
    with _lock:
        _lookups.pop((host, port), None)


@lru_cache(maxsize=8)
def url_opener(tls: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """The standard library's client of URLs over `connect`; every `open` needs a timeout.

    One for all that trust alike: reading the system's certificates takes tens of milliseconds.

    Proxies of the environment are not used: what is measured is the server, and not the way to it.

    Args:
        tls: which certificates to trust; None trusts the system's.
    """
    https = _HTTPSHandler(tls or ssl.create_default_context())
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), _HTTPHandler(), https)


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_HTTPConnection, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(context=tls)
        self._tls = tls

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_HTTPSConnection, tls=self._tls), req)


class _HTTPConnection(HTTPConnection):
    def connect(self) -> None:
        self.sock = _connect_for(self)


class _HTTPSConnection(HTTPSConnection):
    def __init__(self, host: str, *, tls: ssl.SSLContext, **arguments: Any) -> None:
        super().__init__(host, context=tls, **arguments)
        self._tls = tls

    def connect(self) -> None:
        plain = _connect_for(self)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _connect_for(connection: HTTPConnection) -> socket.socket:
    timeout_s = connection.timeout
    assert timeout_s is not None  # noqa: S101  (`url_opener` asks for one)
    connected = connect(connection.host, connection.port, timeout_s=timeout_s)
    connected.settimeout(timeout_s)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _look_up(place: tuple[str, int], lookup: Future[Sequence[Address]]) -> None:
    try:
        lookup.set_result(socket.getaddrinfo(*place, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001  (raised to whoever asked)
        with _lock:
            if _lookups.get(place) is lookup:
                del _lookups[place]
        lookup.set_exception(error)


def _until(deadline_s: float) -> float:
    """Seconds, always some: 0 would ask for a socket that does not wait at all."""
    return max(_SHORTEST_S, deadline_s - time.monotonic())
