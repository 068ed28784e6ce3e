"""Load generators and a fake server, a study and its exported models: made once for many files.

With several test processes (`--dist loadfile`) each file is run by one of them. What is made here
is made once for each process, and what takes long, once for all.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from generating_models import BOTH, export_generator, make_generator
from load_rig import Rig, load_rig
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from harness.cli.main import run_command
from harness.flow import cold_start, null_model
from harness.types import GrpcImplementation, ModelVariant, WireProtocol
from tests.held_up import unhurried
from tests.kept_generators import KeptGenerators
from tests.kept_graphs import graphs_folder, kept_graphs
from tests.killed_servers import killed_servers
from tests.local_study import HARMLESS, add_language_model_family, write_local_study
from tests.routed_study import write_routed_study

LONGEST = (
    *("test_load_faults", "test_load_joined_workers", "test_main_job", "test_rollout_on_triton"),
    *("test_load_locustfile", "test_load_workers", "test_locustfiles", "test_words_and_vectors"),
    *("test_generation_quality", "test_export_variants", "test_load_web", "test_load_generation"),
    *("test_trial_faults", "test_load_command", "test_in_process", "test_any_server"),
    *("test_report_browser", "test_far_faults", "test_dashboards", "test_trial_on_triton"),
    *("test_own_study", "test_row_kinds", "test_generation_export", "test_encoder_decoder_export"),
    *("test_other_doors", "test_load_web_counts", "test_question_answering", "test_load_triton"),
    *("test_scaling_queries", "test_pairs_and_ensembles", "test_architectures", "test_commands"),
    *("test_embedded_orphans", "test_generation_on_triton", "test_lm_eval_any_server"),
    *("test_load_web_options", "test_left_out", "test_embedded_server", "test_lm_eval"),
    *("test_telemetry_of_prometheus", "test_router_on_triton", "test_load_web_streams"),
    *("test_lm_eval_generation", "test_far_workers", "test_labels_across_models"),
    *("test_load_distributed", "test_perf_analyzer", "test_load_locust_counts"),
    *("test_row_kinds_any_server", "test_tensorrt_api"),
)
"""The files that take longest, those of one rig before all: no process works alone at the end."""
ON_ONE_RIG = (
    *("test_load_faults", "test_load_generators", "test_load_processes"),
    "test_load_open_loop_processes",
)
"""One process runs all of them: they share five load generators, which take 10 s to start."""
EXPORT_ITSELF = ("test_architectures", "test_export_variants", "test_generation_export")
"""Their subject is the export: no graph that they ask got its weights from another's."""
START_GENERATORS = (
    *("test_load_faults", "test_load_generators", "test_load_open_loop_processes"),
    *("test_load_processes", "test_main_job", "test_trial_faults"),
    *("test_far_workers", "test_far_faults"),
)
"""Their subject is the load generators' processes, which they count, stop and kill: they start
their own."""

END_SERVERS = (
    *("test_dying_server", "test_embedded_environment", "test_embedded_orphans"),
    *("test_embedded_server", "test_main_job"),
)
"""Their subject is also how servers end: in order, or with nothing left of them."""


class ByFile(LoadFileScheduling):
    """`--dist loadfile`, but for the files that share a rig: they go to one process together."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "rig" if Path(file).stem in ON_ONE_RIG else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """What hands the tests out; None leaves that to xdist, where files may be split."""
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first, single slow tests and then files: so it is handed out."""
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (not _takes_minutes(item), place.get(item.path.stem, len(place))))


def _takes_minutes(item: pytest.Item) -> bool:
    """Whether a slow test is given an hour or more."""
    given = item.get_closest_marker("timeout")
    is_slow = item.get_closest_marker("slow") is not None
    return is_slow and given is not None and given.args[0] >= 3600


def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole run: with pytest-xdist each process has one of its own in it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="module", autouse=True)
def graphs(request: pytest.FixtureRequest) -> Iterator[None]:
    """A made checkpoint is exported once by the same code."""
    with kept_graphs(graphs_folder(), own=request.path.stem in EXPORT_ITSELF):
        yield


@pytest.fixture(scope="session")
def kept_generators() -> Iterator[KeptGenerators]:
    """The load generators that tests of this process have started and need no more."""
    kept = KeptGenerators()
    yield kept
    kept.close()


@pytest.fixture(scope="module", autouse=True)
def generators(request: pytest.FixtureRequest, kept_generators: KeptGenerators) -> Iterator[None]:
    """Commands that a file calls in this process take their load generators from each other."""
    if request.path.stem in START_GENERATORS:
        yield
        return
    with kept_generators.in_use():
        yield


@pytest.fixture(scope="module", autouse=True)
def servers(request: pytest.FixtureRequest) -> Iterator[None]:
    """A server that a file needs no more is killed, except where its end is what is tested."""
    if request.path.stem in END_SERVERS:
        yield
        return
    with killed_servers():
        yield


@pytest.fixture(scope="session", autouse=True)
def few_lone_requests() -> Iterator[None]:
    """A cold start and the null model are measured with fewer requests, one after the other.

    What is told of them is the same; on two cores that are shared, hundreds take seconds a run.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold_start, "MOST_REQUESTS", 60)
        patch.setattr(null_model, "MOST_REQUESTS", 60)
        patch.setattr(null_model, "WARM_UP_REQUESTS", 20)
        yield


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """No trial of a run in this process is invalid, or measured twice, because of other work."""
    with unhurried():
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers and two language models, exported once for all test processes.

    The folder has two studies, `study.yaml` of the classifiers and `both.yaml` of all four, and
    their `model_repository`. Tests take a copy: see `local_study`.
    """
    folder = run_folder(tmp_path_factory) / "exported"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            making = folder.with_name("exporting")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            classifiers = write_local_study(making, objective=HARMLESS)
            both = shutil.copy(classifiers, making / "both.yaml")
            add_language_model_family(both)
            repository = str(making / "model_repository")
            with kept_graphs(graphs_folder()):
                assert run_command(["export", str(both), "--repository", repository]) == 0
            making.rename(folder)
    return folder


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelVariant]:
    """A checkpoint that writes, and its fp32 variant in a repository, which has an int8 one too.

    Of Llama's shape; exported once by the same code, as `kept_graphs` are.
    """
    kept = graphs_folder() / "generator"
    with FileLock(kept.with_suffix(".lock")):
        if not kept.exists():
            making = kept.with_name("generator-making")
            shutil.rmtree(making, ignore_errors=True)
            checkpoint = make_generator(making / "checkpoint", "llama")
            export_generator(checkpoint, making / "model_repository", **BOTH)
            making.rename(kept)
        folder = tmp_path_factory.mktemp("generator") / "copy"
        shutil.copytree(kept, folder)
    checkpoint = folder / "checkpoint"
    return checkpoint, export_generator(checkpoint, folder / "model_repository", **BOTH)


@pytest.fixture(scope="module")
def local_study(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tests' own copy of `exported`: the study of the classifiers."""
    folder = tmp_path_factory.mktemp("local") / "study"
    shutil.copytree(exported, folder)
    return folder / "study.yaml"


@pytest.fixture(scope="session")
def routed(tmp_path_factory: pytest.TempPathFactory, server_environment: object) -> Path:
    """A teacher and three students, exported and scored once for all test processes.

    The folder has `repository`, the models, and `scored`, the run; tests work on a copy of the run.
    """
    folder = run_folder(tmp_path_factory) / "routed"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "scored" / "manifest.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            study, repository = write_routed_study(folder), folder / "repository"
            scored = ["evaluate", str(study), "--out", str(folder / "scored")]
            assert run_command([*scored, "--repository", str(repository)]) == 0
    return folder


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Three workers that speak the harness's own HTTP and gRPC."""
    with load_rig(tmp_path_factory.mktemp("rig"), workers=3) as made:
        yield made


@pytest.fixture(scope="session")
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
