"""The recommended serving configuration as a report shows it, against what the server was given."""

import json
from dataclasses import replace

import pytest
from google.protobuf import json_format, text_format
from sample_run import sample_run
from tritonclient.grpc import model_config_pb2 as pb

from harness.report.page import page_of
from harness.serving.generation.repository import GenerationServing, generation_config
from harness.serving.repository import model_config
from harness.types import (
    Accelerator,
    Generation,
    ModelFormat,
    Precision,
    ServingConfig,
    StreamApi,
)
from harness.types.generation import GeneratorSettings

PLAIN = ServingConfig(8, 500, 2, intra_op_threads=3)
ON_GPU = replace(PLAIN, instance_kind="gpu")
SHOWN = ("max_batch_size", "dynamic_batching", "instance_group", "parameters", "optimization",
         "response_cache")  # fmt: skip


def finding(serving, *, generation=None, server=None, **variant):
    """Of the sample run, had its recommended trial been served so."""
    run = sample_run()
    found = next(one for one in run.trials if one.trial.trial_id == run.verdicts[0].recommended)
    workload = replace(found.trial.workload, generation=generation)
    changed = replace(found.trial, serving=serving, workload=workload)
    name = found.trial.variant
    run = replace(
        run,
        manifest={**run.manifest, "server": server},
        trials=tuple(replace(one, trial=changed) if one is found else one for one in run.trials),
        variants=tuple(
            replace(one, **variant) if one.name == name else one for one in run.variants
        ),
        verdicts=(replace(run.verdicts[0], recommended=changed.trial_id),),
    )
    (changed_variant,) = [one for one in run.variants if one.name == name]
    return page_of(run).families[0].finding, changed_variant


def fields(config):
    """What the report shows, of a configuration; an engine's cache is the machine's own."""
    made = json_format.MessageToDict(config, preserving_proto_field_name=True)
    shown = {key: value for key, value in made.items() if key in SHOWN}
    for one in shown.get("optimization", {}).get("execution_accelerators", {}).values():
        for accelerator in one:
            told = accelerator.pop("parameters", {})
            accelerator.update({"precision_mode": told.get("precision_mode")})
    return shown


def said(text):
    return fields(text_format.Parse(text, pb.ModelConfig()))


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize(
    "serving",
    [
        PLAIN,
        replace(PLAIN, response_cache=True),
        ON_GPU,
        replace(ON_GPU, accelerator=Accelerator.CUDA),
        replace(ON_GPU, accelerator=Accelerator.TENSORRT),
    ],
    ids=lambda serving: serving.label + serving.instance_kind,
)
def test_the_configuration_shown_is_the_one_that_was_measured(serving, precision):
    found, variant = finding(serving, precision=precision)
    assert said(found.config) == fields(model_config(variant, serving))


def test_a_plan_has_no_threads():
    found, variant = finding(ON_GPU, format=ModelFormat.TENSORRT)
    assert said(found.config) == fields(model_config(variant, ON_GPU))
    assert "parameters" not in said(found.config)


def test_a_generating_model_has_slots_and_no_batcher(tmp_path):
    serving = ServingConfig(4, 0, 2, intra_op_threads=3)
    found, variant = finding(serving, generation=Generation(StreamApi.TRITON))
    (tmp_path / "1").mkdir()
    settings = GeneratorSettings(2, 1, 8, 320, 96, (0,), None).to_json()
    (tmp_path / "1" / "generation.json").write_text(settings)
    given = fields(
        generation_config(replace(variant, path=tmp_path), GenerationServing.of(serving))
    )
    for settled in ("context", "read_tokens"):
        del given["parameters"][settled]
    assert said(found.config) == given
    names = {one.name: one.value for one in found.serving}
    assert names["Slots per instance"] == "4"
    assert not {"Max batch size", "Queue delay"} & set(names)


def test_of_an_external_server_only_what_the_run_set_there():
    server = {"url": "http://triton:8000", "model_control": True, "models": {}}
    found, _ = finding(PLAIN, server=server)
    assert said(found.config)["instance_group"] == [{"count": 2}], "the kind is its owner's"
    assert said(found.config)["max_batch_size"] == 8
    unbatched, _ = finding(PLAIN, server=server, batches=False)
    assert not {"max_batch_size", "dynamic_batching"} & set(said(unbatched.config))
    untouched = finding(
        replace(PLAIN, intra_op_threads=0), server=server | {"model_control": False}
    )
    assert untouched[0].config == ""
    assert "Threads per instance" not in json.dumps([one.name for one in untouched[0].serving])
