"""What goes wrong between machines: each is one clear line, and the next load is whole again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fake_server import Behaviour, constant
from far_workers import TOKEN, FarRig, FarWorkers, connected_to, far_rig, far_workers
from load_rig import LONGEST_S, PATIENCE_S, Watcher, count_ok, enough, environment, wait_until
from locust_command import end
from net_spaces import NetSpaces, refusal
from net_wire import Link

from harness.errors import GeneratorError
from harness.load.generators.master_endpoint import TOKEN_VARIABLE
from harness.load.requests.payloads import write_payloads
from tests.held_up import unhurried

pytestmark = pytest.mark.skipif(bool(refusal()), reason=refusal())

CUT_S = 5.0
STOPS_WITHIN_S = 2.0
MASTER = """
import sys
from pathlib import Path
from harness.load.generators.master_endpoint import MasterEndpoint
from harness.load.generators.pool import Joining, LoadGenerators, LoadJob
from harness.load.transports.address import parse_target
from load_rig import Watcher, make_workload
from fake_server import LOGITS
target, host, port, payloads, logs = sys.argv[1:]
joining = Joining(MasterEndpoint(host, int(port)), expected=2, least=2)
job = LoadJob("m", Path(payloads), (LOGITS,), make_workload(duration_s=600.0))
with LoadGenerators(
    http=parse_target(target), grpc=parse_target(target), workers=joining, log_dir=Path(logs)
) as generators:
    generators.run(job, Watcher())
"""


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[NetSpaces]:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with NetSpaces() as made:
        yield made


@pytest.fixture
def workers(net: NetSpaces, tmp_path: Path) -> Iterator[FarWorkers]:
    spaces = [net.add(Link(delay_s=0.0025), clock_shift_s=2), net.add(Link(delay_s=0.02))]
    with far_workers(net, spaces, tmp_path) as made:
        yield made


def assert_whole(rig: FarRig) -> None:
    """A load of all workers, of which nothing lacks."""
    with unhurried():
        result = rig.run(Behaviour(constant(0.005)), Watcher(decided=enough(100)))
    assert result.troubles == ()
    assert len(result.generators) == 2
    assert count_ok(rig.reported(result)) == len(rig.server.served)


def load_with(rig: FarRig, fault: Callable[[], object], *, lasts_s: float = LONGEST_S) -> str:
    """A load in whose window something goes wrong: what it says of that; empty where it is whole.

    Args:
        rig: that the load is of.
        fault: makes it, in a thread of its own, from the window's opening on.
        lasts_s: the window.
    """
    beside = threading.Thread(target=fault)
    watcher = Watcher(steady=enough(), on_window_start=beside.start)
    try:
        result = rig.run(Behaviour(constant(0.005)), watcher, duration_s=lasts_s)
    except GeneratorError as error:
        beside.join(PATIENCE_S)
        wait_until(lambda: not connected_to(rig))
        return str(error)
    beside.join(PATIENCE_S)
    if not result.troubles:
        assert count_ok(rig.reported(result)) == len(rig.server.served)
    return "; ".join(result.troubles)


def test_a_network_that_is_cut_for_5_s(workers: FarWorkers, tmp_path: Path) -> None:
    """The load is not silently short: it says who was not heard, and the next one is whole.

    On a machine that is slow to notice the cut lasts until that is told.
    """

    def cut() -> None:
        known = len(rig.told)
        with workers.spaces[0].cut_off():
            time.sleep(CUT_S)
            wait_until(lambda: any("is gone" in one for one in rig.told[known:]))

    with far_rig(workers, tmp_path) as rig:
        assert_whole(rig)
        said = load_with(rig, cut)
        assert "worker" in said
        assert_whole(rig)


@pytest.mark.slow
def test_a_network_that_loses_and_reorders_is_only_slow(
    workers: FarWorkers, tmp_path: Path
) -> None:
    with far_rig(workers, tmp_path) as rig:
        for space in workers.spaces:
            space.link.loss, space.link.jitter_s = 0.03, 0.01
        result = rig.run(Behaviour(constant(0.005)), Watcher(decided=enough(300)))
        assert count_ok(rig.reported(result)) == len(rig.server.served)


@pytest.mark.slow
def test_a_worker_that_is_frozen_for_3_s_is_named(workers: FarWorkers, tmp_path: Path) -> None:
    process = workers.processes[0]

    def freeze() -> None:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(process.pid, signal.SIGCONT)

    with far_rig(workers, tmp_path) as rig:
        assert_whole(rig)
        said = load_with(rig, freeze, lasts_s=6.0)
        assert "stood still" in said or "is gone" in said, said
        assert "worker" in said
        assert_whole(rig)


@pytest.mark.slow
def test_a_killed_worker_is_named_and_its_successor_takes_its_place(
    workers: FarWorkers, tmp_path: Path
) -> None:
    with far_rig(workers, tmp_path) as rig:
        assert_whole(rig)
        said = load_with(rig, workers.processes[0].kill)
        assert "is gone" in said
        workers.start(0)
        assert_whole(rig)


def test_without_the_master_workers_stop_and_serve_the_next(
    net: NetSpaces, workers: FarWorkers, tmp_path: Path
) -> None:
    """SIGKILL in a load: within 2 s nobody sends any more."""
    with far_rig(workers, tmp_path) as rig:
        assert_whole(rig)
        server, payloads = rig.server, rig.payloads
        rig.generators.close()
        server.begin(Behaviour(constant(0.005)))
        log = (tmp_path / "master.log").open("w")
        master = subprocess.Popen(
            [sys.executable, "-c", MASTER, server.http, net.address, str(workers.endpoint.port),
             str(payloads), str(tmp_path / "other-logs")],
            env=environment(), stdout=log, stderr=log,
        )  # fmt: skip
        try:
            wait_until(lambda: len(server.served) > 50 or master.poll() is not None)
            assert master.poll() is None, (tmp_path / "master.log").read_text()
            killed_ns = time.monotonic_ns()
        finally:
            end(master)
        time.sleep(STOPS_WITHIN_S + 1)
        last_ns = max(one.received_ns for one in server.served)
        assert (last_ns - killed_ns) / 1e9 < STOPS_WITHIN_S
        sent = len(server.served)
        time.sleep(1)
        assert len(server.served) == sent
        assert_whole(rig)


def test_a_full_disk_at_a_worker_is_one_line_that_names_it(net: NetSpaces, tmp_path: Path) -> None:
    """Payloads that do not fit there end that load alone."""
    spaces = [net.add(), net.add()]
    small = tmp_path / "cache-0"
    big = tmp_path / "big.npz"
    ids = np.random.default_rng(0).integers(0, 2**62, (4096, 16))
    write_payloads(big, [{"input_ids": ids, "attention_mask": np.ones_like(ids)}])
    with (
        tiny_disk(small),
        far_workers(net, spaces, tmp_path) as workers,
        far_rig(workers, tmp_path) as rig,
    ):
        fitting, rig.payloads = rig.payloads, big
        with pytest.raises(GeneratorError, match="No space left on device") as refused:
            rig.run(Behaviour(), Watcher(decided=enough(20)))
        assert "worker" in str(refused.value).splitlines()[0]
        assert not rig.server.served
        rig.payloads = fitting
        assert_whole(rig)


@contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
