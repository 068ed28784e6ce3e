"""What a study's sweep is made of."""

from dataclasses import replace

import pytest

from harness.errors import UsageError
from harness.flow.external.models import with_serving
from harness.flow.spaces import serving_configs, workloads
from harness.flow.sweep import offered_configs
from harness.load.schedule.arrivals import check_workload
from harness.serving.repository import accelerator_parameters
from harness.study import ServingSpace, variants_of
from harness.study.file import parse_study
from harness.types import (
    Accelerator,
    ArrivalKind,
    LoadMode,
    Precision,
    ServingConfig,
    ShapeKind,
)
from tests.samples import sample_study, sample_variant


def workloads_of(base=None, **traffic):
    study = parse_study(sample_study(traffic=traffic), source="study", base=base)
    made = workloads(study, study.traffic)
    for workload in made:
        check_workload(workload)
    return made


def test_the_simplest_serving_configuration_comes_first():
    space = ServingSpace(max_batch_sizes=[8, 16], instance_counts=[1, 2])
    assert [config.label for config in serving_configs(space)] == [
        "mb8-qd0-i1-t1", "mb8-qd0-i2-t1", "mb16-qd0-i1-t1", "mb16-qd0-i2-t1",
    ]  # fmt: skip


def test_accelerators_are_serving_configurations_of_their_own():
    space = ServingSpace(instance_kind="gpu", accelerators=["none", "cuda", "tensorrt"])
    assert [config.label for config in serving_configs(space)] == [
        "mb16-qd0-i1-t1", "mb16-qd0-i1-t1-cuda", "mb16-qd0-i1-t1-tensorrt",
    ]  # fmt: skip


def test_no_accelerator_changes_a_plan():
    document = sample_study(serving={"instance_kind": "gpu", "accelerators": ["cuda", "tensorrt"]})
    for model in document["families"][0]["models"]:
        model["formats"] = ["onnx", "tensorrt"]
    study = parse_study(document, source="study")
    (family, *_) = study.families
    names = variants_of(family.teacher)
    assert names[-1].endswith("-trt")
    offered = offered_configs(study, family, names, None)
    assert [one.accelerator for one in offered[names[0]]] == [
        Accelerator.CUDA, Accelerator.TENSORRT,
    ]  # fmt: skip
    assert [one.accelerator for one in offered[names[-1]]] == [Accelerator.NONE]


def test_an_external_model_gets_an_accelerator_as_one_of_our_own_does():
    owned = {
        "backend": "onnxruntime",
        "optimization": {
            "execution_accelerators": {
                "cpu_execution_accelerator": [{"name": "openvino"}],
                "gpu_execution_accelerator": [{"name": "auto"}],
            }
        },
    }
    asked = ServingConfig(instance_kind="gpu", accelerator=Accelerator.TENSORRT)
    there = replace(sample_variant(), precision=Precision.FP16, sha256=f"remote:{'cd' * 32}")
    made = with_serving(owned, asked, there)["optimization"]["execution_accelerators"]
    (one,) = made["gpu_execution_accelerator"]
    told = accelerator_parameters(Accelerator.TENSORRT, there)
    assert (one["name"], one["parameters"]) == ("tensorrt", told)
    assert told["precision_mode"] == "FP16"
    assert told["trt_engine_cache_path"] == f"/tmp/harness-engines-{'cd' * 8}"
    assert made["cpu_execution_accelerator"] == [{"name": "openvino"}]
    plain = with_serving(owned, ServingConfig(instance_kind="gpu"), there)
    assert plain["optimization"] == owned["optimization"]


def test_the_response_cache_is_off_unless_the_study_wants_it():
    (plain,) = serving_configs(ServingSpace())
    (cached,) = serving_configs(ServingSpace(response_cache=True))
    assert not plain.response_cache
    assert (cached.response_cache, cached.label) == (True, "mb16-qd0-i1-t1-cache")
    study = parse_study(sample_study(), source="study")
    assert {one.cached_answers for one in workloads(study, study.traffic)} == {False}
    wanted = workloads(study, study.traffic, cached_answers=True)
    assert {one.cached_answers for one in wanted} == {True}


def test_an_external_model_computes_its_answers_unless_the_study_wants_the_cache():
    owned = {"backend": "python", "response_cache": {"enable": True}}
    assert "response_cache" not in with_serving(owned, ServingConfig(), sample_variant())
    cached = ServingConfig(response_cache=True)
    assert with_serving(owned, cached, sample_variant())["response_cache"] == {"enable": True}
    assert with_serving({}, cached, sample_variant())["response_cache"] == {"enable": True}


def test_a_model_that_does_not_batch_is_left_so_in_a_sweep():
    owned = {"max_batch_size": 0, "instance_group": [{"count": 1, "kind": "KIND_CPU"}]}
    asked = ServingConfig(max_batch_size=8, queue_delay_us=500, instance_count=2)
    made = with_serving(owned, asked, sample_variant())
    assert made == {
        "max_batch_size": 0,
        "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
    }
    assert with_serving({"backend": "python"}, asked, sample_variant()).keys() == {
        "backend",
        "instance_group",
    }


def test_a_sweep_keeps_every_gpu_of_the_owners():
    gpu = {"kind": "KIND_GPU", "count": 1}
    owned = [gpu | {"gpus": [0]}, gpu | {"gpus": [1, 2], "passive": True}, gpu | {"gpus": [3]}]
    made = with_serving(
        {"instance_group": owned}, ServingConfig(instance_count=2), sample_variant()
    )
    assert made["instance_group"] == [gpu | {"gpus": [0, 3], "count": 2}]
    mixed = [{"kind": "KIND_CPU", "count": 1}, gpu | {"gpus": [0]}]
    made = with_serving(
        {"instance_group": mixed}, ServingConfig(instance_count=2), sample_variant()
    )
    assert made["instance_group"] == [{"kind": "KIND_CPU", "count": 2}]


def test_a_closed_loop_has_a_workload_for_every_combination():
    made = workloads_of(concurrencies=[16, 1])
    assert [workload.label for workload in made[:3]] == ["http-b1-c1", "http-b1-c16", "http-b4-c1"]
    assert len(made) == 2 * 4 * 2
    assert {workload.load_mode for workload in made} == {LoadMode.CLOSED}
    assert {(one.min_duration_s, one.duration_s) for one in made} == {(0.5, 5.0)}


def test_a_short_trial_is_decided_at_its_end_at_the_earliest():
    assert workloads_of(duration_s=0.2)[0].min_duration_s == 0.2


def test_an_open_loop_has_a_workload_for_every_rate():
    made = workloads_of(
        load="open", rates_per_s=[100, 5], arrivals="gamma:2", protocols=["grpc"], max_in_flight=64
    )
    assert [one.rate_per_s for one in made[:2]] == [5, 100]
    assert {one.concurrency for one in made} == {64}
    assert {one.arrivals.burstiness_cv for one in made} == {2.0}
    assert made[0].label == "grpc-b1-r5-gamma2"


def test_a_mix_takes_the_place_of_the_batch_sizes():
    made = workloads_of(batch_mix={8: 0.3, 1: 0.7}, length_mix={16: 1}, protocols=["grpc"])
    assert {one.client_batch_size for one in made} == {8}
    assert made[0].batch_mix == ((1, 0.7), (8, 0.3))
    assert made[0].length_mix == ((16, 1.0),)


def test_what_changes_over_time_is_not_decided_early(tmp_path):
    shaped = workloads_of(load="open", rates_per_s=[5], shape="sine:0.5..1.5/10s")
    assert shaped[0].arrivals.shape.kind is ShapeKind.SINE
    (tmp_path / "monday.csv").write_text("timestamp_s\n0.0\n0.5\n9.0\n")
    traced = workloads_of(tmp_path, load="open", arrivals="trace:monday.csv")
    assert traced[0].arrivals.kind is ArrivalKind.TRACE
    assert traced[0].rate_per_s is None
    assert {one.min_duration_s for one in (*shaped, *traced)} == {None}


def test_a_shape_that_sends_nothing_is_refused():
    with pytest.raises(UsageError, match="factors"):
        workloads_of(load="open", rates_per_s=[5], shape="ramp:0..0/10s")
