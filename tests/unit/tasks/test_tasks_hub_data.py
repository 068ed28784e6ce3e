"""Data by `datasets` name: a data set folder on this disk stands for one on the hub."""

import pytest

from harness.errors import DataError
from harness.study import HubData, SequenceClassification
from harness.tasks.loading import load_samples
from harness.tasks.rows import read_table


def hub_task(name, **changes):
    data = {"source": "datasets", "name": str(name), **changes}
    return SequenceClassification.model_validate({"kind": "sequence-classification", "data": data})


@pytest.fixture
def parquet_folder(tmp_path, monkeypatch):
    """A data set with declared class names, as the hub keeps them."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["prose", "code"])}
    )
    rows = {"text": ["a", "b", "c"], "label": [0, 1, 1]}
    folder = tmp_path / "set"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "test.parquet")
    return folder


def test_declared_class_names_meet_the_checkpoints_in_its_order(parquet_folder):
    samples = load_samples(hub_task(parquet_folder), seed=0, label_names=("code", "prose"))
    assert samples.texts == ("a", "b", "c")
    assert samples.labels == (1, 0, 0)


def test_an_unknown_split_names_those_there_are(parquet_folder):
    with pytest.raises(DataError, match="split dev") as caught:
        load_samples(hub_task(parquet_folder, split="dev"), seed=0, label_names=("code", "prose"))
    assert "'source: jsonl'" in caught.value.next_step


def test_no_hub_and_no_copy_says_how_to_go_on(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="cannot be reached") as caught:
        load_samples(hub_task("nyu-mll/glue", config="mnli"), seed=0, label_names=None)
    assert "hf download --repo-type dataset nyu-mll/glue" in caught.value.next_step


def test_a_name_that_cannot_be_one(tmp_path):
    with pytest.raises(DataError, match=r"Repo id must"):
        load_samples(hub_task("no such/name/at all"), seed=0, label_names=None)


def test_a_list_of_class_indexes_declares_its_names(tmp_path, monkeypatch):
    """As CoNLL-2003 lies on the hub: a tag a word."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tags = datasets.ClassLabel(names=["O", "B-PER"])
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(tags),
        }
    )
    rows = {"tokens": [["a", "Bo"]], "ner_tags": [[0, 1]]}
    folder = tmp_path / "set"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "test.parquet")
    table = read_table(HubData(source="datasets", name=str(folder)), None)
    assert table.class_names == {"ner_tags": ("O", "B-PER")}
    assert table.rows == [{"tokens": ["a", "Bo"], "ner_tags": [0, 1]}]
