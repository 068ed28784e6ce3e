"""Before the load: a first request tells which outputs every answer can be compared with."""

import numpy as np
import pytest
from kserve_server import kserve_server

from harness.errors import DataError, UsageError
from harness.flow.preflight import check_requests, check_served, try_one_request
from harness.load.transports.address import parse_target
from harness.load.transports.http.transport import HttpTransport
from harness.serving.external.server import ExternalModel
from harness.study import Family
from harness.types import ServingConfig, TensorSpec, WireProtocol, Workload

WORKLOAD = Workload(WireProtocol.HTTP, 2, 1, 1.0, 0.0, seed=0)
GROUPS = [{"numbers": np.ones((8, 5), np.float32)}]
NUMBERS = TensorSpec("numbers", "FP32", (-1, -1))


def model(name="doubled", output=(-1, -1), **serving):
    twice = TensorSpec("twice", "FP32", output)
    return ExternalModel(
        name, (NUMBERS,), (twice,), ServingConfig(**{"max_batch_size": 0, **serving})
    )


def first_request(asked):
    with kserve_server() as port:
        target = parse_target(f"http://127.0.0.1:{port}")
        return try_one_request(asked, GROUPS, WORKLOAD, lambda: HttpTransport(target, timeout_s=5))


def test_outputs_lose_their_batch_dimension():
    assert first_request(model()) == (TensorSpec("twice", "FP32", (-1,)),)


def test_an_answer_unlike_the_metadata_is_refused():
    with pytest.raises(UsageError, match=r"the first request to 'doubled' failed: wrong_shape"):
        first_request(model(output=(-1, 4)))


def test_a_first_request_that_fails_is_refused():
    with pytest.raises(UsageError, match=r"the first request to 'other' failed: http_404"):
        first_request(model("other"))


@pytest.mark.parametrize(("largest", "fits"), [(0, True), (2, True), (1, False)])
def test_a_batch_must_be_one_that_the_model_takes(largest, fits):
    asked = model(max_batch_size=largest)
    if fits:
        check_requests(asked, GROUPS, WORKLOAD)
        return
    with pytest.raises(DataError, match="at most 1"):
        check_requests(asked, GROUPS, WORKLOAD)


def family(**task):
    text = {"kind": "causal-lm", "data": {"source": "csv", "path": __file__}, "max_length": 64}
    teacher = {"name": "big", "role": "teacher", "checkpoint": "owner/big"}
    return Family.model_validate({"name": "prose", "task": text | task, "models": [teacher]})


def test_what_the_embedded_server_would_refuse():
    mixed = Workload(WireProtocol.HTTP, 2, 1, 1.0, 0.0, seed=0, length_mix=((64, 1.0),))
    check_served(mixed, ServingConfig(max_batch_size=2), family())
    with pytest.raises(UsageError, match="max_batch_size, 1"):
        check_served(WORKLOAD, ServingConfig(max_batch_size=1), family())
    with pytest.raises(UsageError, match="the length mix names 64"):
        check_served(mixed, ServingConfig(), family(max_length=32))
