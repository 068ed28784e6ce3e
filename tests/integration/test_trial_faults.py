"""Trials on a server that misbehaves: what the run folder says, and what it does not claim."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_server import LOGITS, Behaviour, FakeServer, Fault, bimodal, constant, right_answer
from load_rig import (
    ENOUGH,
    LONGEST_S,
    OPEN,
    WORKLOAD,
    Rig,
    is_running,
    load_rig,
    read_records,
    wait_until_gone,
)
from numpy.typing import NDArray
from samples import sample_variant

from harness import hdr
from harness.errors import ServerError
from harness.flow.options import RunSettings
from harness.flow.serving import Site
from harness.flow.trial import TrialRunner
from harness.load.generators.pool import LoadGenerators
from harness.runs.folder import RunFolder
from harness.serving.endpoint import Endpoint
from harness.study.objective import parse_objective
from harness.types import (
    Decision,
    LoadResult,
    ModelVariant,
    ServingConfig,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)

pytestmark = pytest.mark.usefixtures("undisturbed")

OBJECTIVE = "p95 < 100 ms"
EASY = "p50 < 60 s"
"""No machine is so busy."""
UNTIL_DECIDED: dict[str, Any] = {"duration_s": LONGEST_S, "min_duration_s": 0.2}
NO_ERRORS = "error_rate < 0.01%"
SLOW_S = 0.2


@dataclass
class FakeSite:
    """The fake server as a trial's server and as the independent client's, without statistics."""

    fake: FakeServer
    pid: int | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.fake.http, self.fake.grpc, "")

    def check(self) -> None:
        if not self.fake.running:
            raise ServerError("the server died")

    def statistics(self, model: str) -> dict[str, Any]:
        raise ServerError(f"{model}: no statistics here")

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return right_answer(inputs)


@dataclass
class SlowlyReadSite(FakeSite):
    """Counts as Triton does; the first answer keeps whoever asks waiting."""

    held_up_s: float = 0.0

    def statistics(self, model: str) -> dict[str, Any]:
        count = len(self.fake.served)
        time.sleep(self.held_up_s)
        self.held_up_s = 0.0
        return {"inference_stats": {"success": {"count": count}}, "inference_count": count}


@dataclass
class SeenGenerators:
    """Load generators, and what they have measured."""

    generators: LoadGenerators
    loads: list[LoadResult] = field(default_factory=list)

    @property
    def pids(self) -> tuple[int, ...]:
        return self.generators.pids

    def run(self, *arguments: Any, **settings: Any) -> LoadResult:
        self.loads.append(self.generators.run(*arguments, **settings))
        return self.loads[-1]


@dataclass
class Bench:
    """A trial runner on the fake server."""

    rig: Rig
    runner: TrialRunner
    folder: RunFolder

    def measure(self, behaviour: Behaviour, *, slo: str = OBJECTIVE, **changes: Any) -> TrialResult:
        self.rig.server.begin(behaviour)
        changed = {"protocol": WireProtocol.HTTP, **WORKLOAD, **changes}
        trial = Trial("m", "numbers", ServingConfig(), Workload(**changed))
        return self.runner.measure(trial, parse_objective(slo))


def variant() -> ModelVariant:
    """What the fake server is taken for."""
    return dataclasses.replace(sample_variant("m"), outputs=(LOGITS,))


@pytest.fixture(scope="module")
def own_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with load_rig(tmp_path_factory.mktemp("bench"), workers=2) as made:
        yield made


@pytest.fixture
def bench(own_rig: Rig, tmp_path: Path) -> Iterator[Bench]:
    own_rig.run(Behaviour())  # whatever the test before it did to the workers
    with make_folder(tmp_path) as folder:
        yield make_bench(own_rig, own_rig.server, folder)


def make_folder(path: Path) -> RunFolder:
    return RunFolder.create(path / "run", {})


def make_bench(
    rig: Rig,
    server: FakeServer,
    folder: RunFolder,
    *,
    site: FakeSite | None = None,
    **settings: Any,
) -> Bench:
    site = site or FakeSite(server)
    runner = TrialRunner(
        Site(site, site, None),
        rig.generators,
        folder,
        variants={"m": variant()},
        payloads={"m": rig.payloads},
        settings=RunSettings(keep_records=True, **settings),
    )
    return Bench(dataclasses.replace(rig, server=server), runner, folder)


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_a_sound_server_passes_as_soon_as_that_is_sure(
    bench: Bench, protocol: WireProtocol
) -> None:
    result = bench.measure(
        Behaviour(constant(SLOW_S)), slo=EASY, protocol=protocol, concurrency=16, **UNTIL_DECIDED
    )
    assert result.decision is Decision.PASS, result.reason or result.invalid_reason
    assert result.failures == 0
    assert result.duration_s < LONGEST_S
    stored = bench.folder.path / result.histogram_file
    assert hdr.total(hdr.decode(stored.read_text().strip())) == result.requests > 0
    assert (bench.folder.path / "series" / f"{result.trial.trial_id}.csv").is_file()
    records = bench.folder.path / "records" / result.trial.trial_id
    assert len(list(records.glob("*.parquet"))) == 2


def test_a_slow_server_fails_as_soon_as_that_is_sure(bench: Bench) -> None:
    behaviour = Behaviour(bimodal(0.02, 2 * SLOW_S, slow_share=0.3))
    result = bench.measure(behaviour, concurrency=16, **UNTIL_DECIDED)
    assert result.decision is Decision.FAIL
    assert "p95" in result.reason
    assert result.duration_s < LONGEST_S
    assert result.latency is not None
    assert result.latency.percentiles["p95"].value_ms >= 2000 * SLOW_S


@pytest.mark.parametrize("protocol", list(WireProtocol))
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.EMPTY_OUTPUT, "empty_output"),
        (Fault.NON_FINITE, "non_finite"),
        (Fault.WRONG_ROW, "wrong_answer"),
    ],
)
def test_wrong_answers_do_not_pass_however_fast(
    bench: Bench, protocol: WireProtocol, fault: Fault, kind: str
) -> None:
    """Of the wrong rows, those of the requests with known answers are found: a few in a hundred."""
    behaviour = Behaviour(constant(0.001), fault=fault)
    result = bench.measure(behaviour, slo=NO_ERRORS, protocol=protocol, **UNTIL_DECIDED)
    assert result.decision in {Decision.FAIL, Decision.INVALID}
    assert result.duration_s < LONGEST_S
    assert set(result.failures_by_kind) == {kind}
    assert result.failures > 0


def test_a_server_that_fails_always_is_broken_and_not_slow(bench: Bench) -> None:
    result = bench.measure(Behaviour(fault=Fault.UNAVAILABLE), slo=NO_ERRORS, **UNTIL_DECIDED)
    assert (result.valid, result.decision) == (False, Decision.INVALID)
    assert "http_503" in result.invalid_reason
    assert result.latency is None


def test_a_server_that_fails_now_and_then_fails_its_objective(bench: Bench) -> None:
    behaviour = Behaviour(constant(SLOW_S), fault=Fault.UNAVAILABLE, fault_every=8)
    result = bench.measure(behaviour, slo="p95 < 60 s", concurrency=32, **UNTIL_DECIDED)
    assert result.failures_by_kind == {"http_503": result.failures}
    records = bench.folder.path / "records" / result.trial.trial_id
    failed, answered = (len(read_records(records, one).id) for one in ("http_503", "ok"))
    assert abs(failed - answered / 7) <= 1
    assert 0 < result.failures <= failed
    assert result.decision is Decision.FAIL
    assert "error rate" in result.reason


def test_what_an_open_loop_dropped_does_not_pass(bench: Bench) -> None:
    changed = {**OPEN, "concurrency": 4}
    result = bench.measure(Behaviour(constant(0.5)), **changed)
    assert result.dropped > 20
    assert result.failures_by_kind == {}
    assert result.offered_requests_per_s == pytest.approx(200, rel=0.3)
    assert result.decision is not Decision.PASS


def test_counters_that_are_read_late_are_allowed_for_and_said(own_rig: Rig, tmp_path: Path) -> None:
    """The harness waits for them beyond the window's end: no request is lost meanwhile."""
    own_rig.run(Behaviour())
    warnings: list[str] = []
    site = SlowlyReadSite(own_rig.server, held_up_s=1.5)
    with make_folder(tmp_path) as folder:
        late = make_bench(own_rig, own_rig.server, folder, site=site, warn=warnings.append)
        late.runner._generators = seen = SeenGenerators(own_rig.generators)
        result = late.measure(Behaviour(constant(0.01)), slo=EASY, duration_s=1.0)
        records = read_records(folder.path / "records" / result.trial.trial_id)
    assert result.valid, result.invalid_reason
    assert result.decision is Decision.PASS
    assert len(records.id) == len(own_rig.server.served)
    (load,) = seen.loads
    inside = records.scheduled_ns >= load.window_start_ns
    inside &= records.scheduled_ns < load.window_end_ns
    assert result.requests == inside.sum()
    assert result.server.requests is not None
    assert result.server.requests_uncertainty > result.throughput_requests_per_s
    (warning,) = warnings
    said = re.search(r"the server's counters were read ([\d.]+) s off the window's edges", warning)
    assert said
    assert float(said[1]) >= 1.5


def test_a_server_that_dies_ends_the_run(own_rig: Rig, tmp_path: Path) -> None:
    server = FakeServer()
    server.start()
    with make_folder(tmp_path) as folder, own_rig.aimed_at(server.http):
        bench = make_bench(own_rig, server, folder)

        def die_soon(ordinal: int) -> float:
            if ordinal == 50:
                server.stop_soon()
            return 0.005

        with pytest.raises(ServerError, match="the server died"):
            bench.measure(Behaviour(die_soon), duration_s=LONGEST_S)
    server.stop()


def test_a_killed_worker_spoils_one_trial_and_no_more(bench: Bench) -> None:
    doomed, other = bench.rig.generators.pids

    def kill_after_a_while(_: int) -> float:
        if len(bench.rig.server.served) >= 300 and is_running(doomed):
            os.kill(doomed, signal.SIGKILL)
        return 0.005

    result = bench.measure(Behaviour(kill_after_a_while), duration_s=LONGEST_S)
    assert (result.valid, result.decision) == (False, Decision.INVALID)
    assert "SIGKILL" in result.invalid_reason
    assert (result.requests, result.latency, result.histogram_file) == (0, None, "")
    wait_until_gone([doomed, other])
    records = bench.folder.path / "records" / result.trial.trial_id
    assert len(read_records(records).sent_ns) > ENOUGH  # what was seen until then is still there
    again = bench.measure(Behaviour(constant(0.005)), slo=EASY, **UNTIL_DECIDED)
    assert again.requests > 0
    assert again.failures_by_kind == {}
