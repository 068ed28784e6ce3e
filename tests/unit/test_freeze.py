"""The tool that stops all tests for a while does stop them, and lets them go on."""

import importlib.util
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

FILE = Path(__file__).parents[1] / "stress" / "freeze.py"
CHILD = "import time\nfor _ in range(200): print(time.monotonic(), flush=True); time.sleep(0.005)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


@pytest.fixture(scope="module")
def freeze():
    spec = importlib.util.spec_from_file_location("freeze", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.freeze


def test_a_process_and_what_it_has_started_stand_still_and_go_on(freeze):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    first_s = float(parent.stdout.readline())
    assert freeze(parent.pid, 0.6) == 2
    out, _ = parent.communicate(timeout=60)
    times_s = [first_s, *map(float, out.split())]
    assert len(times_s) == 200
    assert max(later - earlier for earlier, later in pairwise(times_s)) > 0.6
    assert parent.returncode == 0


def test_what_somebody_else_has_stopped_stays_so(freeze):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        process = psutil.Process(child.pid)
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        assert freeze(child.pid, 0.0) == 0
        assert process.status() == psutil.STATUS_STOPPED
    finally:
        child.kill()
        child.wait()


def test_those_without_children_go_on_first(freeze, monkeypatch):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    parent.stdout.readline()
    (child,) = psutil.Process(parent.pid).children()
    went_on, resume = [], psutil.Process.resume
    monkeypatch.setattr(
        psutil.Process, "resume", lambda one: (went_on.append(one.pid), resume(one))
    )
    assert freeze(parent.pid, 0.0) == 2
    assert went_on == [child.pid, parent.pid]
    parent.communicate(timeout=60)
