"""The building of a plan on a stand-in of TensorRT: what it is told, and what its faults become."""

import sys

import pytest

from harness.errors import CheckpointError, EnvironmentFailure
from harness.export import tensorrt
from harness.export.tensorrt import (
    WORKSPACE_BYTES,
    PlanHome,
    PlanProfile,
    build_plan,
    moved_from,
    plan_home,
)
from tests.fake_tensorrt import PLAN, TIMES, FakeTensorrt

PROFILE = PlanProfile((1, 2), (16, 32), (16, 32))


def build(monkeypatch, folder, fake):
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    build_plan(
        folder / "model.onnx",
        folder / "model.plan",
        inputs=["input_ids", "attention_mask"],
        profile=PROFILE,
        timing_cache=folder / "cache" / "times",
    )


def test_a_plan_is_built_strongly_typed_for_the_studys_shapes(monkeypatch, tmp_path):
    fake = FakeTensorrt()
    build(monkeypatch, tmp_path, fake)
    assert (tmp_path / "model.plan").read_bytes() == PLAN
    assert fake.told == [
        ("network", 2),  # 1 << STRONGLY_TYPED
        ("parsed", str(tmp_path / "model.onnx")),
        ("workspace", WORKSPACE_BYTES),
        ("cleared", "TF32"),
        ("shape", "input_ids", (1, 2), (16, 32), (16, 32)),
        ("shape", "attention_mask", (1, 2), (16, 32), (16, 32)),
        ("profile",),
        ("known times", b""),
        ("cache", False),
        ("built",),
    ]


def test_measured_times_are_kept_for_the_next_build(monkeypatch, tmp_path):
    build(monkeypatch, tmp_path, FakeTensorrt())
    fake = FakeTensorrt()
    build(monkeypatch, tmp_path, fake)
    assert ("known times", TIMES) in fake.told


def test_a_graph_that_tensorrt_does_not_take_is_the_models_fault(monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match=r"10\.5\.0 does not take .* operator Unique"):
        build(monkeypatch, tmp_path, FakeTensorrt(parses=False))
    assert not (tmp_path / "model.plan").exists()


def test_a_failed_build_ends_with_tensorrts_own_word(monkeypatch, tmp_path):
    with pytest.raises(EnvironmentFailure, match="cannot build the plan: no kernel for Attention"):
        build(monkeypatch, tmp_path, FakeTensorrt(builds=False))
    assert not list(tmp_path.iterdir())


def test_without_tensorrt_the_line_names_the_image_that_has_it(monkeypatch):
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match="TensorRT is not installed") as caught:
        plan_home()
    assert "nvcr.io/nvidia/tritonserver:24.10-py3" in caught.value.next_step
    assert "docker compose --profile gpu run --rm export-gpu" in caught.value.next_step


def test_without_a_gpu_the_line_says_so(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentFailure, match=r"TensorRT 10\.5\.0 is here, but no GPU"):
        plan_home()


def test_the_home_is_the_version_and_the_kind_of_gpu(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    assert plan_home() == PlanHome("10.5.0", "H100", "9.0")


def test_a_plan_of_another_version_or_kind_of_gpu_does_not_run_here():
    here = PlanHome("10.5.0", "H100", "9.0")
    assert (
        moved_from({"tensorrt": "10.5.0", "gpu": "H200", "compute_capability": "9.0"}, here) == ""
    )
    older = moved_from({"tensorrt": "10.3.0", "gpu": "T4", "compute_capability": "7.5"}, here)
    assert older == (
        "built by TensorRT 10.3.0 for compute capability 7.5 (T4); here are TensorRT 10.5.0 and "
        "9.0 (H100)"
    )
    assert "TensorRT ?" in moved_from({}, here)
