"""The open loop on the real server, over both protocols; Triton's counters are the witness."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from load_rig import make_payloads
from tiny_model import counters_at_rest

from harness import hdr
from harness.errors import DataError
from harness.load.engine.closed_loop import Ending
from harness.load.engine.open_loop import OpenLoop, Timer, requests_in_turn
from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import SliceSums
from harness.load.requests.answers import AnswerCheck, make_known_answers
from harness.load.requests.fit import check_payloads_fit
from harness.load.requests.payloads import (
    KnownAnswers,
    draw_payloads,
    encode_payloads,
    read_payloads,
)
from harness.load.schedule.arrivals import arrival_times_ns
from harness.load.transports.address import parse_target
from harness.load.transports.opening import transport_opener
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.types import ModelVariant, WireProtocol
from harness.types.workloads import parse_arrivals

pytestmark = pytest.mark.triton

RATE_PER_S = 150
SECONDS = 2
SLICE_NS = 50_000_000


@pytest.fixture
def client(embedded_triton: EmbeddedTriton) -> Iterator[TritonClient]:
    with TritonClient(embedded_triton.endpoint) as made:
        made.load("tiny")
        yield made


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_triton_gets_every_arrival_and_each_answer_is_the_known_one(
    embedded_triton: EmbeddedTriton,
    client: TritonClient,
    tiny_variant: ModelVariant,
    protocol: WireProtocol,
    tmp_path: Path,
) -> None:
    endpoint = embedded_triton.endpoint
    address = endpoint.http if protocol is WireProtocol.HTTP else endpoint.grpc
    opener = transport_opener(protocol, parse_target(address), timeout_s=120)
    groups = read_payloads(make_payloads(tmp_path))
    payloads = draw_payloads(
        groups, batch_size=4, seed=1, batch_mix=((1, 3), (4, 1)), length_mix=((8, 1), (16, 1))
    )
    known = make_known_answers(payloads[:32], lambda inputs: client.infer("tiny", inputs))
    requests = encode_payloads(payloads, opener(), "tiny", KnownAnswers(tuple(known), 0.01))
    times_ns = next(arrival_times_ns(parse_arrivals("poisson"), rate_per_s=RATE_PER_S, seed=3))
    due = int(np.searchsorted(times_ns, SECONDS * 1_000_000_000))
    timer = Timer()
    start_ns = time.monotonic_ns()
    recorder = Recorder(start_ns, SLICE_NS)
    loop = OpenLoop(
        [times_ns],
        requests_in_turn(requests),
        AnswerCheck(tiny_variant.outputs),
        recorder,
        open_transport=opener,
        most_in_flight=RATE_PER_S * SECONDS,  # none is dropped, however late they are sent
        timer=timer,
    )
    before = counters_at_rest(client)
    loop.run(start_ns, Ending(start_ns + SECONDS * 1_000_000_000))
    timer.close()
    after = counters_at_rest(client)

    slices = list(SliceSums(recorder.take()))
    assert recorder.first_failure == ""
    response = hdr.merge(one.ok.response for one in slices)
    assert hdr.total(response) == due
    assert sum(one.dropped for one in slices) == 0
    by_slice = Counter((times_ns[:due] // SLICE_NS).tolist())
    assert {one.index: hdr.total(one.ok.response) for one in slices if one.ok.response.counts} == (
        by_slice
    )
    rows = sum(requests[n % len(requests)].batch_size for n in range(due))
    assert sum(one.inferences for one in slices) == rows
    assert after["inference_count"] - before["inference_count"] == rows
    median_ms = hdr.value_at(response, 0.5)
    assert median_ms is not None
    assert median_ms > 0.1


def test_payloads_are_held_against_what_the_server_says(
    client: TritonClient, tmp_path: Path
) -> None:
    inputs, _ = client.metadata("tiny")
    groups = read_payloads(make_payloads(tmp_path))
    check_payloads_fit(groups, inputs, 16, batch_size=16)
    with pytest.raises(DataError, match="lack the model's input attention_mask"):
        check_payloads_fit([{"input_ids": groups[0]["input_ids"]}], inputs, 16, batch_size=1)
    narrow = [{name: array.astype(np.int32) for name, array in group.items()} for group in groups]
    with pytest.raises(DataError, match="the payloads hold INT32, not INT64"):
        check_payloads_fit(narrow, inputs, 16, batch_size=1)
