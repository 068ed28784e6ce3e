"""A server that nobody needs any more is killed: one that ends in order takes two seconds.

Triton looks once a second whether its models are unloaded, and a model of its Python backend takes
longer than one to unload. Files that test how servers end let theirs end in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.serving.embedded.server_process import ServerProcess


@contextmanager
def killed_servers() -> Iterator[None]:
    """In this process, whoever stops an embedded server kills it with all that it started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerProcess, "stop", lambda server, grace_s: server.kill())
        yield
