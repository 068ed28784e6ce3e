"""The sample run as a folder on disk, for commands to be run on; with changes, a release."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sample_run import MANIFEST, sample_run

from harness.runs.folder import RunFolder, StoredRun
from harness.runs.journal import QualityEntry
from harness.types import QualityScore

FAMILY = "topics"
ROWS = 1500


def topics_manifest() -> dict:
    """The sample's manifest, of its first family alone."""
    families = [one for one in MANIFEST["study"]["families"] if one["name"] == FAMILY]
    return {**MANIFEST, "study": {**MANIFEST["study"], "families": families}}


def write_topics(
    path: Path,
    *,
    manifest: Mapping | None = None,
    change: Callable[[StoredRun], StoredRun] = lambda run: run,
    right: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write the sample run's classifiers as a run folder.

    Args:
        path: of the folder.
        manifest: in place of the sample's own.
        change: what is otherwise in this release.
        right: by variant, which rows it answers rightly; its scores follow.
    """
    run = change(sample_run())
    with RunFolder.create(path, manifest or topics_manifest()) as folder:
        for variant in run.variants:
            if variant.family == FAMILY:
                folder.journal.add(variant)
        scores = [score for score in run.scores if score.family == FAMILY]
        for name in dict.fromkeys(score.variant for score in scores):
            own = tuple(_scored(one, right) for one in scores if one.variant == name)
            folder.journal.add(QualityEntry(name, own[0].sha256, own))
        for start in run.cold_starts:
            if start.variant.startswith(FAMILY):
                folder.journal.add(start)
        for result in run.trials:
            if result.trial.family == FAMILY:
                folder.journal.add(result)
        folder.write_verdicts(tuple(one for one in run.verdicts if one.family == FAMILY))
    for name, mask in (right or {}).items():
        write_right(path / "samples" / f"{name}.parquet", name, mask)
    return path


def _scored(score: QualityScore, right: Mapping[str, np.ndarray] | None) -> QualityScore:
    if right is None or score.variant not in right or score.metric != "accuracy":
        return replace(score, outcomes_file="")
    return replace(score, value=float(right[score.variant].mean()), outcomes_file="")


def write_right(path: Path, name: str, mask: np.ndarray) -> None:
    """Outcomes of a classifier that answers 1 where it is right, and 0 elsewhere."""
    table = pa.table(
        {
            "row": np.arange(len(mask)),
            "label": np.ones(len(mask), dtype=np.int64),
            "prediction": mask.astype(np.int64),
            "correct": mask,
            "unanswered": np.zeros(len(mask), dtype=bool),
        }
    ).replace_schema_metadata({"kind": "sequence-classification", "variant": name, "sha256": "x"})
    pq.write_table(table, path)
