"""Fixtures that every folder of tests may use: the embedded server and a tiny model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import make_tiny_variant

import harness.serving
from harness.serving.embedded.environment import ServerEnvironment, ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton
from harness.types import ModelVariant, Progress

# The backend's files import each other by bare name, as Triton's stub has them on its path.
sys.path.append(str(Path(harness.serving.__file__).parent / "backends" / "onnxruntime"))


@pytest.fixture(scope="session")
def server_environment() -> ServerEnvironment:
    """The embedded server's environment; made on first use (network, about a minute)."""

    def show(progress: Progress) -> None:
        print(f"[{progress.stage}] {progress.note}")  # noqa: T201  (pytest keeps it)

    return ensure_server_environment(show)


@pytest.fixture(scope="session")
def tiny_variant(tmp_path_factory: pytest.TempPathFactory) -> ModelVariant:
    """The tiny model in a repository of its own; its folder's parent is the repository."""
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
