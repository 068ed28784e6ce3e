"""How gevent's loop waits for a transport's socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Waiter

from harness.load.transports.sockets import Came

_READ = 1
"""Event mask of libev for reading."""


class GeventWaiter:
    """A `SocketWaiter` of gevent's loop.

    Args:
        connected: of gevent's.
    """

    def __init__(self, connected: Any) -> None:
        self.bare: socket.socket = connected._sock
        self._hub = gevent.get_hub()
        self._readable = self._hub.loop.io(connected.fileno(), _READ)

    def wait(self) -> None:
        """As `SocketWaiter` says."""
        self._hub.wait(self._readable)

    def watch(self, look: Callable[[Callable[[Came], object]], None]) -> Came:
        """As `SocketWaiter` says."""
        waiter: Any = Waiter(self._hub)
        self._readable.start(look, waiter.switch)
        try:
            came: Came = waiter.get()
        finally:
            self._readable.stop()
        return came
