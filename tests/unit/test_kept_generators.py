"""A load generator that is not needed any more goes to the next that needs one like it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.load.generators import process, switchboard
from harness.load.generators.pool import LoadGenerators
from harness.load.transports.address import Target
from tests.kept_generators import KeptGenerators

NOWHERE = Target("127.0.0.1", 1)


@pytest.fixture(autouse=True)
def cats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that leave when their input ends, or are asked to, as ours do."""

    def start(*_: Any, **__: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, start_new_session=True)

    monkeypatch.setattr(process, "start_process", start)
    monkeypatch.setattr(switchboard, "start_process", start)


@pytest.fixture
def kept() -> Iterator[KeptGenerators]:
    made = KeptGenerators()
    with made.in_use():
        yield made
    made.close()


def pids(folder: Path, *, workers: int = 1, cpus: list[int] | None = None) -> tuple[int, ...]:
    """Of the generators of one command, which is over."""
    with LoadGenerators(
        http=NOWHERE, grpc=NOWHERE, workers=workers, log_dir=folder, cpus=cpus
    ) as made:
        return made.pids


def test_the_next_command_has_the_processes_of_the_one_before(
    kept: KeptGenerators, tmp_path: Path
) -> None:
    first = pids(tmp_path, workers=2)
    assert len(set(first)) == 2
    assert set(pids(tmp_path, workers=3)) > set(first)


def test_two_commands_at_a_time_share_none(kept: KeptGenerators, tmp_path: Path) -> None:
    with LoadGenerators(http=NOWHERE, grpc=NOWHERE, workers=1, log_dir=tmp_path) as one:
        assert set(one.pids).isdisjoint(pids(tmp_path, workers=2))


def test_one_of_other_cores_or_that_has_ended_is_left(kept: KeptGenerators, tmp_path: Path) -> None:
    anywhere = pids(tmp_path)
    pinned = pids(tmp_path, cpus=[0])
    assert pinned != anywhere
    assert pids(tmp_path, cpus=[0]) == pinned
    with LoadGenerators(http=NOWHERE, grpc=NOWHERE, workers=1, log_dir=tmp_path) as made:
        assert made.pids == anywhere
        assert made._switchboard is not None
        made._switchboard.own[0].kill()
    assert pids(tmp_path) != anywhere


def test_outside_nothing_is_kept_and_at_the_end_all_are_ended(tmp_path: Path) -> None:
    kept = KeptGenerators()
    with kept.in_use():
        (pid,) = pids(tmp_path)
    assert pids(tmp_path) != (pid,)
    (free,) = kept._free
    (one,) = free.own
    assert free.alive
    assert one.alive
    kept.close()
    assert not free.alive
    assert not one.alive
