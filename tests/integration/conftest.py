"""Load generators and a fake server, started once for each file of tests that uses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from load_rig import Rig, load_rig

from harness.load.transports.opening import GrpcImplementation
from harness.types import WireProtocol


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
