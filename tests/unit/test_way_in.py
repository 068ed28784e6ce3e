"""The command's way in, before its libraries are there."""

import subprocess
import sys

import pytest

_RAISED_WHILE_IMPORTING = """
import signal, sys
from importlib.abc import MetaPathFinder

class Interrupting(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "harness.cli.main":
            signal.raise_signal(signal.{name})

sys.meta_path.insert(0, Interrupting())
from harness.__main__ import start
start()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_while_the_libraries_load_is_one_line(name):
    code = _RAISED_WHILE_IMPORTING.replace("{name}", name)
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (130, "error: interrupted\n")
