"""Name resolution: once for all connections of a process, and never longer than a request may take.

`socket.create_connection` asks the name server for every connection, and waits for it without a
limit: with a slow one, users that connect again would measure it in place of the model's server,
and a trial would outlive the time in which its last request must have ended.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from harness.load.transports.address import Target

Address = tuple[int, int, int, str, tuple[Any, ...]]
"""An entry of `socket.getaddrinfo`: family, type, protocol, canonical name, socket address."""

_lookups: dict[tuple[str, int], Future[Sequence[Address]]] = {}
"""Those that are under way, and those that succeeded."""
_lock = threading.Lock()


def resolve(target: Target, *, timeout_s: float) -> Sequence[Address]:
    """Addresses of a server, in the order in which they should be tried.

    A lookup that takes longer goes on, for whoever asks next; one that failed is tried again.

    Raises:
        OSError: the name is not known (`socket.gaierror`).
        TimeoutError: nobody has answered within `timeout_s`.
    """
    place = (target.host, target.port)
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
        raise TimeoutError(f"the name {target.host} is not resolved yet") from error


def forget(target: Target) -> None:
    """Ask anew next time: nobody could be reached at the addresses that were found."""
    with _lock:
        _lookups.pop((target.host, target.port), None)


def _look_up(place: tuple[str, int], lookup: Future[Sequence[Address]]) -> None:
    try:
        lookup.set_result(socket.getaddrinfo(*place, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001  (raised to whoever asked)
        with _lock:
            if _lookups.get(place) is lookup:
                del _lookups[place]
        lookup.set_exception(error)
