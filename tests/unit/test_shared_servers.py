"""A server that tests share dies: with a standstill of the machine it is started again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SUITE = """
import os, signal, subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server():
    process = subprocess.Popen([HERE / "tritonserver", "600"])
    with (HERE / "starts").open("a") as starts:
        print(process.pid, file=starts)
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def loaded(server):
    yield server.pid
    assert server.poll() is None, "nobody is there to unload a model"


def test_before(loaded):
    pass


def test_while_it_dies(loaded, server):
    if len((HERE / "starts").read_text().split()) == 1:
        server.kill()
        server.wait()
        if {stalls}:
            subprocess.Popen(["sh", "-c", f"sleep 0.6; kill -CONT {{os.getpid()}}"])
            os.kill(os.getpid(), signal.SIGSTOP)
    assert {passes} or server.poll() is None


def test_after(loaded, server):
    assert server.poll() is None
    assert loaded == server.pid
"""


def outcomes(folder: Path, *, stalls: bool, passes: bool) -> tuple[dict[str, int], int, str]:
    """How the suite's tests ended, how often the server was started, what was printed."""
    shutil.copy(shutil.which("sleep"), folder / "tritonserver")
    (folder / "test_suite.py").write_text(SUITE.format(stalls=stalls, passes=passes))
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider"]
    command += ["-c/dev/null", "--reruns=3", "--only-rerun=HeldUp", "-rR", "test_suite.py"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    counts = re.findall(r"(\d+) (passed|failed|rerun|warning|error)", done.stdout.splitlines()[-1])
    starts = len((folder / "starts").read_text().split())
    return {what: int(count) for count, what in counts}, starts, done.stdout


@pytest.mark.parametrize("passes", [False, True])
def test_after_a_standstill_it_is_started_again_with_what_builds_upon_it(tmp_path, passes):
    ended, starts, printed = outcomes(tmp_path, stalls=True, passes=passes)
    repeated = {} if passes else {"rerun": 1}
    assert ended == {"passed": 3, "warning": 1} | repeated, printed
    assert starts == 2
    assert "the server of 'server' died while the machine stood still" in printed


def test_without_one_its_death_is_a_failure_and_it_stays_dead(tmp_path):
    ended, starts, printed = outcomes(tmp_path, stalls=False, passes=False)
    assert ended == {"passed": 1, "failed": 2, "error": 1}, printed
    assert starts == 1
