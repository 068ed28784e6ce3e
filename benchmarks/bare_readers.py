"""Clients that only read: what a streamed token costs before anybody looks at it.

Each asks a server of `token_senders.py` for its chats, over and over, with the kernel's stamps of
arrival, and returns how many packets it read and in how much CPU time. What the harness costs
beyond that is its own.
"""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client_process import PeerError

REQUEST = b"POST / HTTP/1.1\r\nHost: benchmark\r\n" + b"X-Padding: %060d\r\n\r\n" % 0
LAST_CHUNK = b"0\r\n\r\n"
_STAMPS = 35
"""SO_TIMESTAMPNS, which Python's `socket` has no name for."""
_READ = 1
_RECEIVE_BYTES = 65536
_NOTES_BYTES = socket.CMSG_SPACE(16)


Measured = tuple[int, float]
"""Packets and CPU seconds."""
_IN_C = Path(__file__).with_suffix(".c")


def read_in_c(port: int, streams: int, seconds: float) -> Measured:
    """No Python at all (`bare_readers.c`).

    Raises:
        PeerError: there is no C compiler.
    """
    if (compiler := shutil.which("cc")) is None:
        raise PeerError("no C compiler (cc)")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "reader")
        subprocess.run([compiler, "-O2", "-o", program, _IN_C], check=True)
        command = [program, *map(str, (port, streams, seconds))]
        told = subprocess.run(command, input=REQUEST, capture_output=True, check=True).stdout
    packets, cpu_s = told.split()
    return int(packets), float(cpu_s)


def read_with_epoll(port: int, streams: int, seconds: float) -> Measured:
    """A loop of Python around epoll."""
    poll, by_number = select.epoll(), {}
    for _ in range(streams):
        connected = _ask(port)
        by_number[connected.fileno()] = connected
        poll.register(connected, select.EPOLLIN)
    before_s = time.process_time()
    packets, end_s = 0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        for number, _ in poll.poll(0.1):
            packets += _read(by_number[number])
    return packets, time.process_time() - before_s


def read_with_gevent(port: int, streams: int, seconds: float) -> Measured:
    """Callbacks of gevent's loop, no greenlet between."""
    import gevent

    loop, packets, kept = gevent.get_hub().loop, 0, []

    def read(connected: socket.socket) -> None:
        nonlocal packets
        packets += _read(connected)

    for _ in range(streams):
        connected = _ask(port)
        watcher = loop.io(connected.fileno(), _READ)
        watcher.start(read, connected)
        kept.append((connected, watcher))
    before_s = time.process_time()
    gevent.sleep(seconds)
    return packets, time.process_time() - before_s


BARE: dict[str, Callable[[int, int, float], Measured]] = {
    "reading only, gevent": read_with_gevent,
    "reading only, Python": read_with_epoll,
    "reading only, C": read_in_c,
}


def _ask(port: int) -> Any:
    connected = socket.create_connection(("127.0.0.1", port))
    connected.setsockopt(socket.SOL_SOCKET, _STAMPS, 1)
    connected.sendall(REQUEST)
    return connected


def _read(connected: Any) -> int:
    data, _, _, _ = connected.recvmsg(_RECEIVE_BYTES, _NOTES_BYTES)
    if data.endswith(LAST_CHUNK):
        connected.sendall(REQUEST)
    return 1
