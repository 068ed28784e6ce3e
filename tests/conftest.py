"""Fixtures that every folder of tests may use: the embedded server and a tiny model."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from held_up import told_apart
from hypothesis import HealthCheck, settings
from tiny_model import make_tiny_variant

import harness.serving
from harness.serving.embedded.environment import ServerEnvironment, ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton
from harness.types import ModelVariant, Progress

# The backend's files import each other by bare name, as Triton's stub has them on its path.
sys.path.append(str(Path(harness.serving.__file__).parent / "backends" / "onnxruntime"))

# Models of a few thousand weights gain nothing from threads, and where processes share the cores
# OpenMP's threads wait for each other by spinning: four times the processor time was measured.
# torch, which no test process has imported yet, reads this once; what tests start inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Tell a fixture's failure from the machine's."""
    with told_apart():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Tell a test's failure from the machine's."""
    with told_apart():
        return (yield)


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
