import json
import shutil

import pytest
from tiny_models import make_classifier, make_language_model

from harness.errors import CheckpointError
from harness.export.checkpoint import inspect_checkpoint, open_checkpoint
from harness.export.checkpoint_files import load_model
from harness.study import CausalLanguageModelling, Model, SequenceClassification
from harness.tasks.registry import family_of

CLASSIFIER = family_of("sequence-classification")
DATA = {"source": "reference", "name": "topics"}


def named(checkpoint, **changes):
    return Model.model_validate(
        {"name": "m", "role": "teacher", "checkpoint": str(checkpoint), **changes}
    )


def refusal(checkpoint, task=None, **changes):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(named(checkpoint, **changes), folder=None, task=task)
    return f"{caught.value}\n{caught.value.next_step}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("made") / "classifier")


@pytest.fixture
def classifier(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "classifier")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_checkpoint_tells_its_labels_and_its_size(classifier):
    from transformers import AutoModelForSequenceClassification

    checkpoint = open_checkpoint(named(classifier), folder=None)
    loaded = AutoModelForSequenceClassification.from_pretrained(classifier)
    assert checkpoint.parameters == sum(weight.numel() for weight in loaded.parameters())
    assert checkpoint.label_names == ("code", "prose", "other")
    assert checkpoint.folder == classifier
    assert checkpoint.name == str(classifier)


def test_shared_weights_count_once_and_a_language_model_has_no_labels(tmp_path):
    folder = make_language_model(tmp_path)
    checkpoint = open_checkpoint(named(folder), folder=None)
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert checkpoint.parameters == sum(weight.numel() for weight in loaded.parameters())
    assert checkpoint.label_names is None


def test_the_folder_given_is_the_one_opened(classifier):
    checkpoint = open_checkpoint(named("reference:topics-teacher"), folder=classifier)
    assert checkpoint.folder == classifier
    assert checkpoint.name == "reference:topics-teacher"


def test_the_digest_covers_what_is_exported_and_nothing_else(classifier):
    digest = open_checkpoint(named(classifier), folder=None).digest
    (classifier / "training.json").write_text('{"seconds": 12}')
    (classifier / "README.md").write_text("x")
    assert open_checkpoint(named(classifier), folder=None).digest == digest
    other = make_classifier(classifier.with_name("other"), seed=1)
    shutil.copy(other / "model.safetensors", classifier)
    assert open_checkpoint(named(classifier), folder=None).digest != digest


def test_pickles_are_refused_with_the_way_to_convert_them(classifier):
    (classifier / "model.safetensors").rename(classifier / "pytorch_model.bin")
    text = refusal(classifier)
    assert "pytorch_model.bin: pickles, which can run code" in text
    assert "save_pretrained" in text


def test_every_problem_is_told_at_once(classifier):
    (classifier / "model.safetensors").unlink()
    (classifier / "tokenizer.json").unlink()
    edit_config(classifier, architectures=["BertForMaskedLM"])
    text = refusal(classifier)
    assert "no weights in safetensors" in text
    assert "has no tokenizer" in text
    assert "BertForMaskedLM" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id2label": {"0": "score"}, "label2id": {"score": 0}}, "a regression"),
        ({"problem_type": "multi_label_classification"}, "several labels"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "numbers the classes 1, 2, 3"),
        ({"id2label": {"0": "a", "1": "b", "9": "c"}}, "numbers the classes 0, 1, 9"),
        ({"model_type": "no-such-model"}, "no-such-model"),
        ({"architectures": None}, "names the architecture none"),
    ],
)
def test_models_that_are_no_single_label_classifiers(classifier, changes, words):
    edit_config(classifier, **changes)
    task = SequenceClassification(kind="sequence-classification", data=DATA, max_length=16)
    assert words in refusal(classifier, task)


def test_a_folder_without_configuration_or_with_a_broken_one(tmp_path, classifier):
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        open_checkpoint(named("reference:some"), folder=tmp_path)
    (classifier / "config.json").write_text("{")
    assert "config" in refusal(classifier)


def test_the_task_is_checked_where_it_is_given(classifier):
    text = CausalLanguageModelling.model_validate({"kind": "causal-lm", "data": DATA})
    long = SequenceClassification.model_validate(
        {"kind": "sequence-classification", "data": DATA, "max_length": 128}
    )
    with pytest.raises(CheckpointError, match="made for sequence-classification"):
        inspect_checkpoint(named(classifier), None, task=text)
    with pytest.raises(CheckpointError, match=r"64 positions, but the task's max_length is 128"):
        inspect_checkpoint(named(classifier), None, task=long)
    assert inspect_checkpoint(named(classifier), None).family.kind == "sequence-classification"


OWN_CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification

Path({witness!r}).write_text("ran")

class OwnConfig(BertConfig):
    model_type = "own-model"

class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(classifier, tmp_path, monkeypatch):
    """A checkpoint whose model is defined by a Python file beside it, and that file's trace."""
    import transformers.dynamic_module_utils

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    witness = tmp_path / "witness"
    (classifier / "own.py").write_text(OWN_CODE.format(witness=str(witness)))
    edit_config(
        classifier,
        model_type="own-model",
        architectures=["OwnForSequenceClassification"],
        auto_map={
            "AutoConfig": "own.OwnConfig",
            "AutoModelForSequenceClassification": "own.OwnForSequenceClassification",
        },
    )
    return classifier, witness


def test_code_of_a_checkpoint_does_not_run_unasked(own_code):
    folder, witness = own_code
    text = refusal(folder)
    assert "brings its own Python code" in text
    assert "trust_remote_code: true" in text
    assert not witness.exists()


def test_code_of_a_checkpoint_runs_when_the_study_says_so(own_code):
    folder, witness = own_code
    model = named(folder, trust_remote_code=True)
    checkpoint = open_checkpoint(model, folder=None)
    assert witness.exists()
    loaded = load_model(model, checkpoint.folder, CLASSIFIER)
    assert type(loaded).__name__ == "OwnForSequenceClassification"
    (folder / "own.py").write_text((folder / "own.py").read_text() + "# changed\n")
    assert open_checkpoint(model, folder=None).digest != checkpoint.digest


def test_a_model_without_a_trained_head_is_refused(classifier):
    from transformers import AutoModel

    AutoModel.from_pretrained(classifier).save_pretrained(classifier)
    edit_config(classifier, architectures=["BertForSequenceClassification"])
    with pytest.raises(CheckpointError, match=r"no weights for classifier\.bias"):
        load_model(named(classifier), classifier, CLASSIFIER)


def test_weights_of_other_sizes_than_the_configuration_are_refused_with_both(classifier):
    edit_config(classifier, id2label={str(number): f"c{number}" for number in range(5)})
    with pytest.raises(CheckpointError, match=r"classifier\.\w+ has the shape \[3.*, and \[5"):
        load_model(named(classifier), classifier, CLASSIFIER)


def test_an_adapter_is_not_left_out_without_a_word(classifier):
    (classifier / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match="it has an adapter") as caught:
        inspect_checkpoint(named(classifier), None)
    assert "merge_and_unload" in caught.value.next_step


def test_weights_cut_short_are_refused(classifier):
    path = classifier / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(named(classifier), classifier, CLASSIFIER)


@pytest.fixture
def offline_hub(tmp_path, monkeypatch):
    """No network, and an empty cache of the hub's files."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_a_hub_that_cannot_be_reached_says_how_to_go_on(offline_hub):
    text = refusal("someone/some-model")
    assert "cannot be reached" in text
    assert "hf download someone/some-model --local-dir FOLDER" in text


def test_a_name_that_is_neither_folder_nor_hub_model():
    assert "neither a folder nor a hub name" in refusal("no such/name/at all")


def cache_model(cache, folder):
    """Lay a checkpoint where the hub's client keeps what it fetched."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    home = cache / "models--someone--some-model"
    shutil.copytree(folder, home / "snapshots" / revision)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    return home / "snapshots" / revision


def test_a_hub_model_in_the_cache_needs_no_network(offline_hub, classifier):
    place = cache_model(offline_hub, classifier)
    checkpoint = open_checkpoint(named("someone/some-model"), folder=None)
    assert checkpoint.folder == place
    assert checkpoint.label_names == ("code", "prose", "other")
    assert checkpoint.digest == open_checkpoint(named(classifier), folder=None).digest


def test_a_hub_model_without_safetensors_is_refused(offline_hub, classifier):
    (classifier / "model.safetensors").rename(classifier / "pytorch_model.bin")
    cache_model(offline_hub, classifier)
    assert "pickles" in refusal("someone/some-model")
