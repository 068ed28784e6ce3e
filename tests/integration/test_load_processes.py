"""What can happen to the generators' processes and to their parent; none of them is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_server import Behaviour, FakeServer, constant
from load_rig import (
    LONGEST_S,
    PATIENCE_S,
    Rig,
    Watcher,
    check_slices,
    count_ok,
    enough,
    environment,
    is_running,
    load_rig,
    read_records,
    wait_until_gone,
)

from harness.errors import GeneratorError
from harness.load.generators import generator, pool, process
from harness.load.records.requests import recover_records
from harness.load.transports.address import parse_target
from harness.types import TimeSlice


def test_a_killed_worker_is_named_and_replaced(rig: Rig, tmp_path: Path) -> None:
    rig.run(Behaviour())
    doomed, *others = rig.generators.pids

    def kill() -> None:
        os.kill(doomed, signal.SIGKILL)

    # At once, not when the window would have ended.
    with pytest.raises(GeneratorError, match=f"process {doomed}.*SIGKILL") as caught:
        rig.run(
            Behaviour(constant(0.005)),
            Watcher(steady=enough(), on_window_start=kill),
            duration_s=LONGEST_S,
            records=tmp_path,
        )
    assert "generator-0.log" in caught.value.next_step
    wait_until_gone([doomed, *others])  # the others would have gone on sending
    # What the killed ones had written down is still there.
    assert len(recover_records(tmp_path)) == 3
    assert 0 < len(read_records(tmp_path).sent_ns) <= len(rig.server.served)
    assert rig.run(Behaviour()).completed > 0
    assert not {doomed, *others} & set(rig.generators.pids)


def kill_workers(rig: Rig, pids: Sequence[int]) -> None:
    """Return when their parent can know: the last thread's end is what makes a process dead."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while set(pids) & set(rig.generators.pids):
        time.sleep(0.01)


def test_a_worker_that_died_between_trials_is_replaced(rig: Rig) -> None:
    rig.run(Behaviour())
    kill_workers(rig, rig.generators.pids[1:2])
    assert rig.run(Behaviour()).completed > 0
    assert len(rig.generators.pids) == 3


def test_a_worker_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "WORKER", "no.such.module")
    with (
        load_rig(tmp_path) as broken,
        pytest.raises(GeneratorError, match=r"(?s)died: exit status 1.*No module named '?no"),
    ):
        broken.run(Behaviour())


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Rig]:
    """One worker, for tests that end it again and again."""
    with load_rig(tmp_path) as made:
        yield made


def test_a_hanging_worker_is_killed_at_the_deadline(
    lonely: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "DRAIN_GRACE_S", 0.5)
    lonely.run(Behaviour())
    (hanging,) = lonely.generators.pids

    def hang() -> None:
        os.kill(hanging, signal.SIGSTOP)

    with pytest.raises(GeneratorError, match=f"process {hanging}.*hangs"):
        lonely.run(Behaviour(), Watcher(on_window_start=hang), request_timeout_s=0.2)
    wait_until_gone([hanging])


def interrupt() -> None:
    """What Ctrl-C does to the main thread."""
    signal.raise_signal(signal.SIGINT)


def interrupted(slices: Sequence[TimeSlice]) -> bool:
    """For the warm-up, as soon as something of it is known."""
    if slices:
        interrupt()
    return False


def in_prepare(rig: Rig, patch: pytest.MonkeyPatch) -> Watcher:
    """Workers that were just started take seconds to be ready."""
    kill_workers(rig, rig.generators.pids)
    gather = generator.gather

    def gather_interrupted(*arguments: Any, **settings: Any) -> object:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return gather(*arguments, **settings)

    patch.setattr(pool, "gather", gather_interrupted)
    return Watcher()


def in_warm_up(*_: object) -> Watcher:
    return Watcher(steady=interrupted)


def in_window(*_: object) -> Watcher:
    return Watcher(steady=enough(1), on_window_start=interrupt)


def in_drain(*_: object) -> Watcher:
    return Watcher(decided=enough(1), on_window_end=interrupt)


@pytest.mark.parametrize("phase", [in_window, in_warm_up, in_drain, in_prepare])
def test_ctrl_c_ends_the_load_at_once_wherever_it_comes(
    lonely: Rig,
    phase: Callable[[Rig, pytest.MonkeyPatch], Watcher],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lonely.run(Behaviour())
    pids = lonely.generators.pids
    watcher = phase(lonely, monkeypatch)
    changes: dict[str, Any] = {"duration_s": LONGEST_S, **watcher.times_s}
    with pytest.raises(KeyboardInterrupt):
        lonely.run(Behaviour(constant(0.2)), watcher, **changes)
    wait_until_gone(pids)
    assert not lonely.generators.pids
    sent = len(lonely.server.served)
    time.sleep(0.3)
    assert len(lonely.server.served) <= sent + 4  # what was in flight, and no more


def test_a_disk_that_fills_up_ends_the_records_and_not_the_load(
    lonely: Rig, tmp_path: Path
) -> None:
    """Not the disk but a limit on the size of a file, which is the same to whoever writes."""
    lonely.run(Behaviour())
    (pid,) = lonely.generators.pids
    limit = 10_000

    def limit_files() -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))

    records = tmp_path / "records"
    # A request takes 30 bytes and more: the last thousand of these are sent long after the limit.
    watcher = Watcher(decided=enough(limit // 30 + 1000), on_window_start=limit_files)
    result = lonely.run(Behaviour(), watcher, concurrency=32, records=records)
    assert os.strerror(errno.EFBIG) in result.records_problem
    assert "the records of this process are lost" in result.records_problem
    assert list(records.iterdir()) == []  # the space is what the results need
    assert result.failures == {}
    assert count_ok(lonely.reported(result)) == len(lonely.server.served)
    assert lonely.generators.pids == (pid,)


def test_reports_that_nobody_takes_until_the_load_is_over_lose_no_request(
    lonely: Rig, tmp_path: Path
) -> None:
    """The harness may be held up: by its reading of the server, by a machine that stalls."""
    lonely.run(Behaviour())
    switchboard = lonely.generators._switchboard
    assert switchboard is not None
    pipe = switchboard._process.stdout
    assert pipe is not None
    fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGESIZE"))

    def take_nothing() -> None:
        time.sleep(1.5)

    watcher = Watcher(on_window_start=take_nothing)
    folder = tmp_path / "records"
    result = lonely.run(Behaviour(constant(0.002)), watcher, duration_s=1.0, records=folder)
    records = read_records(folder)
    assert count_ok(result.slices) == len(lonely.server.served) == len(records.id)
    check_slices(result, records)


def test_a_folder_that_cannot_be_written_is_said_before_the_load(
    lonely: Rig, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    with pytest.raises(GeneratorError, match="file"):
        lonely.run(Behaviour(), records=in_the_way / "records")
    assert lonely.server.served == []


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    with load_rig(tmp_path, workers=3) as made:
        pids = made.generators.pids
        assert len(pids) == 3
        result = made.run(Behaviour(), concurrency=2)
        assert result.completed > 0
        assert len(result.generators) == 2  # one of the three had no share
    assert not any(is_running(pid) for pid in pids)


def test_generators_may_be_closed_from_another_thread_and_twice(tmp_path: Path) -> None:
    with FakeServer() as server:
        made = pool.LoadGenerators(
            http=parse_target(server.http),
            grpc=parse_target(server.grpc),
            workers=1,
            log_dir=tmp_path,
        )
        with made:
            pids = made.pids
            closer = threading.Thread(target=made.close)
            closer.start()
            closer.join()
        assert not any(is_running(pid) for pid in pids)


PARENT = """
    import sys
    from pathlib import Path
    from fake_server import Behaviour, constant
    from load_rig import LONGEST_S, Watcher, enough, load_rig

    with load_rig(Path(sys.argv[1]), workers=2) as rig:
        tell = lambda: print(*rig.generators.pids, flush=True)
        watcher = Watcher(steady=enough(), on_window_start=tell)
        rig.run(Behaviour(constant(0.01)), watcher, duration_s=LONGEST_S)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another Python that drives load for ten minutes, in its own process group."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as child:
        yield child
        child.kill()


def workers_of(parent: subprocess.Popen[str]) -> list[int]:
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(is_running(pid) for pid in pids)
    return pids


def test_no_worker_outlives_a_killed_parent_even_if_it_hangs(
    parent: subprocess.Popen[str],
) -> None:
    """One sees the end of its orders; the other cannot, and the kernel ends it."""
    workers = workers_of(parent)
    os.kill(workers[0], signal.SIGSTOP)
    parent.kill()
    wait_until_gone(workers)


def test_ctrl_c_in_the_foreground_group_ends_all(parent: subprocess.Popen[str]) -> None:
    workers = workers_of(parent)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in errors
    wait_until_gone(workers)
