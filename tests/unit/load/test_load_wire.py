"""The words between the harness and its Locust processes survive the wire."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.load.generators import split_concurrency
from harness.load.recorder import WindowCounts
from harness.load.wire import (
    Failed,
    Measure,
    Measured,
    Prepare,
    Ready,
    decode_answer,
    decode_order,
    encode_answer,
    encode_order,
)
from harness.types import TensorSpec, WireProtocol

PREPARE = Prepare(
    protocol=WireProtocol.GRPC,
    address="[::1]:8001",
    model="naïve\nmodel",
    payloads=Path("/tmp/some where/p.npz"),
    outputs=(TensorSpec("logits", "FP32", (-1, 3)), TensorSpec("ids", "INT64", ())),
    client_batch_size=4,
    users=3,
    first_user=2,
    seed=2**32 - 1,
    request_timeout_s=0.5,
)


@pytest.mark.parametrize("order", [PREPARE, Measure(2**62, 2**62 + 1, 2**63 - 1)])
def test_orders_survive(order: Prepare | Measure) -> None:
    line = encode_order(order)
    assert line.count(b"\n") == 1
    assert decode_order(line) == order


@given(st.text(), st.dictionaries(st.text(), st.integers(0, 2**62)), st.floats(0, 64))
def test_answers_survive(words: str, failures: dict[str, int], cores: float) -> None:
    counts = WindowCounts(("a", "b"), "c", 7, failures, words, 2**62)
    for answer in (Ready(), Failed(words), Measured(counts, cores)):
        line = encode_answer(answer)
        assert line.count(b"\n") == 1
        assert decode_answer(line) == answer


@pytest.mark.parametrize("line", [b"", b"{}", b'{"order":"dance"}', b'{"order":"measure"}', b"x"])
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_order(line)


@given(st.integers(1, 5000), st.integers(1, 64))
def test_concurrency_is_spread_evenly(concurrency: int, processes: int) -> None:
    shares = split_concurrency(concurrency, processes)
    assert len(shares) == processes
    assert sum(shares) == concurrency
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)
