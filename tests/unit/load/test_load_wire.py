"""The words between the harness and its Locust processes survive the wire."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.load.generators.messages import (
    ANSWERS,
    ORDERS,
    GeneratorFailed,
    LoadEnded,
    LoadProgress,
    Measure,
    Order,
    Prepare,
    Ready,
    StopLoad,
)
from harness.load.generators.pool import split_concurrency
from harness.load.transports.address import parse_target
from harness.types import (
    SPANS,
    ArrivalKind,
    ArrivalProcess,
    GrpcImplementation,
    Latencies,
    LoadMode,
    LoadShape,
    ShapeKind,
    SparseHistogram,
    TensorSpec,
    TimeSlice,
    WireProtocol,
    Workload,
)

OPEN = Workload(
    protocol=WireProtocol.GRPC,
    client_batch_size=8,
    concurrency=512,
    duration_s=4.0,
    warmup_s=0.5,
    seed=2**32 - 1,
    load_mode=LoadMode.OPEN,
    rate_per_s=250.5,
    arrivals=ArrivalProcess(
        ArrivalKind.GAMMA, 2.5, Path("a trace.csv"), LoadShape(ShapeKind.SINE, 0.5, 1.5, 60.0)
    ),
    min_duration_s=0.5,
    batch_mix=((1, 0.5), (8, 0.5)),
    length_mix=((16, 1.0),),
)
PREPARE = Prepare(
    target=parse_target("grpcs://[::1]:8001", headers=(("authorization", "Bearer ü"),)),
    grpc=GrpcImplementation.GRPCIO,
    model="naïve\nmodel",
    payloads=Path("/tmp/some where/p.npz"),
    known_answers=None,
    outputs=(TensorSpec("logits", "FP32", (-1, 3)), TensorSpec("ids", "INT64", ())),
    workload=OPEN,
    share=3,
    first_user=2,
    worker=1,
    workers=2,
    request_timeout_s=0.5,
    records=Path("/tmp/records/worker-1.parquet"),
)


@pytest.mark.parametrize(
    "order",
    [
        PREPARE,
        dataclasses.replace(PREPARE, known_answers=Path("k.npz"), records=None),
        Measure(2**62, 50_000_000, 2**63 - 1),
        StopLoad(2**62),
    ],
)
def test_orders_survive(order: Order) -> None:
    line = ORDERS.dump_json(order)
    assert b"\n" not in line
    assert ORDERS.validate_json(line) == order


histograms = st.lists(
    st.tuples(st.integers(0, 23551), st.integers(1, 2**40)),
    max_size=4,
    unique_by=lambda one: one[0],
).map(lambda pairs: SparseHistogram(*(tuple(part) for part in zip(*sorted(pairs), strict=True))))
latencies = st.builds(Latencies, st.dictionaries(st.sampled_from([*SPANS]), histograms))
slices = st.builds(
    TimeSlice,
    st.integers(0, 10**6),
    latencies,
    latencies,
    st.dictionaries(st.text(), st.integers(1, 2**40), max_size=3),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)


@given(st.text(), st.lists(slices, max_size=3), histograms, st.floats(0, 1e6))
def test_answers_survive(
    words: str, seen: list[TimeSlice], lag: SparseHistogram, cpu_s: float
) -> None:
    progress = LoadProgress(2**62, 2**62 - 1, tuple(seen), cpu_s, lag, 2**40)
    for answer in (Ready(), GeneratorFailed(words), progress, LoadEnded(words, words)):
        line = ANSWERS.dump_json(answer)
        assert b"\n" not in line
        assert ANSWERS.validate_json(line) == answer


@pytest.mark.parametrize("line", [b"", b"{}", b'{"order":"dance"}', b'{"order":"measure"}', b"x"])
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        ORDERS.validate_json(line)


@given(st.integers(1, 5000), st.integers(1, 64))
def test_concurrency_is_spread_evenly(concurrency: int, processes: int) -> None:
    shares = split_concurrency(concurrency, processes)
    assert len(shares) == processes
    assert sum(shares) == concurrency
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)
