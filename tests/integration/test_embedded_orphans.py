"""Nothing outlives the harness, however it ends: neither the server nor a model's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from load_rig import wait_until, wait_until_stopped

from harness.serving.embedded.environment import ServerEnvironment
from tests.held_up import PATIENCE_S

pytestmark = pytest.mark.triton

# Plays the harness: starts a server (in a thread that ends, for the second case), loads the model,
# says which processes there are, and waits to be killed.
_HARNESS = """
import sys, threading, time
from pathlib import Path
import psutil
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.embedded.environment import ensure_server_environment

repository, log, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
server = EmbeddedTriton(ensure_server_environment(print), repository, log_file=log)
if how == "thread":
    thread = threading.Thread(target=server.__enter__)
    thread.start()
    thread.join()
else:
    server.__enter__()
client = TritonClient(server.endpoint)
client.load("tiny")
time.sleep(1.0)  # long enough for a signal that the ended thread might have set off
server.check()
stubs = psutil.Process(server.pid).children(recursive=True)
print("RUNNING", server.pid, *(stub.pid for stub in stubs), flush=True)
if how == "exit":
    sys.exit()
try:
    while True:
        time.sleep(0.1)
        server.check()
finally:
    server.__exit__(None, None, None)
"""


def start_harness(repository: Path, tmp_path: Path, how: str):
    process = subprocess.Popen(
        [sys.executable, "-c", _HARNESS, str(repository), str(tmp_path / "log"), how],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("RUNNING"):
            return process, [psutil.Process(int(pid)) for pid in line.split()[1:]]
    process.wait()
    pytest.fail("the harness did not start:\n" + "".join(lines))


@pytest.mark.parametrize("how", [pytest.param("main", marks=pytest.mark.slow), "thread"])
def test_killed_harness_leaves_no_process(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path, how: str
):
    harness, processes = start_harness(tiny_repository, tmp_path, how)
    assert len(processes) >= 2
    harness.kill()
    harness.wait()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert alive == []


@pytest.mark.slow
def test_harness_that_forgets_to_stop_leaves_no_process(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path
):
    harness, processes = start_harness(tiny_repository, tmp_path, "exit")
    harness.wait(timeout=PATIENCE_S)
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert alive == []


def test_killed_server_takes_its_models_along_even_as_a_zombie(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path
):
    """A killed server that nobody waits for still answers signal 0, which the stub relies on."""
    harness, (server, *stubs) = start_harness(tiny_repository, tmp_path, "main")
    try:
        harness.send_signal(signal.SIGSTOP)  # so that the server stays a zombie
        wait_until_stopped(harness.pid)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.status() == psutil.STATUS_ZOMBIE)
        _, alive = psutil.wait_procs(stubs, timeout=PATIENCE_S)
        assert alive == []
    finally:
        # It wakes up, sees that the server ended, and cleans up as it ends.
        harness.send_signal(signal.SIGCONT)
        harness.wait(timeout=PATIENCE_S)
