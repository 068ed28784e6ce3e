"""Workers on other machines: slow lines, clocks of their own, and the same numbers all the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import Behaviour, FakeServer, bimodal
from far_workers import TOKEN, FarRig, far_rig, far_workers, first_load
from load_rig import OPEN, Records, Watcher, enough, make_workload, read_records
from net_spaces import NetSpaces, refusal
from net_wire import Link

from harness import hdr
from harness.load.generators.clocks import DRIFT_PER_S, REMEMBERED_S
from harness.load.generators.generator import Generator
from harness.load.generators.master_endpoint import TOKEN_VARIABLE
from harness.load.schedule.arrivals import CHUNK, arrival_times_ns
from harness.types import LoadResult
from tests.held_up import unhurried

pytestmark = pytest.mark.skipif(bool(refusal()), reason=refusal())

LINES = [
    (Link(delay_s=0.0025), 3),
    (Link(delay_s=0.02), -3),
    (Link(delay_s=0.03, delay_back_s=0.01), 2),
    (Link(delay_s=0.0, jitter_s=0.005), 0),
]
"""5 and 40 ms there and back, one of them lopsided, one that reorders; and each clock's shift."""


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FarRig]:
    folder = tmp_path_factory.mktemp("far")
    with pytest.MonkeyPatch.context() as patch, NetSpaces() as net:
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        spaces = [net.add(link, clock_shift_s=shift) for link, shift in LINES[: request.param]]
        with far_workers(net, spaces, folder) as workers, far_rig(workers, folder) as made:
            first_load(made, folder / "first")
            yield made


def generators_of(rig: FarRig) -> list[Generator]:
    """In the order of the machines: they join in any."""
    switchboard = rig.generators._switchboard
    assert switchboard is not None
    return list(switchboard.joined)


def shift_ns(generator: Generator) -> int:
    """The true one, of the four that there are, which are seconds apart."""
    return min((s * 10**9 for _, s in LINES), key=lambda one: abs(generator.clock.offset_ns - one))


def records_here(rig: FarRig, folder: Path) -> tuple[Records, Records]:
    """All successes, with times on this machine's clock: as the load took it, and in truth."""
    told, true = [], []
    for one in generators_of(rig):
        own = read_records(folder / f"worker-{one.index}.parquet")
        told.append(moved(own, one._clock_of_load.offset_ns))
        true.append(moved(own, shift_ns(one)))
    return joined(told), joined(true)


def moved(records: Records, offset_ns: int) -> Records:
    return Records(
        records.scheduled_ns - offset_ns, records.sent_ns - offset_ns,
        records.completed_ns - offset_ns, records.rows, records.id,
    )  # fmt: skip


def joined(parts: list[Records]) -> Records:
    return Records(
        *(
            np.concatenate([getattr(one, name) for one in parts])
            for name in ("scheduled_ns", "sent_ns", "completed_ns", "rows", "id")
        )
    )


def check_union(rig: FarRig, result: LoadResult, records: Records) -> None:
    """Slice by slice, span by span, bucket by bucket: what all records say is what was merged."""
    slice_ns = round(result.slice_s * 1e9)
    scheduled_in = (records.scheduled_ns - result.start_ns) // slice_ns
    completed_in = (records.completed_ns - result.start_ns) // slice_ns
    reported = rig.reported(result)
    assert sum(hdr.total(one.ok.response) for one in reported) == len(records.scheduled_ns)
    for one in reported:
        for name, span_ns in records.spans_ns().items():
            assert one.ok.of(name) == hdr.of_nanoseconds(span_ns[scheduled_in == one.index])
        assert one.completed == (completed_in == one.index).sum()


def check_clocks(rig: FarRig, server: FakeServer, true: Records) -> None:
    """Each offset is right to its bound, and no answer came before the server gave it.

    The bound is as tight as half the way there and back, whatever that took.
    """
    drift_ns = DRIFT_PER_S * REMEMBERED_S * 1e9
    for one in generators_of(rig):
        assert abs(one._clock_of_load.offset_ns - shift_ns(one)) <= one.clock_error_ns
        assert abs(one.clock.offset_ns - shift_ns(one)) <= one.clock.error_ns
        assert one.clock.error_ns <= one.round_trip_ns / 2 + drift_ns
    served = {one.identity: one for one in server.served}
    for identity, sent_ns, completed_ns in zip(
        true.id, true.sent_ns, true.completed_ns, strict=True
    ):
        assert sent_ns <= served[identity].received_ns
        assert served[identity].received_ns <= completed_ns


@pytest.mark.parametrize("changes", [{"concurrency": 12}, OPEN], ids=["closed", "open"])
def test_merged_histograms_are_the_union_of_all_records(
    rig: FarRig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with unhurried():
        result = rig.run(
            Behaviour(bimodal(0.005, 0.06, slow_share=0.1)),
            Watcher(decided=enough(200)), records=tmp_path, **changes,
        )  # fmt: skip
    assert result.records_problem == ""
    assert result.troubles == ()
    told, true = records_here(rig, tmp_path)
    check_union(rig, result, told)
    check_clocks(rig, rig.server, true)
    assert len(told.id) == len(rig.server.served)


def test_windows_agree_with_the_truth_within_the_stated_uncertainty(
    rig: FarRig, tmp_path: Path
) -> None:
    """What is counted in the window lies between what in truth fell into it less and more that."""
    result = rig.run(
        Behaviour(bimodal(0.002, 0.01, slow_share=0.1)),
        Watcher(decided=enough(300)), records=tmp_path, concurrency=8,
    )  # fmt: skip
    _, true = records_here(rig, tmp_path)
    error_ns = max(one.clock_error_ns for one in generators_of(rig))
    counted = sum(hdr.total(one.ok.response) for one in result.window)

    def within(margin_ns: int) -> int:
        begin_ns, end_ns = result.window_start_ns - margin_ns, result.window_end_ns + margin_ns
        return int(((true.scheduled_ns >= begin_ns) & (true.scheduled_ns < end_ns)).sum())

    assert within(-error_ns) <= counted <= within(error_ns)


def test_arrivals_are_those_of_the_seed_whatever_the_number_of_workers(
    rig: FarRig, tmp_path: Path
) -> None:
    """Together they send what one would; a worker that hears late of the end sends beyond it.

    What fell due while all slots were in flight, on a machine that stalled, fell due all the same.
    """
    workload = make_workload(**OPEN)
    result = rig.run(Behaviour(), Watcher(decided=enough(150)), records=tmp_path, **OPEN)
    told_ns = np.concatenate([
        read_records(tmp_path / f"worker-{one.index}.parquet", status).scheduled_ns
        - one._clock_of_load.offset_ns
        for one in generators_of(rig)
        for status in ("ok", "dropped")
    ])  # fmt: skip
    due_ns = np.sort(told_ns[told_ns < result.window_end_ns])
    drawn = arrival_times_ns(workload.arrivals, rate_per_s=workload.rate_per_s, seed=workload.seed)
    expected = np.concatenate(list(islice(drawn, len(due_ns) // CHUNK + 1)))[: len(due_ns)]
    assert len(due_ns) > 150
    assert np.array_equal(due_ns - result.start_ns, expected)
