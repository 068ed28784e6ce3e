"""Machines for a test: network namespaces with addresses, slow lines and clocks of their own.

Each `Space` has two lines: a slow one to the other spaces and to the test (`net_wire.py`), and a
fast one to the servers that the test runs in its own namespace. Its CLOCK_MONOTONIC may be shifted:
Linux' time namespaces do that for real, in every call of every process, where libfaketime would
only stand before the C library's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

from net_wire import TUN, Link, Wire

LANES = 256
"""Address ranges, of which every test process takes one: 198.18 and 198.19 are for benchmarks."""
_HERE = 254


@cache
def refusal() -> str:
    """Why this machine has no such spaces; empty where it has."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux")):
        if shutil.which(tool) is None:
            return f"network namespaces need {tool} (Debian's {package})"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"the slow wire needs {TUN}"
    probe = f"harness-probe-{os.getpid()}"
    for command in (["ip", "netns", "add", probe], ["unshare", "-T", "--monotonic", "1", "true"]):
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode != 0:
            return f"{' '.join(command[:2])} is refused: {tried.stderr.strip()}"
    _ip("netns", "delete", probe)
    return ""


@dataclass
class Space:
    """One made-up machine."""

    name: str
    """Of its network namespace."""
    address: str
    """On the slow line, for the other spaces."""
    link: Link
    clock_shift_s: int
    """What its CLOCK_MONOTONIC shows beyond ours."""

    def command(self, *arguments: str) -> list[str]:
        """The same command, run in it: the process that is started is the command's own."""
        shifted = ["unshare", "-T", "--monotonic", str(self.clock_shift_s)]
        enter = ["nsenter", f"--net=/run/netns/{self.name}"]
        return [*enter, *(shifted if self.clock_shift_s else []), *arguments]

    def start(self, *arguments: str, log: Path, **options: Any) -> subprocess.Popen[str]:
        """Start a process in it and return at once; what it prints goes to a file."""
        with log.open("a") as file:
            return subprocess.Popen(
                self.command(*arguments), stdout=file, stderr=subprocess.STDOUT, text=True,
                **options,
            )  # fmt: skip

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Its slow line is cut in the block."""
        self.link.cut = True
        try:
            yield
        finally:
            self.link.cut = False


class NetSpaces:
    """The spaces of a test, and the wire between them; a context manager that leaves nothing."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._spaces: list[Space] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._lane = _take_lane(stack)
            self._wire = stack.enter_context(Wire())
            self._bridge = f"hb{os.getpid()}-{self._lane}"
            self._make_bridge(stack)
            self._attach_here()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def server_address(self) -> str:
        """Where a server in the test's own namespace listens for requests from the spaces."""
        return f"198.18.{self._lane}.{_HERE}"

    @property
    def address(self) -> str:
        """Where a process of the test's own namespace is reached over the slow line."""
        return f"198.19.{self._lane}.{_HERE}"

    def add(self, link: Link | None = None, *, clock_shift_s: int = 0) -> Space:
        """One more machine."""
        place = len(self._spaces) + 1
        name = f"hn{os.getpid()}-{self._lane}-{place}"
        space = Space(name, f"198.19.{self._lane}.{place}", link or Link(), clock_shift_s)
        _ip("netns", "add", name)
        self._stack.callback(_ip, "netns", "delete", name)
        self._attach_slow(space, place)
        self._attach_fast(space, place)
        _ip("-n", name, "link", "set", "lo", "up")
        self._spaces.append(space)
        return space

    def _make_bridge(self, stack: ExitStack) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        stack.callback(_ip, "link", "delete", self._bridge)
        _ip("address", "add", f"{self.server_address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def _attach_here(self) -> None:
        interface = f"ht{self._lane}"
        self._wire.attach(interface, Link())
        _ip("address", "add", f"{self.address}/24", "dev", interface)
        _ip("link", "set", interface, "up")

    def _attach_slow(self, space: Space, place: int) -> None:
        interface = f"ht{self._lane}-{place}"
        self._wire.attach(interface, space.link)
        _ip("link", "set", interface, "netns", space.name)
        self._bring_up(space, interface, space.address)

    def _attach_fast(self, space: Space, place: int) -> None:
        here, there = f"hv{self._lane}-{place}", f"hw{self._lane}-{place}"
        peer = ["peer", "name", there, "netns", space.name]
        _ip("link", "add", here, "type", "veth", *peer)
        # With its namespace it would go as well, but only some time after.
        self._stack.callback(_ip, "link", "delete", here)
        _ip("link", "set", here, "master", self._bridge, "up")
        self._bring_up(space, there, f"198.18.{self._lane}.{place}")

    def _bring_up(self, space: Space, interface: str, address: str) -> None:
        _ip("-n", space.name, "address", "add", f"{address}/24", "dev", interface)
        _ip("-n", space.name, "link", "set", interface, "up")


def _take_lane(stack: ExitStack) -> int:
    """A number that no other process of this machine has, while this one lives."""
    for lane in range(LANES):
        file: IO[str] = (Path(tempfile.gettempdir()) / f"harness-net-lane-{lane}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        stack.callback(file.close)
        return lane
    raise RuntimeError(f"all {LANES} ranges of addresses are in use")


def _ip(*arguments: str) -> None:
    command: Sequence[str] = ["ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
