"""A process that asked for it dies with its parent, whatever either is doing."""

import subprocess
import sys
import time
from contextlib import suppress

import psutil

CHILD = """
import sys, time
from harness.system.parents import die_with
die_with(int(sys.argv[1]))
print("up", flush=True)
time.sleep(60)
"""
PARENT = f"""
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", {CHILD!r}, str(os.getpid())], stdout=subprocess.PIPE, text=True
)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_the_kernel_kills_it_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 50  # by itself it ends only later
    with suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "it outlived its parent"
            time.sleep(0.01)


def test_one_whose_parent_is_dead_already_does_not_begin():
    began = [sys.executable, "-c", CHILD, "1"]  # its parent is this test
    done = subprocess.run(began, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the parent died before this process was up" in done.stderr
