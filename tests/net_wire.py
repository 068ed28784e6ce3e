"""A wire between network namespaces that delays, reorders, loses and cuts, as `tc netem` would.

Kernels are built without netem; this needs `/dev/net/tun` alone. Every end of the wire is a TAP
device, whose frames a thread hands from one end to the other when they are due.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import selectors
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME_BYTES = 1 << 16
_MAC_BYTES = 6
_MOST_AT_ONCE = 64


@dataclass
class Link:
    """How one end's frames travel; may be changed at any time."""

    delay_s: float = 0.0
    """Of a frame that leaves this end."""
    delay_back_s: float | None = None
    """Of a frame that comes to this end; None: the same."""
    jitter_s: float = 0.0
    """Up to so much is added by chance, frame by frame: they overtake each other."""
    loss: float = 0.0
    """Share of the frames that get lost, either way."""
    cut: bool = False
    """Nothing gets through, either way; what is under way already arrives."""
    frames: int = 0
    """How many have left this end."""
    payload_bytes: int = 0
    """Their lengths added up."""

    @property
    def back_s(self) -> float:
        """Seconds that a frame to this end is under way."""
        return self.delay_s if self.delay_back_s is None else self.delay_back_s


class Wire:
    """A switch with a slow line to each of its ends; a context manager.

    Args:
        seed: of what is left to chance.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._links: dict[int, Link] = {}
        self._places: dict[bytes, int] = {}
        """Which end has which hardware address."""
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._order = count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for end in self._links:
            os.close(end)
        self._selector.close()

    def attach(self, interface: str, link: Link) -> None:
        """Make a TAP device of this name, in the namespace of the caller, and serve it.

        Raises:
            OSError: it may not be made.
        """
        end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", interface.encode(), _IFF_TAP | _IFF_NO_PI)
        try:
            fcntl.ioctl(end, _TUNSETIFF, request)
        except OSError:
            os.close(end)
            raise
        self._links[end] = link
        self._selector.register(end, selectors.EVENT_READ)

    def _carry(self) -> None:
        while not self._over.is_set():
            wait_s = min(0.1, self._under_way[0][0] - time.monotonic()) if self._under_way else 0.1
            for key, _ in self._selector.select(max(0.0, wait_s)):
                self._take_in(int(key.fd))
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(self._under_way)
                with suppress(OSError):  # its device is down, or takes no more: lost, as on a line
                    os.write(end, frame)

    def _take_in(self, end: int) -> None:
        link = self._links[end]
        for _ in range(_MOST_AT_ONCE):
            try:
                frame = os.read(end, _FRAME_BYTES)
            except OSError:  # nothing more, or the device is down
                return
            link.frames += 1
            link.payload_bytes += len(frame)
            target, source = frame[:_MAC_BYTES], frame[_MAC_BYTES : 2 * _MAC_BYTES]
            self._places[source] = end
            known = self._places.get(target)
            ends = [one for one in self._links if one != end] if known is None else [known]
            for one in ends:
                self._send(link, one, frame)

    def _send(self, link: Link, end: int, frame: bytes) -> None:
        back = self._links[end]
        if link.cut or back.cut or self._random.random() < max(link.loss, back.loss):
            return
        chance_s = self._random.uniform(0, link.jitter_s) + self._random.uniform(0, back.jitter_s)
        due_s = time.monotonic() + link.delay_s + back.back_s + chance_s
        heapq.heappush(self._under_way, (due_s, next(self._order), end, frame))
