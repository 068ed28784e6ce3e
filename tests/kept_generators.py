"""Load generators outlive the command that started them, for the next one of this process.

A generator is a resident process that takes one trial after another from whoever holds the
switchboard that it has joined, and starting one costs a second and a half of a core: more than most
loads of the tests. So a switchboard is kept with all of its own. Files that test the processes
themselves start their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.load.generators import pool
from harness.load.generators.master_endpoint import MasterEndpoint
from harness.load.generators.switchboard import Switchboard


class KeptGenerators:
    """Switchboards, with their generators, that nobody uses now; a context manager ends them."""

    def __init__(self) -> None:
        self._free: list[_KeptSwitchboard] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Meanwhile, whoever needs generators in this process gets kept ones, if there are any."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool, "Switchboard", self._take)
            yield

    def close(self) -> None:
        """End all of them."""
        while self._free:
            self._free.pop().end()

    def _take(
        self,
        log_dir: Path,
        cpus: Sequence[int] | None,
        *,
        endpoint: MasterEndpoint | None,
        tell: Callable[[str], None],
    ) -> Switchboard:
        if endpoint is not None:  # for workers that others start
            return Switchboard(log_dir, cpus, endpoint=endpoint, tell=tell)
        for one in self._free:
            if one.alive and one.home.cpus == tuple(cpus or ()):
                self._free.remove(one)
                return one
        return _KeptSwitchboard(log_dir, cpus, self._free.append)


class _KeptSwitchboard(Switchboard):
    """One that is given back where the product ends it.

    A trial that went wrong has killed its generators before.

    Args:
        log_dir: where its logs stay, whoever uses it.
        cpus: the only CPUs that it and its generators may run on.
        give_back: called with it.
    """

    def __init__(
        self,
        log_dir: Path,
        cpus: Sequence[int] | None,
        give_back: Callable[[_KeptSwitchboard], None],
    ) -> None:
        super().__init__(log_dir, cpus, endpoint=None, tell=lambda _: None)
        self._give_back = give_back

    def close(self) -> None:
        """Keep it, if it lives."""
        if self.alive:
            self._give_back(self)
        else:
            self.end()

    def end(self) -> None:
        """End it in order, with its generators."""
        super().close()
