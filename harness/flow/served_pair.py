"""A stored run's student and teacher, served again side by side: for a router, for a rollout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from harness.errors import RunFolderError, UsageError
from harness.flow.options import RunSettings
from harness.flow.preparation import PreparedFamily, prepare
from harness.flow.serving import Served, serve
from harness.flow.spaces import serving_configs
from harness.report.family_results import FamilyResults
from harness.report.selection import best_of_variant
from harness.runs.folder import StoredRun, read_run
from harness.serving.embedded.environment import ensure_server_environment
from harness.serving.router import ServedPair
from harness.study import Study
from harness.tasks.classification.rows import LabelledDataset
from harness.types import ModelVariant, ServingConfig


@dataclass(frozen=True)
class PairAtWork:
    """A running server, and the two models that are to be loaded on it."""

    served: Served
    family: PreparedFamily
    study: Study
    pair: ServedPair

    @property
    def dataset(self) -> LabelledDataset:
        """The scored rows as the student takes them; the teacher takes the same tensors."""
        found = self.family.datasets[self.pair.student.name]
        assert isinstance(found, LabelledDataset)  # noqa: S101  (checked in `pair_of`)
        return found


def study_of(run: StoredRun, folder: Path) -> Study:
    """The study that a run is of.

    Raises:
        RunFolderError: the run has none, or was measured on an external server.
    """
    if url := run.manifest.get("server", {}).get("url"):
        raise RunFolderError(
            f"{folder} was measured on {url}: the harness cannot load models there",
            next_step="run the study on the embedded server first",
        )
    try:
        return Study.model_validate(run.manifest.get("study"))
    except ValidationError as error:
        raise RunFolderError(
            f"{folder} holds no study that this version can read",
            next_step="run the study again",
        ) from error


@contextmanager
def serve_pair(
    folder: Path, results: FamilyResults, student: str, teacher: str, settings: RunSettings
) -> Iterator[PairAtWork]:
    """Start Triton on a run's artefacts; neither model is loaded yet.

    Args:
        folder: of the run.
        results: of the models' family.
        student: a variant's name.
        teacher: likewise.
        settings: where the model repository is, and who watches.

    Raises:
        RunFolderError: the artefacts are others than the run's.
        UsageError: the two models cannot stand behind one name.
        ServerError: the server does not start.
    """
    run = read_run(folder)
    study = study_of(run, folder)
    environment = ensure_server_environment(settings.progress)
    own = [one for one in study.families if one.name == results.name]
    (family,) = prepare(
        study.model_copy(update={"families": own}),
        repository=settings.repository,
        progress=settings.progress,
        warn=settings.warn,
        inputs=settings.inputs,
    )
    pair = pair_of(folder, study, family, results, student, teacher)
    with serve([family], environment, settings, log_file=folder / "logs" / "triton.log") as served:
        yield PairAtWork(served, family, study, pair)


def pair_of(
    folder: Path,
    study: Study,
    family: PreparedFamily,
    results: FamilyResults,
    student: str,
    teacher: str,
) -> ServedPair:
    """The two models, each in the configuration of its best trial.

    Raises:
        HarnessError: why a model cannot be exported.
        RunFolderError: an artefact is another file than the run measured.
        UsageError: the models take other tensors of a row, or know other classes.
    """
    for name in (student, teacher):
        if name in family.failures:
            raise family.failures[name]
    own, theirs = (_variant(folder, family, results, name) for name in (student, teacher))
    pair = ServedPair(
        own,
        theirs,
        _serving(study, family, results, student),
        _serving(study, family, results, teacher),
        _columns(family.datasets, student, teacher),
    )
    pair.check()
    return pair


def _variant(
    folder: Path, family: PreparedFamily, results: FamilyResults, name: str
) -> ModelVariant:
    found = next(one for one in family.variants if one.name == name)
    stored = results.variant(name)
    if stored is None or stored.sha256 != found.sha256:
        raise RunFolderError(
            f"{name} is another file than {folder} measured: what was chosen there does not hold "
            "for it",
            next_step="run the study again, or name its --repository",
        )
    return found


def _serving(
    study: Study, family: PreparedFamily, results: FamilyResults, name: str
) -> ServingConfig:
    best = best_of_variant(results, name)
    if best is not None:
        return best.trial.serving
    return serving_configs(study.serving_of(family.family))[0]


def _columns(datasets: Mapping[str, object], student: str, teacher: str) -> tuple[int, ...]:
    """For each class of the student, in order, its index among the teacher's classes."""
    own, theirs = datasets[student], datasets[teacher]
    if not isinstance(own, LabelledDataset) or not isinstance(theirs, LabelledDataset):
        raise UsageError(
            f"{student} is no classifier with known classes",
            next_step="route between classifiers (task kind sequence-classification)",
        )
    for mine, other in zip(own.groups, theirs.groups, strict=False):
        alike = len(own.groups) == len(theirs.groups) and all(
            name in mine.inputs and np.array_equal(mine.inputs[name], array)
            for name, array in other.inputs.items()
        )
        if not alike:
            raise UsageError(
                f"{student} and {teacher} take different tensors of the same row: one request "
                "cannot be answered by either",
                next_step="route between models of one tokenizer and length",
            )
    if sorted(own.class_names) != sorted(theirs.class_names):
        raise UsageError(
            f"{student} knows the classes {', '.join(own.class_names) or 'of no name'}, and "
            f"{teacher} {', '.join(theirs.class_names) or 'those of no name'}",
            next_step="name the classes alike in the checkpoints' id2label",
        )
    if not own.class_names:
        return tuple(range(own.width))
    return tuple(theirs.class_names.index(name) for name in own.class_names)
