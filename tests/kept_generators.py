"""Load generators outlive the command that started them, for the next one of this process.

A generator is a resident process that takes one trial after another from whoever holds its pipes,
and starting one costs a second and a half of a core: more than most loads of the tests. Files that
test the processes themselves start their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.load.generators import pool
from harness.load.generators.process import GeneratorProcess


class KeptGenerators:
    """Processes that nobody uses now; a context manager that ends them."""

    def __init__(self) -> None:
        self._free: list[_KeptProcess] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Meanwhile, whoever needs a generator in this process gets a kept one, if there is one."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool, "GeneratorProcess", self._take)
            yield

    def close(self) -> None:
        """End all of them."""
        while self._free:
            self._free.pop().end()

    def _take(self, index: int, log_dir: Path, cpus: Sequence[int] | None) -> GeneratorProcess:
        for one in self._free:
            if one.alive and one.may_run_on == _plain(cpus):
                self._free.remove(one)
                one.index = index
                return one
        return _KeptProcess(index, log_dir, cpus, self._free.append)


class _KeptProcess(GeneratorProcess):
    """One that is given back where the product ends it in order.

    A trial that went wrong has killed it before.

    Args:
        index: its number in the pool that uses it now.
        log_dir: where its log stays, whoever uses it.
        cpus: the only CPUs it may run on.
        give_back: called with it.
    """

    def __init__(
        self,
        index: int,
        log_dir: Path,
        cpus: Sequence[int] | None,
        give_back: Callable[[_KeptProcess], None],
    ) -> None:
        super().__init__(index, log_dir, cpus)
        self.may_run_on = _plain(cpus)
        self._give_back = give_back

    def stop(self) -> None:
        """Keep it, if it lives."""
        if self.alive:
            self._give_back(self)
        else:
            self.end()

    def end(self) -> None:
        """End it in order."""
        super().stop()


def _plain(cpus: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(cpus or ())
