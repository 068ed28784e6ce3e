"""Fixtures that every folder of tests may use: the embedded server and a tiny model."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from shared_servers import SharedServers, dead_servers_told, remembered_servers
from tiny_model import make_tiny_variant

import harness.serving
from harness.serving.embedded.environment import ServerEnvironment, ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton
from harness.types import ModelVariant, Progress
from tests.held_up import LOST_S, sleeper_here, told_apart

# The backend's files import each other by bare name, as Triton's stub has them on its path.
sys.path.append(str(Path(harness.serving.__file__).parent / "backends" / "onnxruntime"))

# Models of a few thousand weights gain nothing from threads, and where processes share the cores
# OpenMP's threads wait for each other by spinning: four times the processor time was measured.
# torch, which no test process has imported yet, reads this once; what tests start inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where nobody may write bytecode, each of the hundreds of processes that tests start would compile
# the harness anew, and each test process the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts a job in the background lets it ignore Ctrl-C, and so would all its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may fail because the machine stalled: examples have no deadline.
UNHURRIED = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", UNHURRIED)
settings.register_profile("thorough", UNHURRIED, max_examples=100)
settings.load_profile("quick")


LOST_BEFORE = pytest.StashKey[float]()
"""How many seconds the machine had lost in this process when a test's fixtures began."""
SERVERS = SharedServers()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-rerunfailures ask the main process without waiting for the kernel.

    Before each test it writes twice to one connection and then reads: Nagle's algorithm holds the
    second line back until the first is acknowledged, which is put off for 40 ms.
    """
    connection = getattr(getattr(config, "failures_db", None), "sock", None)
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def pytest_collection_finish() -> None:
    """Leave the tests and all that they import out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Tell a fixture's failure from the machine's."""
    item.stash[LOST_BEFORE] = sleeper_here().lost_s
    with excused(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Tell a test's failure from the machine's."""
    with excused(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Tell a failure to tidy up from the machine's; no dead server is left to the next test."""
    try:
        with excused(item):
            return (yield)
    finally:
        if sleeper_here().lost_s - item.stash[LOST_BEFORE] >= LOST_S:
            SERVERS.end_fixtures_of_the_dead()


@contextmanager
def excused(item: pytest.Item) -> Iterator[None]:
    """A failure of the block is the machine's where it lost too much since the test's fixtures."""
    with told_apart(sleeper_here(), item.stash[LOST_BEFORE]), dead_servers_told():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Iterator[None]:
    """Remember which fixture has started which servers; a test's own end with it."""
    if fixturedef.scope == "function":
        return (yield)
    before = SERVERS.running()
    made = yield
    SERVERS.started(fixturedef, request, SERVERS.running() - before)
    return made


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[Any]) -> None:
    """A fixture has ended, and its servers with it."""
    SERVERS.ended(fixturedef)


@pytest.fixture(scope="session", autouse=True)
def known_servers() -> Iterator[None]:
    """A test that fails says which server had died."""
    with remembered_servers():
        yield


@pytest.fixture(scope="session")
def server_environment() -> ServerEnvironment:
    """The embedded server's environment; made on first use (network, about a minute)."""

    def show(progress: Progress) -> None:
        print(f"[{progress.stage}] {progress.note}")  # noqa: T201  (pytest keeps it)

    return ensure_server_environment(show)


@pytest.fixture(scope="session")
def tiny_variant(tmp_path_factory: pytest.TempPathFactory) -> ModelVariant:
    """The tiny model in its own repository; its folder's parent is the repository."""
    return make_tiny_variant(tmp_path_factory.mktemp("model_repository"))


@pytest.fixture(scope="session")
def tiny_repository(tiny_variant: ModelVariant) -> Path:
    """A model repository that holds the model `tiny`."""
    return tiny_variant.path.parent


@pytest.fixture(scope="session")
def embedded_triton(
    server_environment: ServerEnvironment,
    tiny_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EmbeddedTriton]:
    """A running server over `tiny_repository`; load `tiny` before use (loading is idempotent)."""
    log_file = tmp_path_factory.mktemp("triton") / "triton.log"
    with EmbeddedTriton(server_environment, tiny_repository, log_file=log_file) as server:
        yield server


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """A replica's capacity is fitted, and policies are simulated, with fewer draws of the fit.

    For files that ask what a command makes of plans, however wide their intervals are.
    """
    from harness.planning.autoscaling import evaluation
    from harness.planning.capacity import fit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "DRAWS", evaluation.FEWEST_DRAWS)
        patch.setattr(evaluation, "MOST_DRAWS", evaluation.FEWEST_DRAWS)
        yield
