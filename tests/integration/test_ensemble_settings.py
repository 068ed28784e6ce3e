"""An ensemble answers as the checkpoint's own library does, whatever its tokenizer is set to."""

import csv
import json

import pandas as pd
import pytest

from harness.cli.main import run_command
from harness.errors import EXIT_OK
from harness.runs.folder import read_run
from tests.tiny_tokenizers import WORDS, word_level

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment")]

CLASSES = ("w", "x", "y", "z")
MAX_LENGTH = 12
SETTINGS = {"truncation_side": "left", "padding_side": "left", "split_special_tokens": True}


def write_checkpoint(folder):
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = word_level(**SETTINGS)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=32, initializer_range=0.3,
            id2label=dict(enumerate(CLASSES)), label2id={n: i for i, n in enumerate(CLASSES)},
        )
    ).eval()  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def rows_of(model, tokenizer):
    """Texts of 3 to 40 words, some with special tokens in them, and the library's own labels."""
    import torch

    rows = []
    for number in range(60):
        words = [WORDS[(number * 7 + place * (number + 3)) % len(WORDS)] for place in range(40)]
        words = words[: 3 + number % 38]
        text = " ".join([*words, "[SEP]", words[0]] if number % 3 == 0 else words)
        inputs = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.inference_mode():
            rows.append((text, CLASSES[int(model(**inputs).logits.argmax())]))
    return rows


@pytest.mark.slow
def test_every_label_is_the_librarys_own_where_texts_are_cut_on_the_left(tmp_path):
    rows = rows_of(*write_checkpoint(tmp_path / "ckpt"))
    assert len({label for _, label in rows}) > 1
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    task = {
        "kind": "sequence-classification", "data": {"source": "csv", "path": "rows.csv"},
        "max_length": MAX_LENGTH, "length_buckets": [6, MAX_LENGTH], "chain_samples": 0,
    }  # fmt: skip
    model = {"name": "m", "role": "teacher", "checkpoint": "./ckpt"}
    document = {
        "name": "left", "objective": "p95 < 1000 ms",
        "families": [{"name": "f", "task": task, "models": [model], "ensemble": True}],
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(json.dumps(document))
    run = tmp_path / "run"
    repository = ["--repository", str(tmp_path / "repository")]

    assert (
        run_command(["evaluate", str(tmp_path / "study.yaml"), "--out", str(run), *repository])
        == EXIT_OK
    )

    scores = {(one.variant, one.metric): one.value for one in read_run(run).scores}
    assert scores["m-fp32", "accuracy"] == 1.0
    assert scores["m-fp32-ensemble", "accuracy"] == 1.0
    asked = pd.read_parquet(run / "samples" / "m-fp32-ensemble.parquet")
    assert not asked.unanswered.any()
