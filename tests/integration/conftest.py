"""Load generators and a fake server, started once for each file of tests that uses them.

With several test processes a file is run by one of them, and all files that ask for the shared
server by the same one, so that it is started once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from load_rig import Rig, load_rig

from harness.load.transports.opening import GrpcImplementation
from harness.types import WireProtocol

HERE = Path(__file__).parent
SHARED = {"embedded_triton": "server"}
"""The group of all files that use such a fixture."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every file its group, before pytest-xdist reads it."""
    groups: dict[Path, str] = {}
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in SHARED:
                groups[item.path] = SHARED[fixture]
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.xdist_group(groups.get(item.path, item.path.stem)))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Three workers that speak the harness's own HTTP and gRPC."""
    with load_rig(tmp_path_factory.mktemp("rig"), workers=3) as made:
        yield made


@pytest.fixture(scope="module")
def grpcio_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Two workers that leave gRPC to grpcio."""
    grpcio = GrpcImplementation.GRPCIO
    with load_rig(tmp_path_factory.mktemp("grpcio"), workers=2, implementation=grpcio) as made:
        yield dataclasses.replace(made, protocol=WireProtocol.GRPC)


@pytest.fixture(scope="module", params=list(WireProtocol))
def native(request: pytest.FixtureRequest, rig: Rig) -> Rig:
    """A rig for each of the harness's own protocols."""
    return dataclasses.replace(rig, protocol=request.param)


@pytest.fixture(scope="module", params=["http", "grpc", "grpcio"])
def wired(request: pytest.FixtureRequest) -> Rig:
    """The same, and grpcio's."""
    if request.param == "grpcio":
        grpcio: Rig = request.getfixturevalue("grpcio_rig")
        return grpcio
    own: Rig = request.getfixturevalue("rig")
    return dataclasses.replace(own, protocol=WireProtocol(request.param))
