"""A router and a rollout's split: what Triton is told, and what its Python models decide alone."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy
from google.protobuf import json_format, text_format
from samples import sample_variant
from tritonclient.grpc import model_config_pb2 as pb

import harness.serving
from harness.errors import UsageError
from harness.planning.rollout.stages import in_student_share
from harness.serving.python_models import ModelLoader
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
