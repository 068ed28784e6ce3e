"""What the harness makes of what its switchboard tells, over pipes that the test holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from harness.load.generators import switchboard as module
from harness.load.generators.master_endpoint import TOKEN_VARIABLE, MasterEndpoint
from harness.load.generators.messages import Prepare
from harness.load.generators.notices import (
    Gone,
    Greeting,
    Joined,
    Known,
    RecordsKept,
    encode_notice,
)
from harness.load.generators.switchboard import Switchboard
from harness.load.transports.address import parse_target
from harness.types import GrpcImplementation, WireProtocol, Workload


@dataclass
class Pipes:
    """The switchboard's process, as far as its parent sees it."""

    stdin: BinaryIO = field(default_factory=lambda: Path(os.devnull).open("wb"))  # noqa: SIM115
    returncode: int | None = None

    def __post_init__(self) -> None:
        read, write = os.pipe()
        self.stdout, self._told = os.fdopen(read, "rb", 0), os.fdopen(write, "wb", 0)

    def tell(self, *notices: Known) -> None:
        self._told.writelines(map(encode_notice, notices))

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._told.close()
        return 0


@dataclass
class Rig:
    pipes: Pipes
    switchboard: Switchboard

    def prepare(self, folder: Path) -> None:
        """Give the one worker a load with records."""
        (worker,) = self.switchboard.joined
        workload = Workload(WireProtocol.HTTP, 1, 1, duration_s=1.0, warmup_s=0.0, seed=0)
        order = Prepare(
            target=parse_target("http://127.0.0.1:1"), grpc=GrpcImplementation.NATIVE, model="m",
            payloads=folder / "payloads", known_answers=None, outputs=(), workload=workload,
            share=1, first_user=0, worker=0, workers=1, request_timeout_s=1.0,
            records=folder / "records.parquet", load="load",
        )  # fmt: skip
        (folder / "payloads").write_bytes(b"some")
        worker.load = "load"
        self.switchboard.give(worker, order)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    pipes = Pipes()
    monkeypatch.setenv(TOKEN_VARIABLE, "x" * 32)
    monkeypatch.setattr(module, "start_process", lambda *_, **__: pipes)
    made = Switchboard(tmp_path, None, endpoint=MasterEndpoint("127.0.0.1"), tell=lambda _: None)
    pipes.tell(Joined("w", Greeting("host", 1, 2, "0", "machine", "")))
    made.receive(timeout_s=1.0)
    yield Rig(pipes, made)
    made.close()


def test_records_of_a_worker_that_goes_before_they_came_are_missed(
    rig: Rig, tmp_path: Path
) -> None:
    rig.prepare(tmp_path)
    rig.pipes.tell(Gone("w", "its connection ended"), RecordsKept("w", "load", "no more came"))
    assert rig.switchboard.await_records() == "worker 0 on host is gone: its records did not come"
    assert rig.switchboard.await_records() == ""


def test_records_that_came_before_it_went_are_here(rig: Rig, tmp_path: Path) -> None:
    rig.prepare(tmp_path)
    rig.pipes.tell(RecordsKept("w", "load", ""), Gone("w", "it has left"))
    assert rig.switchboard.await_records() == ""


def test_what_a_load_that_failed_lacked_is_not_told_of_the_next(rig: Rig, tmp_path: Path) -> None:
    rig.prepare(tmp_path)
    rig.pipes.tell(RecordsKept("w", "load", "the disk is full"))
    rig.switchboard.receive(timeout_s=1.0)
    rig.prepare(tmp_path)
    rig.pipes.tell(RecordsKept("w", "load", ""))
    assert rig.switchboard.await_records() == ""
