"""What a server started ends with it, in whatever order the two end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.serving.embedded.server import ServerProcess


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("status", [0, 1])
def test_a_server_that_ended_by_itself_leaves_no_process_whatever_its_status(
    tmp_path: Path, status: int
) -> None:
    child_file = tmp_path / "child"
    script = f"sleep 300 & echo $! > {child_file}; exit {status}"
    server = ServerProcess(
        ["/bin/sh", "-c", script],
        python=Path(sys.executable),
        environment=os.environ,
        log_file=tmp_path / "log",
    )
    wait_until(server.exit_status)
    child = int(child_file.read_text())
    assert is_alive(child)
    server.stop(grace_s=1)
    wait_until(lambda: not is_alive(child))
