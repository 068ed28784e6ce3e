"""The server as a test has it: started, told what to play, asked what it played."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from token_server.records import Played
from token_server.scripts import StreamScript

_TESTS = Path(__file__).parents[1]


class FakeTokenServer:
    """A context manager: `http` and `grpc` are its addresses while it is entered.

    The n-th request, whatever its protocol, plays the n-th script, and after the last comes the
    first again.
    """

    def __init__(self, *scripts: StreamScript) -> None:
        self._scripts: Sequence[StreamScript] = scripts or (StreamScript(),)
        self.http = self.grpc = ""
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "token_server.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.http, self.grpc = self._ask("begin", tuple(self._scripts))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # which is its end
        self._process.wait()
        self._process.stdout.close()

    def begin(self, *scripts: StreamScript) -> None:
        """From now on these, the first one first; what was played before is forgotten."""
        self._ask("begin", scripts)

    @property
    def played(self) -> list[Played]:
        """What was played, in the order in which the requests came."""
        played: list[Played] = self._ask("played")
        return played

    @property
    def connections(self) -> int:
        """How many have been made, ever."""
        return int(self._ask("connections"))

    @property
    def pid(self) -> int:
        """Of its process, to be stopped or killed."""
        return self._process.pid

    def _ask(self, *question: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        pickle.dump(question, stdin)
        stdin.flush()
        return pickle.load(stdout)
