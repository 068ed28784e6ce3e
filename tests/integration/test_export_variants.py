"""Real exports of made checkpoints: what is served answers as the checkpoint does."""

import json
import shutil
import subprocess

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import LINES, make_classifier, make_language_model

import harness.export.source
import harness.export.variants
from harness.errors import CheckpointError, ParityError
from harness.export.checkpoint import open_checkpoint
from harness.export.convert import write_fp32
from harness.export.source import ExportSource
from harness.export.variants import ExportJob, export_variants
from harness.study import CausalLanguageModelling, Model, SequenceClassification
from harness.tasks.loading import encode
from harness.tasks.samples import Samples
from harness.types import Precision, TensorSpec

DATA = {"source": "reference", "name": "topics"}
TEXTS = tuple(line * times for times in (1, 2) for line in LINES)
CLASSIFICATION = SequenceClassification.model_validate(
    {
        "kind": "sequence-classification",
        "data": DATA,
        "text_pair": "second",
        "max_length": 32,
        "length_buckets": [16, 32],
    }
)
SINGLE = CLASSIFICATION.model_copy(update={"text_pair": None})
LANGUAGE = CausalLanguageModelling.model_validate(
    {"kind": "causal-lm", "data": DATA, "max_length": 24}
)


class Exported:
    """A checkpoint, its samples and its variants."""

    def __init__(self, folder, repository, task, precisions, **model_changes):
        self.model = Model.model_validate(
            {
                "name": folder.name,
                "role": "student",
                "checkpoint": str(folder),
                "precisions": precisions,
                **model_changes,
            }
        )
        self.task = task
        self.repository = repository
        self.progress = []
        self.checkpoint = open_checkpoint(self.model, folder=None)
        pairs = tuple(reversed(TEXTS)) if task is CLASSIFICATION else None
        self.samples = Samples(
            texts=TEXTS,
            pairs=pairs,
            digest="d",
            rows=tuple(range(len(TEXTS))),
            seed=0,
        )
        self.encoded = encode(task, self.samples, folder)

    def export(self, repository=None):
        return export_variants(
            ExportJob(
                self.model,
                self.checkpoint,
                self.task,
                family="made",
                repository=repository or self.repository,
                samples=self.samples,
                encoded=self.encoded,
            ),
            self.progress.append,
        )

    def ask_checkpoint(self, inputs):
        """The checkpoint's own answer, by transformers alone."""
        import torch
        import transformers

        language = self.task is LANGUAGE
        kind = "AutoModelForCausalLM" if language else "AutoModelForSequenceClassification"
        model = getattr(transformers, kind).from_pretrained(self.checkpoint.folder).eval()
        model.config.pad_token_id = self.encoded.pad_token_id
        with torch.no_grad():
            answer = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return answer.logits.float().log_softmax(-1) if language else answer.logits


def add_token_types(folder):
    """Let a checkpoint's tokenizer say which of a pair a token belongs to, as BERT's does."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    path.write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    home = tmp_path_factory.mktemp("export")
    return home / "checkpoints", home / "repository"


@pytest.fixture(scope="module")
def pairs(places):
    checkpoints, repository = places
    folder = add_token_types(make_classifier(checkpoints / "pairs"))
    made = Exported(folder, repository, CLASSIFICATION, ["int8", "fp32", "fp16"])
    made.variants = made.export()
    return made


@pytest.fixture(scope="module")
def decoder_classifier(places):
    checkpoints, repository = places
    folder = make_classifier(checkpoints / "decoder", labels=None, architecture="gpt2")
    made = Exported(folder, repository, SINGLE, ["fp32"])
    made.variants = made.export()
    return made


@pytest.fixture(scope="module")
def gpt2(places):
    checkpoints, repository = places
    folder = make_language_model(checkpoints / "gpt2")
    made = Exported(folder, repository, LANGUAGE, ["fp32", "int8"])
    made.variants = made.export()
    return made


@pytest.fixture(scope="module")
def llama(places):
    checkpoints, repository = places
    folder = make_language_model(checkpoints / "llama", architecture="llama")
    made = Exported(folder, repository, LANGUAGE, ["fp32"])
    made.variants = made.export()
    return made


def ask_artefact(variant, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(variant.path / "1" / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def test_a_variant_says_what_it_is(pairs):
    int8, fp32, fp16 = pairs.variants
    assert [one.precision for one in pairs.variants] == list(map(Precision, pairs.model.precisions))
    assert fp32.name == "pairs-fp32"
    assert fp32.source == pairs.model.checkpoint
    assert fp32.path == pairs.repository / "pairs-fp32"
    assert [one.name for one in fp32.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {(one.datatype, one.shape) for one in fp32.inputs} == {("INT64", (-1,))}
    assert fp32.outputs == (TensorSpec("logits", "FP32", (3,)),)
    assert fp32.parity["logits"] < 1e-4 < fp16.parity["logits"] < int8.parity["logits"]
    assert int8.size_bytes < fp16.size_bytes < fp32.size_bytes
    assert len({one.sha256 for one in pairs.variants}) == 3
    assert [(step.done, step.note) for step in pairs.progress[:4]] == [
        (0, "pairs-int8"),
        (1, "pairs-fp32"),
        (2, "pairs-fp16"),
        (3, "pairs"),
    ]


@pytest.mark.parametrize("made", ["pairs", "decoder_classifier"])
def test_a_classifier_answers_as_its_checkpoint_at_every_bucket(request, made):
    exported = request.getfixturevalue(made)
    variant = next(one for one in exported.variants if one.precision is Precision.FP32)
    for group in exported.encoded.groups:
        got = ask_artefact(variant, group.inputs)["logits"]
        np.testing.assert_allclose(got, exported.ask_checkpoint(group.inputs), atol=1e-4)


@pytest.mark.parametrize("made", ["gpt2", "llama"])
def test_the_scoring_graph_gives_log_probabilities_and_the_likeliest_token(request, made):
    exported = request.getfixturevalue(made)
    (group,) = exported.encoded.groups
    got = ask_artefact(exported.variants[0], group.inputs)
    logprobs = exported.ask_checkpoint(group.inputs).numpy()
    ids, mask = group.inputs["input_ids"], group.inputs["attention_mask"].astype(bool)
    expected = np.zeros(ids.shape)
    expected[:, 1:] = np.take_along_axis(logprobs[:, :-1], ids[:, 1:, None], axis=-1)[..., 0]
    scored = mask.copy()
    scored[:, 0] = False
    np.testing.assert_allclose(got["token_logprobs"][scored], expected[scored], atol=1e-4)
    assert (got["token_logprobs"][~scored] == 0).all()
    assert not mask.all(), "some window must have padding, or this shows nothing"
    assert (got["greedy_token_ids"] == logprobs.argmax(-1))[mask].all()
    assert exported.variants[0].outputs == (
        TensorSpec("token_logprobs", "FP32", (-1,)),
        TensorSpec("greedy_token_ids", "INT64", (-1,)),
    )


def test_padding_changes_no_answer(pairs):
    variant = pairs.variants[1]
    inputs = {name: values[:1] for name, values in pairs.encoded.groups[-1].inputs.items()}
    longer = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in inputs.items()}
    one, other = ask_artefact(variant, inputs), ask_artefact(variant, longer)
    np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-5)


def test_beside_the_model_lie_tokenizer_warm_up_and_manifest(pairs):
    variant = pairs.variants[0]
    again = encode(
        pairs.task,
        SAMPLES_OF_ONE,
        variant.path / "tokenizer",
    )
    assert list(again.groups[0].inputs) == [one.name for one in variant.inputs]
    manifest = json.loads((variant.path / "manifest.json").read_text())
    assert manifest["sha256"] == variant.sha256
    for name, values in pairs.encoded.groups[-1].inputs.items():
        raw = (variant.path / "warmup" / name).read_bytes()
        sample = np.frombuffer(raw, "<i8").reshape(manifest["warmup"][name])
        assert sample.tolist() == values[0].tolist()


SAMPLES_OF_ONE = Samples(
    texts=("the fox",),
    pairs=("a dog",),
    digest="d",
    rows=(0,),
    seed=0,
)


def snapshot(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_export_does_nothing_and_a_harmed_artefact_is_made_again(pairs):
    before = snapshot(pairs.repository / "pairs-fp32")
    assert pairs.export() == pairs.variants
    assert snapshot(pairs.repository / "pairs-fp32") == before

    model = pairs.repository / "pairs-int8" / "1" / "model.onnx"
    sound = model.read_bytes()
    model.write_bytes(sound[:-1])
    shutil.rmtree(pairs.repository / "pairs-fp16" / "warmup")
    with pytest.MonkeyPatch.context() as patch:
        # The single-precision graph is there: the checkpoint is not traced again.
        patch.setattr(harness.export.source, "write_fp32", None)
        assert pairs.export() == pairs.variants
    assert model.read_bytes() == sound
    assert (pairs.repository / "pairs-fp16" / "warmup" / "input_ids").is_file()
    assert snapshot(pairs.repository / "pairs-fp32") == before


def test_a_harmed_graph_is_exported_again_and_nothing_is_made_from_it(pairs, tmp_path):
    repository = shutil.copytree(pairs.repository, tmp_path / "repository")
    harmed = [repository / f"pairs-{name}" / "1" / "model.onnx" for name in ("fp32", "int8")]
    sound = [one.read_bytes() for one in harmed]
    for one, content in zip(harmed, sound, strict=True):
        one.write_bytes(content[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.export.source, "write_fp32", write_fp32)  # no kept graph
        pairs.export(repository)
    # Made again from the checkpoint, and the same to the last byte.
    assert [one.read_bytes() for one in harmed] == sound


def test_whatever_decides_the_artefact_is_in_its_recipe(pairs, tmp_path):
    def recipe(made, precision=Precision.FP32):
        source = ExportSource(
            made.model, made.checkpoint, made.task, made.samples, made.encoded, tmp_path
        )
        return json.loads(json.dumps(source.recipe(precision)))

    same = recipe(pairs)
    assert same == json.loads((pairs.variants[1].path / "manifest.json").read_text())["recipe"]
    other_weights = add_token_types(make_classifier(tmp_path / "pairs", seed=1))
    shorter = CLASSIFICATION.model_copy(update={"max_length": 24, "length_buckets": [24]})
    changed = [
        recipe(Exported(other_weights, tmp_path, CLASSIFICATION, ["fp32"])),
        recipe(Exported(pairs.checkpoint.folder, tmp_path, shorter, ["fp32"])),
        recipe(pairs, Precision.INT8),
    ]
    assert all(one != same for one in changed)


def test_an_artefact_that_fails_the_gate_is_not_kept(gpt2, tmp_path, monkeypatch):
    def shifted(source, path):
        """A graph whose weights have moved by one row, as after a bad quantisation."""
        model = onnx.load(source)
        for one in model.graph.initializer:
            values = numpy_helper.to_array(one)
            if values.dtype == np.float32 and values.ndim == 2:
                one.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=0), one.name))
        path.write_bytes(model.SerializeToString())

    fp32 = gpt2.variants[0].path / "1" / "model.onnx"
    monkeypatch.setattr(
        harness.export.source, "write_fp32", lambda graph, example, path: shutil.copy(fp32, path)
    )
    monkeypatch.setattr(harness.export.variants, "write_int8", shifted)
    with pytest.raises(ParityError, match="gpt2-int8 disagrees with its checkpoint"):
        gpt2.export(tmp_path)
    assert (tmp_path / "gpt2-fp32" / "manifest.json").is_file()
    assert not (tmp_path / "gpt2-int8").exists()


def test_samples_of_another_tokenizer_are_refused(gpt2, pairs, tmp_path):
    """The larger vocabulary's tokens would index beyond the smaller model's table."""
    with pytest.raises(CheckpointError, match="the tokenizer is another model's"):
        export_variants(
            ExportJob(
                pairs.model,
                pairs.checkpoint,
                SINGLE,
                family="made",
                repository=tmp_path,
                samples=gpt2.samples,
                encoded=gpt2.encoded,
            ),
            lambda step: None,
        )


def test_a_model_with_fewer_positions_than_it_says_is_refused(tmp_path):
    """RoBERTa and its like begin behind their pad token, here token 0."""
    folder = make_classifier(tmp_path / "roberta", architecture="roberta", max_positions=32)
    made = Exported(folder, tmp_path / "repository", SINGLE, ["fp32"])
    with pytest.raises(CheckpointError, match=r"32 positions, 1 of them before .* 31 at most"):
        made.export()


RUN_IN_SERVER_ENVIRONMENT = """
import json, sys
import numpy, onnxruntime
answers = {"onnxruntime": onnxruntime.__version__}
for path, inputs, outputs in json.loads(sys.stdin.read()):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = session.run(None, dict(numpy.load(inputs)))
    numpy.savez(outputs, **{o.name: v for o, v in zip(session.get_outputs(), values)})
print(json.dumps(answers))
"""


@pytest.mark.triton
def test_the_servers_own_onnx_runtime_loads_and_answers(
    pairs, gpt2, llama, decoder_classifier, server_environment, tmp_path
):
    """The embedded server's environment has the release that the pinned container carries."""
    jobs = []
    for made in (pairs, gpt2, llama, decoder_classifier):
        for variant in made.variants:
            inputs, outputs = tmp_path / f"{variant.name}.npz", tmp_path / f"{variant.name}-o.npz"
            np.savez(inputs, **made.encoded.groups[-1].inputs)
            jobs.append((variant, made, inputs, outputs))
    answer = subprocess.run(
        [server_environment.python, "-c", RUN_IN_SERVER_ENVIRONMENT],
        input=json.dumps(
            [(str(v.path / "1" / "model.onnx"), str(i), str(o)) for v, _, i, o in jobs]
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["onnxruntime"].startswith("1.19.")
    for variant, made, _, outputs in jobs:
        old = np.load(outputs)
        new = ask_artefact(variant, made.encoded.groups[-1].inputs)
        first = variant.outputs[0].name
        # Two releases of ONNX Runtime round int8 scales alike, but sum in another order.
        tolerance = {Precision.FP32: 1e-4, Precision.FP16: 5e-2, Precision.INT8: 0.5}
        difference = np.abs(old[first] - new[first]).max()
        assert difference <= tolerance[variant.precision], (variant.name, difference)
