"""What tests start can be interrupted, even where the tests were started by `nohup make test &`."""

import signal
import subprocess
import sys

# Not one long sleep: a signal that comes just before it is heeded when the sleep ends.
WAITS = """
import time
print("ready", flush=True)
for _ in range(6000):
    time.sleep(0.01)
"""


def test_a_process_that_a_test_starts_heeds_ctrl_c():
    child = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert child.returncode == -signal.SIGINT


def test_so_it_does_where_a_shell_let_the_tests_ignore_it():
    """As `nohup make test &` in a script does: children inherit what is ignored."""
    test = f"{__file__}::{test_a_process_that_a_test_starts_heeds_ctrl_c.__name__}"
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    ignoring = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *tests]
    done = subprocess.run(ignoring, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
