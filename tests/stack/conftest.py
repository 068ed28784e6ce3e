"""One stack for all tests of this folder, up from a clean clone by one command."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import Engine, find_engine
from health import unhealthy
from lab import make_images
from load import WORKERS, state
from stack import Stack

from tests.local_study import write_local_study

REPOSITORY = Path(__file__).parents[2]
IN_LAB = bool(os.environ.get("STACK_LAB"))
PATIENCE_S = 1200
"""For a test; images and the stack's start have bounds of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(PATIENCE_S, func_only=True))


@pytest.fixture(scope="session")
def checkout() -> Iterator[Path]:
    """A clean clone; beside it there is room for a study. Containers' own users can read both."""
    folder = Path(tempfile.mkdtemp(prefix="harness-stack-"))
    try:
        folder.chmod(0o755)
        clone = folder / "harness"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        yield clone
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Print past pytest's capture: these tests take minutes, and their figures are of use."""

    def print_uncaptured(text: str) -> None:
        capture = pytestconfig.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{text}", flush=True)  # noqa: T201  (figures for whoever waits)

    return print_uncaptured


@pytest.fixture(scope="session")
def engine(checkout: Path, tell: Callable[[str], None]) -> Engine:
    """What runs containers here, with the lab's images where STACK_LAB asks for them."""
    made = make_images(os.environ["STACK_LAB"], checkout, tell) if IN_LAB else None
    found = find_engine() if made is None or "STACK_COMPOSE" in os.environ else made
    if found is None:
        pytest.skip("no container engine: Docker with Compose v2, or podman with podman-compose")
    return found


@pytest.fixture(scope="session")
def study(checkout: Path) -> Path:
    """A teacher and a student made in seconds, as a user's own study."""
    folder = checkout.parent / "study"
    folder.mkdir()
    return write_local_study(folder)


@pytest.fixture(scope="session")
def stack(
    engine: Engine, checkout: Path, study: Path, tell: Callable[[str], None]
) -> Iterator[Stack]:
    """Up, healthy, its workers aboard; afterwards nothing of it is left on this machine."""
    made = make_stack(engine, checkout, study, "stack")
    building = ["--no-build"] if IN_LAB else ["--build"]
    started_s = time.monotonic()
    try:
        made.compose("up", "-d", *building, f"--scale=locust-worker={WORKERS}", timeout_s=1000)
        made.wait_for(lambda: not unhealthy(made), "every health check")
        made.wait_for(lambda: len(workers(made)) == WORKERS, "every worker aboard")
        tell(f"stack up, healthy, in {time.monotonic() - started_s:.0f} s")
        yield made
    finally:
        started_s = time.monotonic()
        made.down()
        left = made.leftovers()
        tell(f"stack down in {time.monotonic() - started_s:.0f} s; left: {left}")
    assert not left


@pytest.fixture
def lone_stack(engine: Engine, checkout: Path, study: Path) -> Iterator[Stack]:
    """Another stack, which a test brings up in part, or fails to."""
    made = make_stack(engine, checkout, study, "lone")
    try:
        yield made
    finally:
        made.down()
    assert not made.leftovers()


@pytest.fixture(autouse=True)
def no_test_goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stop a load that a failed test has left running."""
    yield
    if "stack" in request.fixturenames and state(stack := request.getfixturevalue("stack")) in {
        "spawning",
        "running",
    }:
        stack.post("LOCUST_PORT", "stop")


def make_stack(engine: Engine, checkout: Path, study: Path, name: str) -> Stack:
    """A stack that is not up yet."""
    return Stack(
        engine,
        checkout,
        files=("compose.yaml", *(["tests/stack/compose.lab.yaml"] if IN_LAB else [])),
        project=f"harness-{name}-{os.getpid()}",
        variables={
            "STUDY_DIR": str(study.parent),
            "STUDY": study.name,
            "HARNESS_UID": str(os.getuid()),
            "HARNESS_GID": str(os.getgid()),
        },
    )


def workers(stack: Stack) -> list[object]:
    """Those that the page knows."""
    found: list[object] = stack.get("LOCUST_PORT", "stats/requests")["workers"]
    return found
