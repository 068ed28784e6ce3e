"""The small locustfiles that people copy, run by Locust's own command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import Behaviour, FakeServer, constant
from load_rig import checkout, make_payloads
from locust_command import AS_TYPED, locust, read, response_of
from tiny_model import make_tiny_variant

from harness import hdr
from harness.errors import EXIT_ENVIRONMENT, EXIT_OBJECTIVE_NOT_MET, EXIT_OK, EXIT_UNDECIDED
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton

FOLDER = checkout() / "locustfiles"
COPIED = ["closed_loop.py", "open_loop.py", "sweep.py"]
JUDGED = {EXIT_OK, EXIT_OBJECTIVE_NOT_MET, EXIT_UNDECIDED, EXIT_ENVIRONMENT}
"""The last where a busy machine's generator was the limit."""
VARIANT = "topics-student-int8"
"""What the files name."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.02))) as made:
        yield made


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, ...]:
    return "--variant", "none", "--model", "m", "--payloads", str(make_payloads(tmp_path))


def copy_of(name: str, folder: Path) -> Path:
    """Away from its folder, where nothing of the project lies beside it."""
    return Path(shutil.copy(FOLDER / name, folder))


def test_there_are_the_page_and_three_of_fewer_than_40_lines() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    assert sorted(lines) == sorted([*COPIED, "locustfile.py"])
    assert max(lines.values()) < 40


def test_a_closed_loop_keeps_its_users_requests_in_flight(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    done = locust(
        *("--host", f"http://{server.http}", *model, "--run-time", "3s", "--users", "4"),
        *("--objective", "p50 < 60 s", "--histograms", str(tmp_path / "out.json")),
        locustfile=copy_of("closed_loop.py", tmp_path),
    )
    assert done.returncode in JUDGED, done.stderr
    assert "Verdict on p50 < 60 s: " in done.stdout
    document = read(tmp_path / "out.json")
    assert [one["name"] for one in document["phases"]] == ["ramp-up", "measured", "draining"]
    assert hdr.total(response_of(document)) == len(server.served)


def test_an_open_loop_sends_at_its_rate_whatever_the_server_does(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    """The ramp's first second has a tenth or less of what 3 s at the full rate would have."""
    done = locust(
        *("--host", f"http://{server.http}", *model, "--run-time", "3s", "--json"),
        *("--objective", "", "--histograms", str(tmp_path / "out.json")),
        locustfile=copy_of("open_loop.py", tmp_path),
    )
    assert done.returncode == EXIT_OK, done.stderr
    (seen,) = json.loads(done.stdout)
    assert (seen["num_failures"], seen["num_requests"]) == (0, len(server.served))
    due = 3 * 200 * (0.2 + 0.8 * 3 / 10 / 2)
    assert 0.6 * due < len(server.served) < 1.4 * due


def test_a_sweep_has_a_result_for_each_step(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    done = locust(
        *("--host", f"grpc://{server.grpc}", *model, "--step-time", "3", "--sweep", "1,2,4"),
        *("--objective", "p50 < 60 s"),
        cwd=tmp_path,
        locustfile=copy_of("sweep.py", tmp_path),
    )
    assert done.returncode in JUDGED, done.stderr
    phases = {one["name"]: one for one in read(tmp_path / "sweep.json")["phases"]}
    assert {"1 in flight", "2 in flight", "4 in flight"} < set(phases)
    for name in ("1 in flight", "2 in flight", "4 in flight"):
        assert f"Verdict of {name} on p50 < 60 s: " in done.stdout


@pytest.fixture(scope="module")
def served_repository(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[EmbeddedTriton, Path]]:
    """A server, and the folder with its repository, as `harness export` leaves one."""
    folder = tmp_path_factory.mktemp("exported")
    variant = make_tiny_variant(folder / "model_repository", VARIANT)
    make_payloads(variant.path)
    (variant.path / "manifest.json").touch()
    log = folder / "triton.log"
    with EmbeddedTriton(server_environment, variant.path.parent, log_file=log) as triton:
        yield triton, folder


@pytest.mark.triton
@pytest.mark.parametrize(
    ("name", "protocol", "shorter"),
    [
        ("closed_loop.py", "grpc", ["--run-time", "3s"]),
        ("open_loop.py", "http", ["--run-time", "3s"]),
        pytest.param(
            "sweep.py", "http", ["--sweep", "1,2", "--step-time", "3"], marks=pytest.mark.slow
        ),
    ],
)
def test_each_drives_the_repositorys_variant_on_triton_as_it_stands(
    served_repository: tuple[EmbeddedTriton, Path], name: str, protocol: str, shorter: list[str]
) -> None:
    """From the repository's folder nothing has to be said but where the server is."""
    triton, folder = served_repository
    address = getattr(triton.endpoint, protocol)
    done = locust(
        "--host", f"{protocol}://{address}", *shorter, cwd=folder,
        locustfile=copy_of(name, folder), start=AS_TYPED,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode in JUDGED, done.stderr
    assert "on p95 < 50 ms: " in done.stdout
