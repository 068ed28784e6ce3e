"""A server that tests share and that died while the machine stood still is started again.

Triton's Python backend can crash when the machine stands still for more than a second
(`tests/stress/freeze.py` says why). Its fixture is then ended, with all that build upon it, such as
the models loaded into it; the next test that asks for them, or the repeated one, makes them anew. A
server that dies on a machine that did not stall is left as it is: that is a fault.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import psutil
import pytest

from harness.serving.embedded.server_process import ServerProcess

NAME = "tritonserver"


class SharedServers:
    """The servers below this process that module's and session's fixtures have started."""

    def __init__(self, name: str = NAME) -> None:
        """Know of none.

        Args:
            name: of a server's process.
        """
        self._name = name
        self._known: dict[pytest.FixtureDef[Any], tuple[Any, set[psutil.Process]]] = {}

    def running(self) -> set[psutil.Process]:
        """Those there are now."""
        found = set()
        for one in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if one.name() == self._name and one.status() != psutil.STATUS_ZOMBIE:
                    found.add(one)
        return found

    def started(
        self, fixture: pytest.FixtureDef[Any], request: Any, servers: set[psutil.Process]
    ) -> None:
        """Remember what a fixture has started."""
        if servers:
            self._known[fixture] = (request, servers)

    def ended(self, fixture: pytest.FixtureDef[Any]) -> None:
        """Forget a fixture that has ended."""
        self._known.pop(fixture, None)

    def end_fixtures_of_the_dead(self) -> None:
        """End the fixtures whose servers died, and all that build upon them."""
        running = self.running()
        for fixture, (request, servers) in list(self._known.items()):
            if fixture in self._known and not servers <= running:
                warnings.warn(
                    f"the server of {fixture.argname!r} died while the machine stood still; "
                    "it is started again",
                    stacklevel=2,
                )
                # What would be put back in order on the server fails: there is none.
                with suppress(Exception):
                    fixture.finish(request)
                self.ended(fixture)


@contextmanager
def dead_servers_told() -> Iterator[None]:
    """A failure of the block tells how each server of this process ended that nobody stopped.

    Their logs are gone with the temporary folder when somebody wants to know why a test could not
    reach its server.
    """
    try:
        yield
    except (Exception, pytest.fail.Exception) as failure:
        for server in list(_STARTED):
            if (status := server.exit_status()) is not None and not server.stopped:
                failure.add_note(
                    f"the server of {server.log_file} (process {server.pid}) ended {status}:\n"
                    f"{server.last_log_lines()}"
                )
        raise


_STARTED: WeakSet[ServerProcess] = WeakSet()


@contextmanager
def remembered_servers() -> Iterator[None]:
    """In this process, servers that are started meanwhile are known to `dead_servers_told`."""
    start = ServerProcess.__init__

    def remember(server: ServerProcess, *args: Any, **kwargs: Any) -> None:
        start(server, *args, **kwargs)
        _STARTED.add(server)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerProcess, "__init__", remember)
        yield
