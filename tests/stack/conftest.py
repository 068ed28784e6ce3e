"""One stack for all tests of this folder, up from a clean clone by one command."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine, Stack, find_engine
from lab import make_images

from tests.local_study import write_local_study

REPOSITORY = Path(__file__).parents[2]
WORKERS = 2


@pytest.fixture(scope="session")
def checkout() -> Iterator[Path]:
    """A clean clone, and a small study in it; readable for the containers' own users."""
    folder = Path(tempfile.mkdtemp(prefix="harness-stack-"))
    folder.chmod(0o755)
    subprocess.run(
        ["git", "clone", "--quiet", str(REPOSITORY), str(folder / "harness")], check=True
    )
    (folder / "study").mkdir()
    write_local_study(folder / "study")
    yield folder / "harness"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def engine(checkout: Path) -> Engine:
    lab = os.environ.get("STACK_LAB")
    made = make_images(lab, checkout) if lab else None
    found = find_engine() if made is None or "STACK_COMPOSE" in os.environ else made
    if found is None:
        pytest.skip("no container engine: Docker with Compose v2, or podman with podman-compose")
    return found


@pytest.fixture(scope="session")
def stack(engine: Engine, checkout: Path) -> Iterator[Stack]:
    in_lab = "STACK_LAB" in os.environ
    made = Stack(
        engine,
        checkout,
        files=("compose.yaml", *(["tests/stack/compose.lab.yaml"] if in_lab else [])),
        variables={
            "COMPOSE_PROJECT_NAME": f"harness-stack-{os.getpid()}",
            "STUDY_DIR": str(checkout.parent / "study"),
            "STUDY": "study.yaml",
            "HARNESS_UID": str(os.getuid()),
            "HARNESS_GID": str(os.getgid()),
        },
    )
    made.keep_checking_health()
    try:
        building = ["--no-build"] if in_lab else ["--build"]
        made.compose("up", "-d", *building, "--scale", f"locust-worker={WORKERS}", timeout_s=1800)
        made.wait_for(lambda: made.get("LOCUST_PORT", "stats/requests")["state"], "Locust's page")
        made.wait_for(
            lambda: len(made.get("LOCUST_PORT", "stats/requests")["workers"]) == WORKERS,
            "every worker aboard",
        )
        yield made
    finally:
        made.down()
