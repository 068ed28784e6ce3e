"""What tests start can be interrupted, even where the tests were started by `nohup make test &`."""

import signal
import subprocess
import sys

WAITS = "import time; print('ready', flush=True); time.sleep(60)"


def test_a_process_that_a_test_starts_heeds_ctrl_c():
    child = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert child.returncode == -signal.SIGINT
