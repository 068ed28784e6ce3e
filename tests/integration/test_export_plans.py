"""Plans by the whole export, where TensorRT stands aside: the graph that it would be given, typed
as it is for TensorRT, is written in the plan's place and run by ONNX Runtime.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from harness.errors import EnvironmentFailure, ParityError
from harness.export import tensorrt as plans
from harness.export import variants
from harness.export.checkpoint import open_checkpoint
from harness.export.convert import calibration_batches
from harness.export.parity import OnnxExecutor
from harness.export.tensorrt import PlanHome, PlanSettings
from harness.export.variants import ExportJob, export_variants
from harness.serving.repository import model_config
from harness.study import CsvData, Model, SequenceClassification
from harness.tasks.loading import encode
from harness.tasks.samples import Samples
from harness.types import ModelFormat, Precision, Role, ServingConfig
from tests.tiny_models import LINES, make_classifier

HOME = PlanHome("10.5.0", "NVIDIA H100", "9.0")
TEXTS = LINES * 6
TASK = SequenceClassification(
    kind="sequence-classification",
    data=CsvData(source="csv", path=__file__),
    max_length=32,
    length_buckets=[16, 32],
)


@pytest.fixture
def job(tmp_path, monkeypatch):
    # Its tokenizer is the same each time: where rows are near the edge, int8 falls as they do.
    folder = make_classifier(tmp_path / "tiny", architecture="gpt2")
    model = Model(
        name="tiny",
        role=Role.TEACHER,
        checkpoint=str(folder),
        precisions=list(Precision),
        formats=list(ModelFormat),
        calibration_samples=20,
    )
    checkpoint = open_checkpoint(model, folder=None)
    rows = tuple(range(len(TEXTS)))
    samples = Samples(texts=TEXTS, pairs=None, digest="d", rows=rows, seed=0)
    monkeypatch.setattr(variants, "plan_home", lambda: HOME)
    monkeypatch.setattr(variants, "PlanExecutor", OnnxExecutor)
    monkeypatch.setattr(
        plans, "build_plan", lambda graph, path, **settings: shutil.copyfile(graph, path)
    )
    return ExportJob(
        model,
        checkpoint,
        TASK,
        family="f",
        samples=samples,
        encoded=encode(TASK, samples, folder),
        repository=tmp_path / "repository",
        plans=PlanSettings(max_batch_sizes=(8, 4), seed=3),
    )


def export(job, told=lambda step: None):
    return {one.name: one for one in export_variants(job, told)}


def test_each_precision_is_made_in_each_format_and_passes_the_gate(job):
    made = export(job)
    assert list(made) == [
        *("tiny-fp32", "tiny-fp16", "tiny-int8"),
        *("tiny-fp32-trt", "tiny-fp16-trt", "tiny-int8-trt"),
    ]
    plan = made["tiny-int8-trt"]
    assert plan.format is ModelFormat.TENSORRT
    recipe = json.loads((plan.path / "manifest.json").read_text())["recipe"]["plan"]
    assert (recipe["tensorrt"], recipe["compute_capability"]) == ("10.5.0", "9.0")
    assert recipe["profile"] == {"smallest": [1, 2], "likeliest": [8, 32], "largest": [8, 32]}
    assert recipe["calibration"]["samples"] == 20
    parity = json.loads((plan.path / "manifest.json").read_text())["parity"]
    assert all(batch <= 8 for batch, _ in parity["shapes"])


def test_int8_has_its_ranges_in_the_graph_symmetric_and_by_channel(job):
    graph = onnx.load(export(job)["tiny-int8-trt"].path / "1" / "model.plan").graph
    kinds = [node.op_type for node in graph.node]
    assert "QuantizeLinear" in kinds
    assert not {"DynamicQuantizeLinear", "MatMulInteger"} & set(kinds)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert all(not constants[node.input[2]].any() for node in quantised)
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert any(constants[node.input[1]].ndim == 1 for node in weights if node.input[1] in constants)


def test_calibration_draws_rows_once_each_and_reads_no_labels(job):
    batches = list(calibration_batches(job.encoded, samples=20, seed=3))
    assert sum(len(batch["input_ids"]) for batch in batches) == 20
    assert {batch["input_ids"].shape[1] for batch in batches} <= {16, 32}
    again = calibration_batches(job.encoded, samples=20, seed=3)
    for one, other in zip(batches, again, strict=True):
        assert set(one) == set(job.encoded.groups[-1].inputs)
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def test_a_plan_stays_until_tensorrt_or_the_gpu_is_another(job, monkeypatch):
    told = []
    before = export(job)
    assert export(job, told.append) == before
    assert not [step for step in told if "made again" in step.note]
    monkeypatch.setattr(variants, "plan_home", lambda: PlanHome("10.6.0", "NVIDIA L4", "8.9"))
    after = export(job, told.append)
    anew = [step.note for step in told if "made again" in step.note]
    assert len(anew) == 3
    assert "built by TensorRT 10.5.0 for compute capability 9.0 (NVIDIA H100); here are" in anew[0]
    assert after["tiny-fp32"] == before["tiny-fp32"]


def test_a_plan_that_answers_otherwise_than_its_checkpoint_is_not_kept(job, monkeypatch):
    class Wrong(OnnxExecutor):
        def run(self, inputs):
            return [output[:, ::-1] for output in super().run(inputs)]

    monkeypatch.setattr(variants, "PlanExecutor", Wrong)
    with pytest.raises(ParityError, match="tiny-fp32-trt disagrees with its checkpoint"):
        export(job)
    assert (job.repository / "tiny-int8" / "manifest.json").is_file()
    assert not (job.repository / "tiny-fp32-trt").exists()


def test_without_tensorrt_nothing_is_begun(job, monkeypatch):
    def missing():
        raise EnvironmentFailure("TensorRT is not installed here")

    monkeypatch.setattr(variants, "plan_home", missing)
    with pytest.raises(EnvironmentFailure, match="not installed"):
        export(job)
    assert not job.repository.exists()


def test_triton_is_told_to_serve_it_by_its_tensorrt_backend(job):
    plan = export(job)["tiny-fp16-trt"]
    config = model_config(plan, ServingConfig(max_batch_size=8, instance_kind="gpu"))
    assert config.backend == "tensorrt"
    assert [one.kind for one in config.instance_group] == [config.instance_group[0].KIND_GPU]
    assert not config.parameters
    assert {one.batch_size for one in config.model_warmup} == {1, 8}
