"""Ports for processes that listen on one that they are told."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

_LOWEST, _HIGHEST = 20_000, 32_768
"""Linux hands out none of these by itself, unless it is told otherwise."""


def free_port() -> int:
    """A port of this machine that nobody listens on.

    Between this and the listening, seconds may pass, and other tests run. So it is none of those
    that the kernel gives to a connection that is opened, or to who asks for any port (0), and each
    of xdist's test processes has ports of its own.
    """
    given_out = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    highest = max(min(_HIGHEST, int(given_out)), _LOWEST + 1000)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.SystemRandom().randrange(_LOWEST + own, highest, processes)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def free_ports(count: int) -> list[int]:
    """As many different ones."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)
