"""What the user brings: every file read once, and looked at before anything starts.

The check of the inputs before a run and the preparation of its models need the same samples.
Whoever reads them first keeps them here for the other, and for the models that come after: what was
checked is what is measured, also where the file has changed in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.study import (
    Model,
    Task,
)
from harness.tasks.encoding import EncodedDataset
from harness.tasks.labels import LabelReader
from harness.tasks.loading import encode, load_samples
from harness.tasks.rows import DataTable, read_table
from harness.tasks.samples import Samples

_SIZES = frozenset({
    "_name_or_path", "attention_dropout", "attention_probs_dropout_prob", "classifier_dropout",
    "dim", "dropout", "dtype", "embd_pdrop", "finetuning_task", "head_dim", "hidden_dim",
    "hidden_dropout_prob", "hidden_size", "id2label", "initializer_range", "intermediate_size",
    "label2id", "layer_norm_eps", "layer_norm_epsilon", "n_embd", "n_head", "n_heads", "n_inner",
    "n_layer", "n_layers", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "resid_pdrop", "seq_classif_dropout", "torch_dtype", "transformers_version",
})  # fmt: skip
"""Settings of a configuration that change no token. Two models that differ in anything else are
each asked to encode the data, which costs time and is never wrong."""
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".ckpt")


class StudyInputs:
    """Samples by task and model, and their encoded forms by task and tokenizer."""

    def __init__(self) -> None:
        """Keep the study; nothing is read yet."""
        self._samples: dict[Hashable, Samples] = {}
        self._datasets: dict[Hashable, EncodedDataset] = {}
        self._table: tuple[Hashable, DataTable] | None = None
        self._readers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the rows of the latest data source until the end: several models are about to ask.

        Outside of this only samples are kept; the whole of a data file takes far more memory.
        """
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._table = None

    def samples(
        self,
        task: Task,
        *,
        seed: int,
        label_names: Sequence[str] | None,
        data_file: Path | None = None,
        model: str,
        teacher: LabelReader | None = None,
    ) -> Samples:
        """The samples of a task as one checkpoint's labels have them.

        Args:
            task: the study's section.
            seed: draws the samples where not all are asked for.
            label_names: the checkpoint's classes in the order of its outputs.
            data_file: where the rows of `source: reference` lie.
            model: whose classes they are, for messages.
            teacher: how the same labels were read for the family's teacher.

        Raises:
            DataError: with every problem of the data.
        """
        names = None if label_names is None else tuple(label_names)
        key = task.model_dump_json(), seed, names, data_file, model, teacher
        if key not in self._samples:
            with self.reading():
                self._samples[key] = load_samples(
                    task,
                    seed=seed,
                    label_names=names,
                    data_file=data_file,
                    model=model,
                    teacher=teacher,
                    table=self._read(task, data_file),
                )
        return self._samples[key]

    def _read(self, task: Task, data_file: Path | None) -> DataTable:
        source = task.data.model_dump_json(), data_file
        if self._table is None or self._table[0] != source:
            self._table = None  # the memory of the one before is free for this one
            self._table = source, read_table(task.data, data_file)
        return self._table[1]

    def encoded(self, task: Task, samples: Samples, model: Model, folder: Path) -> EncodedDataset:
        """The samples as a checkpoint's tokenizer encodes them.

        Models whose tokenizer and labels are the same share one data set.

        Args:
            task: the study's section.
            samples: of the model.
            model: the study's section.
            folder: of its checkpoint.

        Raises:
            CheckpointError: the tokenizer is missing or unusable, or another model's.
            DataError: the texts are too short to score.
        """
        key = (
            task.model_dump_json(),
            samples.identity,
            tokenizer_fingerprint(folder),
            model.trust_remote_code,
        )
        if key not in self._datasets:
            trust = model.trust_remote_code
            self._datasets[key] = encode(task, samples, folder, trust_remote_code=trust)
        return self._datasets[key]


def tokenizer_fingerprint(folder: Path) -> str:
    """SHA-256 of everything in a checkpoint's folder that can change how it encodes a text.

    These are all its files but the weights, and of its configuration all but the model's sizes.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix not in _WEIGHTS and file.name != "config.json":
            digest.update(f"{file.name}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    config = folder / "config.json"
    if config.is_file():
        document = _without_sizes(json.loads(config.read_bytes()))
        digest.update(json.dumps(document, sort_keys=True).encode())
    return digest.hexdigest()


def _without_sizes(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _without_sizes(one) for name, one in config.items() if name not in _SIZES}
    return config
