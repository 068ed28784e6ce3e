"""What a server started ends with it, in whatever order the two end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from shared_servers import dead_servers_told, remembered_servers

from harness.serving.embedded.server_process import ServerProcess


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def started(script: str, folder: Path) -> ServerProcess:
    """A server that is a shell script."""
    return ServerProcess(
        ["/bin/sh", "-c", script],
        python=Path(sys.executable),
        environment=os.environ,
        log_file=folder / "log",
    )


@pytest.mark.parametrize("status", [0, 1])
def test_a_server_that_ended_by_itself_leaves_no_process_whatever_its_status(
    tmp_path: Path, status: int
) -> None:
    child_file = tmp_path / "child"
    script = f"sleep 300 & echo $! > {child_file}; exit {status}"
    server = started(script, tmp_path)
    wait_until(server.exit_status)
    child = int(child_file.read_text())
    assert is_alive(child)
    server.stop(grace_s=1)
    wait_until(lambda: not is_alive(child))


def test_the_number_of_a_dead_server_is_nobody_elses_until_it_is_stopped(tmp_path: Path) -> None:
    server = started("exit 3", tmp_path)
    wait_until(server.exit_status)
    assert server.exit_status() == "with exit status 3"
    assert not server.stopped
    assert psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE
    server.stop(grace_s=1)
    assert server.stopped
    assert not psutil.pid_exists(server.pid)


def test_a_server_that_was_stopped_is_not_signalled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = started("exec sleep 300", tmp_path)
    server.stop(grace_s=10)
    assert server.exit_status() == "by signal SIGTERM"
    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, lambda pid, signal: pytest.fail(f"{signal} to {pid}"))
    server.stop(grace_s=10)
    server.kill()


def test_a_failing_test_says_how_its_server_died(tmp_path: Path) -> None:
    with remembered_servers():
        server = started("echo out of luck; exit 3", tmp_path)
    wait_until(server.exit_status)
    try:
        with pytest.raises(OSError, match="refused") as raised, dead_servers_told():
            raise ConnectionRefusedError("refused")
        assert "ended with exit status 3:\nout of luck" in "".join(raised.value.__notes__)
    finally:
        server.stop(grace_s=1)
    with pytest.raises(OSError, match="refused") as raised, dead_servers_told():
        raise ConnectionRefusedError("refused")
    assert not hasattr(raised.value, "__notes__")
