"""What a study costs before anything is exported: its inputs checked, then encoded for each model.

A CSV file of a given size and models of one architecture with the tokenizer of the first, as a
teacher and its students usually have. Each number of models runs in a fresh process, so that its
peak of resident memory is its own; what importing the libraries takes is told apart.

    OMP_NUM_THREADS=1 python benchmarks/start_up.py --megabytes 200 --models 1 5
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

LABELS = ("refund", "delivery", "praise")
CHARACTERS = 1000
"""Of each text: about 180 words."""


@dataclass(frozen=True)
class StartUp:
    """What one process needed."""

    models: int
    check_s: float
    """To check every input: `harness.flow.inputs.check_inputs`."""
    open_s: float
    """To have every model's encoded samples after that."""
    imports_mib: float
    """Peak of resident memory once the libraries are imported."""
    peak_mib: float
    """And at the end."""
    digests: tuple[str, ...]
    """Of each model's encoded samples, in the study's order."""


def main() -> int:
    """Write the study, measure each number of models, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--models", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--samples", type=int, help="rows that are drawn; default: all")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(asdict(measure(asked.one))))
        return 0
    with tempfile.TemporaryDirectory(prefix="start_up-") as folder:
        data = write_data(Path(folder), int(asked.megabytes * 1e6))
        for number in range(max(asked.models)):
            write_model(Path(folder) / f"model-{number}", seed=number)
        for models in asked.models:
            study = write_study(Path(folder), data, models, asked.samples)
            command = [sys.executable, __file__, "--one", str(study)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{models} models: inputs checked in {found['check_s']:.1f} s, then opened in "
                f"{found['open_s']:.1f} s; peak {found['peak_mib']:,.0f} MiB, of which imports "
                f"{found['imports_mib']:,.0f} MiB; digests {sorted(set(found['digests']))}"
            )
    return 0


def measure(study_file: Path) -> StartUp:
    """Check and open a study in this process."""
    import torch  # noqa: F401  (imported before the measurement: it is not part of it)
    import transformers  # noqa: F401

    from harness.flow.input_checks import check_inputs
    from harness.flow.inputs import StudyInputs
    from harness.flow.opening import open_families
    from harness.study.file import load_study

    imports_mib = _peak_mib()
    study = load_study(study_file)
    inputs = StudyInputs()
    started = time.monotonic()
    check_inputs(study, inputs)
    checked = time.monotonic()
    (family,) = open_families(study, study.families, lambda _: None, inputs=inputs)
    opened = time.monotonic()
    return StartUp(
        len(family.models),
        checked - started,
        opened - checked,
        imports_mib,
        _peak_mib(),
        tuple(one.dataset.digest for one in family.models),
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_data(folder: Path, size: int) -> Path:
    """Write a CSV file of about so many bytes: a text, a label, and a column nobody asks for."""
    generator = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlu"))
    words = ["".join(generator.choice(letters, generator.integers(2, 10))) for _ in range(5000)]
    path = folder / "data.csv"
    written = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text", "label"])
        while written < size:
            text = " ".join(words[one] for one in generator.integers(5000, size=CHARACTERS // 6))
            written += writer.writerow([written, text, LABELS[generator.integers(len(LABELS))]])
    return path


def write_model(folder: Path, seed: int) -> None:
    """Save an untrained BERT of a few thousand weights, with the one tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{one}" for one in letters)]
    tokens += [
        f"{start}{a}{b}" for start in ("", "##") for a in "etaoinshrdlu" for b in "etaoinshrdlu"
    ]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=tokens[1]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1 + seed % 2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=0,
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, **special)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)


def write_study(folder: Path, data: Path, models: int, samples: int | None) -> Path:
    """Write a study of the first models."""
    task = {
        "kind": "sequence-classification",
        "data": {"source": "csv", "path": str(data)},
        "max_length": 128,
    }
    if samples is not None:
        task["samples"] = samples
    document = {
        "name": "start-up",
        "families": [
            {
                "name": "texts",
                "task": task,
                "models": [
                    {
                        "name": f"model-{number}",
                        "role": "student" if number else "teacher",
                        "checkpoint": f"./model-{number}",
                    }
                    for number in range(models)
                ],
            }
        ],
    }
    path = folder / f"study-{models}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
