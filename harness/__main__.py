"""`python -m harness` is `harness`: the way in, which understands Ctrl-C before it imports."""

import signal
import sys
from types import FrameType
from typing import NoReturn


def start() -> NoReturn:
    """Run the command line; an interrupt while the libraries load ends like a later one."""
    # The default handler's exception would be swallowed, or shown whole, by what is being imported.
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    from harness.cli.main import main

    main()


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.stderr.write("error: interrupted\n")
    raise SystemExit(130)


if __name__ == "__main__":
    start()
