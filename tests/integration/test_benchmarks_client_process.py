"""Child processes of the benchmarks end within their limits, and say why."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from client_process import ClientProcess, PeerError


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_output_comes_back():
    with ClientProcess(python("print('done')")) as process:
        assert process.wait(20) == "done\n"


def test_a_failure_has_its_words():
    with (
        ClientProcess(python("raise SystemExit('no such model')")) as process,
        pytest.raises(PeerError, match="status 1: no such model"),
    ):
        process.wait(20)


def test_memory_is_bounded():
    # It asks only once the limit stands: that is set right after the start.
    program = "import time; time.sleep(0.5); bytearray(2 * 2**30)"
    with (
        ClientProcess(python(program), memory_bytes=2**30) as process,
        pytest.raises(PeerError, match="MemoryError"),
    ):
        process.wait(20)


def test_one_that_hangs_is_killed():
    with ClientProcess(python("import time; time.sleep(600)")) as process:
        process.check()
        with pytest.raises(PeerError, match=r"not done in 0\.3 s"):
            process.wait(0.3)
        assert psutil.pid_exists(process.pid)
    assert not psutil.pid_exists(process.pid)
