"""A server that tests share and that died while the machine stood still is started again.

Triton's Python backend can crash when the machine stands still for more than a second
(`tests/stress/freeze.py` says why). Its fixture is then ended, with all that build upon it, such as
the models loaded into it; the next test that asks for them, or the repeated one, makes them anew. A
server that dies on a machine that did not stall is left as it is: that is a fault.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import psutil
import pytest

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
