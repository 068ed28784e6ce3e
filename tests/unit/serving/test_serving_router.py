"""A router and a rollout's split: what Triton is told, and what its Python models decide alone."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
from google.protobuf import json_format, text_format
from samples import sample_variant
from tritonclient.grpc import model_config_pb2 as pb

import harness.serving
from harness.errors import UsageError
from harness.planning.rollout.stages import in_student_share
from harness.serving.python_models import ModelLoader, override_of
from harness.serving.repository import model_config, write_config
from harness.serving.router import (
    Router,
    ServedPair,
    load_router,
    load_split,
    make_router,
    make_split,
    unload_router,
    write_router,
    write_split,
)
from harness.types import Role, ServingConfig, TensorSpec

STUDENT = ServingConfig(max_batch_size=8, queue_delay_us=0, instance_count=2)
TEACHER = ServingConfig(max_batch_size=4, queue_delay_us=500, instance_count=1)


@pytest.fixture
def pair(tmp_path: Path) -> ServedPair:
    student, teacher = (
        dataclasses.replace(sample_variant(name, role), path=tmp_path / name)
        for name, role in (("student-fp32", Role.STUDENT), ("teacher-fp32", Role.TEACHER))
    )
    for one in (student, teacher):
        one.path.mkdir()
    return ServedPair(student, teacher, STUDENT, TEACHER, columns=tuple(range(9, -1, -1)))


class Loader(ModelLoader):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def load(self, model: str, config: str | None = None) -> None:
        self.told.append(("load", model, config or ""))

    def unload(self, model: str) -> None:
        self.told.append(("unload", model, ""))


def written(router: Router) -> pb.ModelConfig:
    write_router(router)
    text = (router.variant.path / "config.pbtxt").read_text()
    return text_format.Parse(text, pb.ModelConfig())


def test_a_routers_folder_says_what_it_routes_between(pair: ServedPair) -> None:
    router = make_router(pair, 0.625)
    config = written(router)
    assert router.variant.name == config.name == "student-fp32-router"
    assert (config.backend, config.max_batch_size) == ("python", 8)
    assert config.HasField("dynamic_batching")
    assert config.instance_group[0].count == 3  # as many as both models have
    assert [(one.name, list(one.dims)) for one in config.input] == [("input_ids", [-1])]
    assert [(one.name, list(one.dims)) for one in config.output] == [("logits", [10])]
    assert {name: one.string_value for name, one in config.parameters.items()} == {
        "student": "student-fp32",
        "teacher": "teacher-fp32",
        "teacher_inputs": '["input_ids"]',
        "columns": "[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]",
        "threshold": "0.625",
        "teacher_batch": "4",
    }
    files = {one.name for one in (router.variant.path / "1").iterdir()}
    assert files == {"model.py", "__pycache__"}
    assert (router.variant.path / "1" / "__pycache__").is_file()


@pytest.mark.parametrize("front", ["router", "split"])
def test_the_models_are_left_in_the_repository_as_they_were_measured(
    pair: ServedPair, front: str
) -> None:
    """What an export had written is the first configuration of the study."""
    for one in (pair.student, pair.teacher):
        write_config(one, ServingConfig(max_batch_size=2))
    if front == "router":
        write_router(make_router(pair, 0.625))
    else:
        write_split(make_split(pair, mode="mirror", salt=""), 0.0)
    for one, serving in ((pair.student, STUDENT), (pair.teacher, TEACHER)):
        config = text_format.Parse((one.path / "config.pbtxt").read_text(), pb.ModelConfig())
        assert config == model_config(one, serving)


def test_a_router_stands_for_both_models_and_is_no_candidate(pair: ServedPair) -> None:
    variant = make_router(pair, 0.625).variant
    assert variant.routes_to == ("student-fp32", "teacher-fp32")
    assert variant.is_composed
    assert (variant.parameters, variant.size_bytes) == (2000, 8000)
    assert not pair.student.is_composed


def test_the_digest_is_that_of_all_that_decides_an_answer(pair: ServedPair) -> None:
    digests = [
        make_router(one, threshold).variant.sha256
        for one, threshold in [
            (pair, 0.625),
            (pair, 0.626),
            (dataclasses.replace(pair, columns=tuple(range(10))), 0.625),
            (dataclasses.replace(pair, teacher_serving=STUDENT), 0.625),
            (
                dataclasses.replace(
                    pair, teacher=dataclasses.replace(pair.teacher, sha256="cd" * 32)
                ),
                0.625,
            ),
        ]
    ]
    assert len(set(digests)) == len(digests)
    assert make_router(pair, 0.625).variant.sha256 == digests[0]


def test_both_models_are_there_before_the_router_and_after_it(pair: ServedPair) -> None:
    loader, router = Loader(), make_router(pair, 0.625)
    load_router(loader, router)
    unload_router(loader, router)
    assert [(what, name) for what, name, _ in loader.told] == [
        ("load", "student-fp32"),
        ("load", "teacher-fp32"),
        ("load", "student-fp32-router"),
        ("unload", "student-fp32-router"),
        ("unload", "student-fp32"),
        ("unload", "teacher-fp32"),
    ]
    told = json_format.Parse(loader.told[1][2], pb.ModelConfig())
    assert told.dynamic_batching.max_queue_delay_microseconds == 500
    assert json_format.Parse(loader.told[2][2], pb.ModelConfig()) == router.config


def test_a_split_takes_a_key_and_says_who_answered(pair: ServedPair) -> None:
    split = make_split(pair, mode="mirror", salt="first")
    write_split(split, 0.0)
    path = pair.student.path.with_name("student-fp32-rollout") / "config.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    assert [one.name for one in config.input] == ["input_ids", "KEY"]
    assert [(one.name, list(one.dims)) for one in config.output] == [
        ("logits", [10]),
        ("SERVED_BY", [1]),
        ("OTHER", [10]),
        ("MODEL_MS", [2]),
    ]
    assert not config.HasField("dynamic_batching")  # a request's latency is its own
    assert config.parameters["share"].string_value == "0.0"
    loader = Loader()
    load_split(loader, split, 0.25)
    ((_, name, override),) = loader.told
    told = json_format.Parse(override, pb.ModelConfig())
    assert name == "student-fp32-rollout"
    kept = text_format.Parse(path.read_text(), pb.ModelConfig())
    assert kept == told  # a container that serves the folder later goes by the same share
    assert told.parameters["share"].string_value == "0.25"
    assert told.parameters["mode"].string_value == "mirror"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"inputs": (TensorSpec("pixels", "FP32", (-1,)),)},
            "teacher-fp32 takes pixels, which student-fp32 does not",
        ),
        ({"outputs": (TensorSpec("logits", "FP32", (3,)),)}, "have different outputs"),
        (
            {"outputs": (TensorSpec("a", "FP32", (3,)), TensorSpec("b", "FP32", (3,)))},
            "have different outputs, or several",
        ),
    ],
)
def test_models_that_cannot_stand_behind_one_name_are_refused(
    pair: ServedPair, changes: dict[str, object], problem: str
) -> None:
    other = dataclasses.replace(pair.teacher, **changes)
    with pytest.raises(UsageError, match=problem) as refused:
        make_router(dataclasses.replace(pair, teacher=other), 0.5)
    assert refused.value.exit_code == 2


def test_a_model_without_batches_is_refused(pair: ServedPair) -> None:
    alone = dataclasses.replace(TEACHER, max_batch_size=0)
    with pytest.raises(UsageError, match="takes no batches"):
        make_split(dataclasses.replace(pair, teacher_serving=alone), mode="canary", salt="")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch):
    """One of the models' modules, as Triton's Python backend imports them."""
    monkeypatch.setitem(
        sys.modules,
        "triton_python_backend_utils",
        types.ModuleType("triton_python_backend_utils"),
    )
    monkeypatch.syspath_prepend(Path(harness.serving.__file__).parent / "router_models")

    def opened(name: str) -> types.ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return opened


def test_confidence_is_the_greatest_softmax_and_nothing_where_a_score_is_no_number(model) -> None:
    confidence_of = model("cascade_model").confidence_of
    logits = np.random.default_rng(0).normal(0, 5, (200, 7)).astype(np.float32)
    logits[0] = [1000.0, -1000.0, 0, 0, 0, 0, 0]
    assert confidence_of(logits) == pytest.approx(
        scipy.special.softmax(logits.astype(np.float64), axis=1).max(axis=1), rel=1e-12
    )
    logits[3, 2], logits[5, 0] = np.nan, np.inf
    assert np.flatnonzero(confidence_of(logits) == 0).tolist() == [3, 5]


def test_server_and_client_split_the_same_keys(model) -> None:
    server = model("split_model").in_student_share
    keys = [f"user-{number}" for number in range(3000)] + ["", "é\0ü"]
    for share in (0.0, 0.05, 0.5, 1.0):
        for salt in ("", "abc-0"):
            mine = [server(key.encode(), share, salt) for key in keys]
            assert mine == [in_student_share(key, share, salt=salt) for key in keys]
    assert all(server(key.encode(), 1.0, "s") for key in keys)
    assert not any(server(key.encode(), 0.0, "s") for key in keys)


class Asked:
    """Triton's side of a Python model: each row's answer is its id, in all of ten classes."""

    TRITONSERVER_MEMORY_CPU = 0

    def __init__(self, largest: dict[str, int]) -> None:
        self.largest = largest
        self.batches: list[tuple[str, int]] = []

    @staticmethod
    def Tensor(name: str, array: Any) -> Any:  # noqa: N802  (Triton's name)
        return types.SimpleNamespace(name=name, as_numpy=lambda: array)

    def PreferredMemory(self, *_: Any) -> None:  # noqa: N802
        """Take any."""

    def InferenceRequest(self, *, model_name: str, inputs: Any, **_: Any) -> Any:  # noqa: N802
        ids = inputs[0].as_numpy()

        async def async_exec() -> Any:
            self.batches.append((model_name, len(ids)))
            failed = len(ids) > self.largest[model_name]
            answer = np.repeat(ids, 10, axis=1).astype(np.float32)
            return types.SimpleNamespace(
                has_error=lambda: failed,
                error=lambda: types.SimpleNamespace(message=lambda: "batch too large"),
                tensors=[self.Tensor("logits", answer)],
            )

        return types.SimpleNamespace(async_exec=async_exec)

    @staticmethod
    def InferenceResponse(tensors: Any = (), error: Any = None) -> Any:  # noqa: N802
        return types.SimpleNamespace(tensors=list(tensors), error=error)

    @staticmethod
    def TritonError(text: str) -> str:  # noqa: N802
        return text

    @staticmethod
    def get_input_tensor_by_name(request: Any, name: str) -> Any:
        return next(one for one in request.tensors if one.name == name)

    get_output_tensor_by_name = get_input_tensor_by_name


def test_a_split_asks_no_more_of_the_teacher_at_once_than_it_takes(
    pair: ServedPair, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The student's largest batch is 8, the teacher's 4: a client's six rows are two requests."""
    triton = Asked({"student-fp32": 8, "teacher-fp32": 4})
    front = model("split_model")
    monkeypatch.setattr(front, "pb_utils", triton)
    split = front.TritonPythonModel()
    config = make_split(pair, mode="mirror", salt="s").config(1.0)
    split.initialize({"model_config": override_of(config)})
    ids, keys = np.arange(6)[:, None], np.array([[b"user"]] * 6, object)
    request = triton.InferenceResponse(
        [triton.Tensor("input_ids", ids), triton.Tensor("KEY", keys)]
    )
    (answer,) = asyncio.run(split.execute([request]))
    assert answer.error is None
    assert sorted(triton.batches) == [
        ("student-fp32", 6),
        ("teacher-fp32", 2),
        ("teacher-fp32", 4),
    ]
    said = {one.name: one.as_numpy() for one in answer.tensors}
    assert said["logits"][:, 0].tolist() == said["OTHER"][:, 0].tolist() == list(range(6))
    assert (said["MODEL_MS"] >= 0).all()
