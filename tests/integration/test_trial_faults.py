"""Trials on a server that misbehaves: what the run folder says, and what it does not claim."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_server import LOGITS, Behaviour, FakeServer, Fault, bimodal, constant, right_answer
from load_rig import OPEN, WORKLOAD, Rig, is_running, load_rig, read_records, wait_until_gone
from numpy.typing import NDArray
from samples import sample_variant

from harness import hdr
from harness.errors import ServerError
from harness.flow.options import RunSettings
from harness.flow.serving import Site
from harness.flow.trial import TrialRunner
from harness.runs.folder import RunFolder
from harness.serving.endpoint import Endpoint
from harness.study.objective import parse_objective
from harness.types import (
    Decision,
    ModelVariant,
    ServingConfig,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)

OBJECTIVE = "p95 < 100 ms"
SLOW_S = 0.2
"""How late a generator may be is a share of the latency: a busy machine shall not matter here."""


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
class Bench:
    """A trial runner on the fake server."""

    rig: Rig
    runner: TrialRunner
    folder: RunFolder

    def measure(self, behaviour: Behaviour, *, slo: str = OBJECTIVE, **changes: Any) -> TrialResult:
        self.rig.server.behaviour = behaviour
        self.rig.server.served.clear()
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
    started = time.monotonic()
    result = bench.measure(
        Behaviour(constant(SLOW_S)), slo="p50 < 5 s", protocol=protocol, concurrency=16,
        duration_s=30.0, min_duration_s=1.0,
    )  # fmt: skip
    assert time.monotonic() - started < 20
    assert (result.decision, result.failures) == (Decision.PASS, 0)
    assert result.duration_s < 10
    assert result.requests > 50
    stored = bench.folder.path / result.histogram_file
    assert hdr.total(hdr.decode(stored.read_text().strip())) == result.requests
    assert (bench.folder.path / "series" / f"{result.trial.trial_id}.csv").is_file()
    records = bench.folder.path / "records" / result.trial.trial_id
    assert len(list(records.glob("*.parquet"))) == 2


def test_a_slow_server_fails_as_soon_as_that_is_sure(bench: Bench) -> None:
    behaviour = Behaviour(bimodal(0.02, 2 * SLOW_S, slow_share=0.3))
    result = bench.measure(behaviour, concurrency=16, duration_s=30.0, min_duration_s=1.0)
    assert result.decision is Decision.FAIL
    assert "p95" in result.reason
    assert result.duration_s < 15
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
    result = bench.measure(Behaviour(constant(0.001), fault=fault), protocol=protocol)
    assert result.decision is not Decision.PASS
    assert set(result.failures_by_kind) == {kind}
    assert result.failures > 0


def test_a_load_that_was_not_steady_yet_is_measured_again(own_rig: Rig, tmp_path: Path) -> None:
    """A server that is slow for its first second and a half, and a warm-up of 0.3 s."""
    began_s: list[float] = []

    def warming(_: int) -> float:
        now_s = time.monotonic()
        began_s.append(now_s)
        return 0.08 if now_s - began_s[0] < 1.5 else 0.004

    warned: list[str] = []
    with make_folder(tmp_path) as folder:
        bench = make_bench(own_rig, own_rig.server, folder, warn=warned.append)
        own_rig.server.behaviour = Behaviour(warming)
        changed = {"protocol": WireProtocol.HTTP, **WORKLOAD, "warmup_s": 0.3, "duration_s": 3.0}
        trial = Trial("m", "numbers", ServingConfig(), Workload(**changed))
        result = bench.runner.settle(trial, parse_objective("p50 < 5 s"))
        first, second = folder.journal.trials.values()
    assert second == result
    assert first.trial == trial
    assert "not steady yet when the window opened" in first.invalid_reason
    assert first.warmup_s == pytest.approx(0.3)
    assert first.steadier_warmup_s is not None  # how much more: test_analysis_validity
    assert first.steadier_warmup_s > 1.5
    assert second.trial.trial_id == f"{trial.trial_id}-r3"
    assert second.warmup_s >= first.steadier_warmup_s - 1e-9
    assert "not steady" not in second.invalid_reason
    assert [one for one in warned if "is measured again after" in one]


def test_a_server_that_fails_always_is_broken_and_not_slow(bench: Bench) -> None:
    result = bench.measure(Behaviour(fault=Fault.UNAVAILABLE))
    assert (result.valid, result.decision) == (False, Decision.INVALID)
    assert "http_503" in result.invalid_reason
    assert result.latency is None


def test_a_server_that_fails_now_and_then_fails_its_objective(bench: Bench) -> None:
    behaviour = Behaviour(constant(SLOW_S), fault=Fault.UNAVAILABLE, fault_every=8)
    result = bench.measure(behaviour, slo="p95 < 1 s", concurrency=32, duration_s=0.8)
    assert result.failures_by_kind == {"http_503": result.failures}
    assert result.failures == pytest.approx(result.requests / 7, abs=8)
    assert result.decision is Decision.FAIL
    assert "error rate" in result.reason


def test_what_an_open_loop_dropped_does_not_pass(bench: Bench) -> None:
    changed = {**OPEN, "concurrency": 4}
    result = bench.measure(Behaviour(constant(0.1)), **changed)
    assert result.dropped > 20
    assert result.failures_by_kind == {}
    assert result.offered_requests_per_s == pytest.approx(200, rel=0.3)
    assert result.decision is not Decision.PASS


def test_counters_that_are_read_late_are_allowed_for_and_said(own_rig: Rig, tmp_path: Path) -> None:
    """The harness waits for them beyond the window's end: no request is lost meanwhile."""
    own_rig.run(Behaviour())
    warnings: list[str] = []
    site = SlowlyReadSite(own_rig.server, held_up_s=2.5)
    with make_folder(tmp_path) as folder:
        late = make_bench(own_rig, own_rig.server, folder, site=site, warn=warnings.append)
        result = late.measure(Behaviour(constant(0.01)), slo="p50 < 5 s", duration_s=1.5)
        records = read_records(folder.path / "records" / result.trial.trial_id)
    assert result.valid, result.invalid_reason
    assert result.decision is Decision.PASS
    assert result.requests <= len(records.sent_ns) == len(own_rig.server.served)
    assert result.requests > 0.8 * 1.5 * 4 / 0.01 / 2
    assert result.server.requests is not None
    assert result.server.requests_uncertainty > result.throughput_requests_per_s
    (warning,) = warnings
    said = re.search(r"the server's counters were read ([\d.]+) s off the window's edges", warning)
    assert said
    assert float(said[1]) >= 2.5


def test_a_server_that_dies_ends_the_run(own_rig: Rig, tmp_path: Path) -> None:
    server = FakeServer()
    server.start()
    with make_folder(tmp_path) as folder, own_rig.aimed_at(server.http):
        bench = make_bench(own_rig, server, folder)

        def die_soon(ordinal: int) -> float:
            if ordinal == 50:
                server.stop_soon()
            return 0.005

        started = time.monotonic()
        with pytest.raises(ServerError, match="the server died"):
            bench.measure(Behaviour(die_soon), duration_s=60.0)
    assert time.monotonic() - started < 20
    server.stop()


def test_a_killed_worker_spoils_one_trial_and_no_more(bench: Bench) -> None:
    doomed, other = bench.rig.generators.pids

    def kill_after_a_while(_: int) -> float:
        if len(bench.rig.server.served) >= 300 and is_running(doomed):
            os.kill(doomed, signal.SIGKILL)
        return 0.005

    result = bench.measure(Behaviour(kill_after_a_while), duration_s=30.0)
    assert (result.valid, result.decision) == (False, Decision.INVALID)
    assert "SIGKILL" in result.invalid_reason
    assert (result.requests, result.latency, result.histogram_file) == (0, None, "")
    assert wait_until_gone([doomed, other])
    records = bench.folder.path / "records" / result.trial.trial_id
    assert len(read_records(records).sent_ns) > 50  # what was seen until then is still there
    again = bench.measure(Behaviour(constant(0.005)), slo="p50 < 1 s", duration_s=0.5)
    assert again.requests > 0
    assert again.failures_by_kind == {}
