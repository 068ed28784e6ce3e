"""Where a family's quality was lost: the rows each step is asked, and every slice compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError, DataError, ServerError
from harness.export.in_process import ArtefactPredictor, CheckpointPredictor
from harness.flow.opening import OpenedModel
from harness.flow.options import ProgressSink, ignore_progress
from harness.flow.preparation import PreparedFamily
from harness.flow.scoring import SCORING_BATCH, outcomes_path, standing
from harness.flow.serving import Served, check_after_failure
from harness.flow.side_by_side import SharedProgress, at_once, side_by_side
from harness.quality.collection import Predictor, collect_outcomes, read_outcomes, write_outcomes
from harness.quality.losses import Rows, Slicing, loss_chain, slice_losses, slicings
from harness.runs.folder import RunFolder
from harness.study import Study
from harness.tasks.encoding import EncodedDataset, row_columns, take_rows
from harness.tasks.loading import load_training_samples
from harness.tasks.losses import Step
from harness.tasks.outcomes import Outcomes
from harness.tasks.registry import family_of
from harness.tasks.rowwise import take
from harness.types import ModelVariant, Precision, Role, ServingConfig
from harness.types.losses import LossChain, LossEntry

Windows = tuple[tuple[int, int, int], ...]


def drawn_rows(
    dataset: EncodedDataset,
    reference: EncodedDataset,
    family: Iterable[EncodedDataset],
    *,
    most: int,
    seed: int,
) -> NDArray[np.int64]:
    """Positions of the rows, ascending.

    Models of one family are asked the same samples. Where their tokenizers cut a text into other
    windows, the same stretches of text: whole documents in an order drawn with the seed, the last
    one cut where the reference has as many windows as are wanted.

    Args:
        dataset: of the model that is asked.
        reference: of the family's teacher.
        family: the data sets of all models that are compared.
        most: rows, of the reference.
        seed: of the draw.
    """
    every = list(family)
    if max(one.size for one in every) <= most:
        return np.arange(dataset.size)
    if reference.spans is None or all(one.spans == reference.spans for one in every):
        if dataset.size <= most:
            return np.arange(dataset.size)
        drawn = np.random.default_rng(seed).choice(dataset.size, most, replace=False)
        return np.sort(drawn)
    ends = _drawn_text(reference.spans, most, seed)
    kept = [begin < ends.get(document, 0) for document, begin, _ in dataset.spans or ()]
    return np.flatnonzero(kept)


def _drawn_text(windows: Windows, most: int, seed: int) -> dict[int, int]:
    """Up to which character each drawn document is asked."""
    spans: dict[int, list[int]] = {}
    for document, _, end in windows:
        spans.setdefault(document, []).append(end)
    ends: dict[int, int] = {}
    left = most
    for document in np.random.default_rng(seed).permutation(sorted(spans)).tolist():
        if not left:
            break
        taken = spans[document][:left]
        ends[document], left = taken[-1], left - len(taken)
    return ends


BATCH_1_INSTANCES = 2
"""Rows one by one are slow: two instances use two cores, and change no answer."""


def trace_losses(
    study: Study,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    progress: ProgressSink,
) -> None:
    """Journal a loss entry for every variant that has none yet.

    Some families have none: where outcomes are of questions, say, and rows are windows.

    Raises:
        ServerError: the server died.
    """
    if not family_of(prepared.family.task).traces_losses:
        return
    known, teacher = folder.journal.losses, prepared.teacher.sha256
    todo = [
        variant
        for variant in standing(prepared, folder)
        if variant.name not in known or _origins(known[variant.name]) != (variant.sha256, teacher)
    ]
    if not todo:
        return
    tracer = _Tracer(study, prepared, served, folder)
    tracer.ask_teacher()
    shared = SharedProgress(progress, f"where {prepared.family.name} lost quality", len(todo))

    def traced(variants: Sequence[ModelVariant]) -> list[LossEntry]:
        entries = []
        for variant in variants:
            shared.told(variant.name, 0.0)
            entries.append(tracer.entry(variant))
            shared.told(variant.name, 1.0)
        return entries

    most = at_once(todo) if served.takes_several else 1
    tasks = [partial(traced, each) for each in _by_model(prepared, todo)]
    with side_by_side(tasks, most) as results:
        for entries in results:
            for entry in entries():
                folder.journal.add(entry)


def _by_model(
    prepared: PreparedFamily, variants: Sequence[ModelVariant]
) -> list[list[ModelVariant]]:
    """A list for each model, because its variants share what was asked of it."""
    grouped: dict[str, list[ModelVariant]] = {}
    for variant in variants:
        grouped.setdefault(prepared.opened[variant.name].model.name, []).append(variant)
    return list(grouped.values())


@dataclass(frozen=True)
class _Tracer:
    """What the entries of one family share."""

    study: Study
    prepared: PreparedFamily
    served: Served
    folder: RunFolder
    pytorch: Lock = field(default_factory=Lock)
    """Held while a checkpoint is loaded and asked: transformers changes PyTorch's global settings
    while it loads one."""

    def ask_teacher(self) -> None:
        """Ask what every entry needs, before several are made at once; `entry` tells problems."""
        if self.prepared.family.task.chain_samples and self.prepared.teacher.path.name:
            with suppress(CheckpointError, DataError, ServerError):
                self._checkpoint(self.prepared.teacher)
        if len(self.prepared.variants) > 1:
            _ = self._teacher_outcomes, self._slicings

    def entry(self, variant: ModelVariant) -> LossEntry:
        family, task = self.prepared.family.name, self.prepared.family.task
        chain, problem = None, ""
        try:
            chain = self._chain(variant)
        except (CheckpointError, DataError, ServerError) as error:
            # A dead server ends the run; this is about one step.
            check_after_failure(self.served.site.server)
            problem = str(error)
        entry = LossEntry(
            variant.name,
            variant.sha256,
            family,
            chain,
            problem=problem,
            teacher_sha256=self.prepared.teacher.sha256,
            metric=family_of(task).loss_metric_of(task),
            not_compared=family_of(task).not_compared(variant, self.prepared.teacher),
        )
        if variant.name == self.prepared.teacher.name:
            return entry
        return self._compared(entry)

    def _compared(self, entry: LossEntry) -> LossEntry:
        """Compare with the served teacher, with slices, confusions and examples."""
        opened = self.prepared.opened[self.prepared.teacher.name]
        teacher = self._teacher_outcomes
        own = read_outcomes(outcomes_path(self.folder, entry.variant))
        family = family_of(self.prepared.family.task)
        texts = family.row_texts(opened.dataset, opened.samples)
        details = family.loss_details(own, teacher, opened.dataset, texts)
        return dataclasses.replace(
            entry,
            slices=slice_losses(
                own, teacher, self._slicings, seed=self.study.seed, dataset=opened.dataset
            ),
            examples=details.examples,
            examples_in=details.examples_in,
            shifts=details.shifts,
            classes=details.classes,
            confusion_change=details.confusion_change,
        )

    @cached_property
    def _teacher_outcomes(self) -> Any:
        return read_outcomes(outcomes_path(self.folder, self.prepared.teacher.name))

    @cached_property
    def _slicings(self) -> Sequence[Slicing]:
        """How the family's rows are cut; the training data is read for the first variant alone."""
        opened = self.prepared.opened[self.prepared.teacher.name]
        training = load_training_samples(
            self.prepared.family.task,
            label_names=opened.checkpoint.label_names,
            data_file=self.prepared.training_file,
            like=opened.samples.reader,
        )
        family = family_of(self.prepared.family.task)
        rows = Rows(
            family.row_texts(opened.dataset, opened.samples),
            family.row_labels(opened.samples),
            row_columns(opened.dataset, opened.samples),
        )
        seen = None
        if training:
            seen = Rows(training.texts, family.row_labels(training), training.columns)
        return slicings(rows, self._teacher_outcomes, seen)

    def _chain(self, variant: ModelVariant) -> LossChain | None:
        most = self.prepared.family.task.chain_samples
        if not most or not variant.path.name:  # an external server's artefact is out of reach
            return None
        teacher = self.prepared.opened[self.prepared.teacher.name].dataset
        asked = take_rows(teacher, self._drawn(self.prepared.teacher))
        steps = [Step("teacher", self._checkpoint(self.prepared.teacher), asked)]
        if variant.role is not Role.TEACHER:
            step = "training" if variant.role is Role.CONTROL else "distillation"
            steps.append(Step(step, self._checkpoint(variant)))
        steps += self._artefacts(variant)
        steps.append(Step("serving", self._at_batch_1(variant)))
        served = read_outcomes(outcomes_path(self.folder, variant.name))
        steps.append(Step("batching", take(served, self._drawn(variant))))
        return loss_chain(steps, seed=self.study.seed)

    def _artefacts(self, variant: ModelVariant) -> list[Step[Any]]:
        """The single-precision graph, and the variant's own where that is another."""
        own = self._artefact(variant)
        if variant.precision is Precision.FP32:
            return [Step("export", own)]
        step = "quantisation" if variant.precision is Precision.INT8 else "half precision"
        single = self._single_precision(variant)
        if single is None:
            return [Step(f"export+{step}", own)]
        return [Step("export", self._artefact(single)), Step(step, own)]

    def _single_precision(self, variant: ModelVariant) -> ModelVariant | None:
        model = self.prepared.opened[variant.name].model
        return next(
            (
                other
                for other in self.prepared.variants
                if self.prepared.opened[other.name].model == model
                and other.precision is Precision.FP32
            ),
            None,
        )

    def _checkpoint(self, variant: ModelVariant) -> Outcomes:
        opened = self.prepared.opened[variant.name]
        asked = dataclasses.replace(
            variant, name=f"{opened.model.name}.checkpoint", sha256=opened.checkpoint.digest
        )
        task = self.prepared.family.task
        with self.pytorch:
            return self._asked(
                asked,
                opened,
                lambda: CheckpointPredictor(opened.model, opened.checkpoint, task, opened.dataset),
            )

    def _artefact(self, variant: ModelVariant) -> Outcomes:
        """Row by row where a row's answer depends on its batch, so that batching shows apart."""
        return self._asked(
            dataclasses.replace(variant, name=f"{variant.name}.artefact"),
            self.prepared.opened[variant.name],
            lambda: ArtefactPredictor(variant.path / "1" / "model.onnx"),
            batch_size=1 if variant.precision is Precision.INT8 else SCORING_BATCH,
        )

    def _at_batch_1(self, variant: ModelVariant) -> Outcomes:
        """Through the endpoint, with nothing for the dynamic batcher to join."""
        opened = self.prepared.opened[variant.name]
        kept = self._kept(f"{variant.name}.batch-1", variant.sha256)
        if kept is not None:
            return kept
        kind = self.study.serving_of(self.prepared.family).instance_kind
        serving = ServingConfig(
            max_batch_size=1, instance_count=BATCH_1_INSTANCES, instance_kind=kind
        )
        client = self.served.site.client
        self.served.load(variant, serving)
        subset = take_rows(opened.dataset, self._drawn(variant))
        outcomes: Outcomes = collect_outcomes(
            variant, subset, client, batch_size=1, progress=ignore_progress
        )
        self.served.unload(variant)
        write_outcomes(self._path(f"{variant.name}.batch-1"), outcomes, subset)
        return outcomes

    def _asked(
        self,
        asked: ModelVariant,
        opened: OpenedModel,
        predictor: Callable[[], Predictor],
        *,
        batch_size: int = SCORING_BATCH,
    ) -> Outcomes:
        """What was answered before, or is answered now, one batch after another."""
        kept = self._kept(asked.name, asked.sha256)
        if kept is not None:
            return kept
        subset = take_rows(opened.dataset, _draw(self.study, self.prepared, opened.dataset))
        outcomes: Outcomes = collect_outcomes(
            asked,
            subset,
            predictor(),
            batch_size=batch_size,
            in_flight=1,
            progress=ignore_progress,
        )
        write_outcomes(self._path(asked.name), outcomes, subset)
        return outcomes

    def _drawn(self, variant: ModelVariant) -> NDArray[np.int64]:
        return _draw(self.study, self.prepared, self.prepared.datasets[variant.name])

    def _kept(self, name: str, sha256: str) -> Outcomes | None:
        path = self._path(name)
        kept = read_outcomes(path) if path.is_file() else None
        return kept if kept is not None and kept.sha256 == sha256 else None

    def _path(self, name: str) -> Path:
        return self.folder.path / "samples" / "chain" / f"{name}.parquet"


def _origins(entry: LossEntry) -> tuple[str, str]:
    return entry.sha256, entry.teacher_sha256


def _draw(study: Study, prepared: PreparedFamily, dataset: EncodedDataset) -> NDArray[np.int64]:
    teacher, most = prepared.datasets[prepared.teacher.name], prepared.family.task.chain_samples
    own = family_of(prepared.family.task).chain_rows(teacher, most, study.seed)
    if own is not None:
        return own
    return drawn_rows(dataset, teacher, prepared.datasets.values(), most=most, seed=study.seed)
