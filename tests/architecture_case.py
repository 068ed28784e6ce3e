"""A tiny checkpoint of an architecture with its samples, wrapped and exported as a study would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.export.checkpoint import open_checkpoint
from harness.export.in_process import ArtefactPredictor, CheckpointPredictor
from harness.export.library import ask_library, choose_rows
from harness.export.library_parity import check_rows
from harness.export.variants import ExportJob, export_variants
from harness.study import CausalLanguageModelling, Model, SequenceClassification, Task
from harness.tasks.loading import encode
from harness.tasks.registry import family_of
from harness.tasks.samples import Samples
from tests.architectures import ARCHITECTURES, LENGTH, Sides, make_checkpoint, some_texts

ROWS = tuple(some_texts(40, 1))
PAIRS = tuple(some_texts(40, 2, longest=16))


class Case:
    """A checkpoint with its samples, as a study would have them."""

    def __init__(
        self,
        folder: Path,
        name: str,
        sides: Sides,
        *,
        language: bool = False,
        paired: bool = False,
        **settings: Any,
    ) -> None:
        self.pairs = PAIRS if paired else None
        self.folder = make_checkpoint(
            folder / name,
            ARCHITECTURES[name],
            language=language,
            sides=sides,
            rows=ROWS,
            pairs=self.pairs,
            **settings,
        )
        self.task = _task(language=language, paired=paired)
        self.open()

    def open(self) -> None:
        self.model = Model.model_validate(
            {"name": "m", "role": "teacher", "checkpoint": str(self.folder)}
        )
        self.checkpoint = open_checkpoint(self.model, folder=None)
        rows = tuple(range(len(ROWS)))
        self.samples = Samples(texts=ROWS, pairs=self.pairs, digest="d", rows=rows, seed=0)
        self.encoded = encode(self.task, self.samples, self.folder)

    def wrapped(self) -> CheckpointPredictor:
        return CheckpointPredictor(self.model, self.checkpoint, self.task, self.encoded)

    def exported(self, repository: Path) -> ArtefactPredictor:
        job = ExportJob(
            self.model,
            self.checkpoint,
            self.task,
            family="f",
            samples=self.samples,
            encoded=self.encoded,
            repository=repository,
        )
        (variant,) = export_variants(job, lambda step: None)
        parity = json.loads((variant.path / "manifest.json").read_text())["parity"]
        assert parity["library_difference"] < 1e-4
        return ArtefactPredictor(variant.path / "1" / "model.onnx")

    def gate(self) -> float:
        """The third side of the parity gate, on the wrapped checkpoint instead of its graph."""
        wrapped = self.wrapped()

        class InPyTorch:
            def run(self, inputs: Any) -> list[Any]:
                return list(wrapped.infer("m", inputs).values())

        rows = choose_rows(self.task, self.samples, self.encoded)
        answers = ask_library(self.model, self.checkpoint, self.task, rows)
        return check_rows(InPyTorch(), family_of(self.task), answers, "m")


def _task(*, language: bool, paired: bool) -> Task:
    data = {"source": "reference", "name": "topics"}
    if language:
        return CausalLanguageModelling.model_validate(
            {"kind": "causal-lm", "data": data, "max_length": LENGTH}
        )
    return SequenceClassification.model_validate(
        {
            "kind": "sequence-classification",
            "data": data,
            "text_pair": "second" if paired else None,
            "max_length": LENGTH,
            "length_buckets": [12, 24, LENGTH],
        }
    )


def change_config(folder: Path, **settings: Any) -> None:
    """Write other settings into a checkpoint's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
