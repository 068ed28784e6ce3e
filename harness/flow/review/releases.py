"""What two run folders say, ready to be compared; scores of the same rows taken row by row."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RunFolderError, UsageError
from harness.metrics import METRICS, OF_ARTEFACTS, metric_named
from harness.planning.review.comparison import PairedDifference, compare
from harness.planning.review.differences import WorseningTolerance
from harness.planning.review.release import Release, ReleasedFamily
from harness.quality.collection import read_outcomes
from harness.report.family_results import FamilyResults, families_of
from harness.report.page import machine_words
from harness.runs.folder import StoredRun, read_run, samples_file
from harness.statistics.paired import PairedRows, paired_scores
from harness.tasks.registry import family_of
from harness.types import QualityScore
from harness.types.losses import Estimate
from harness.types.review import RunComparison
from harness.words.numbers import count


def compare_runs(
    before: Path, after: Path, *, tolerance: WorseningTolerance, only: Collection[str] = ()
) -> RunComparison:
    """Compare two run folders.

    Args:
        before: the earlier run.
        after: the later one.
        tolerance: what may get worse.
        only: metrics to compare; empty for all.

    Raises:
        RunFolderError: one of them is no run folder, or holds nothing that was measured.
        UsageError: they are the same folder, or `only` names no metric.
    """
    if before.resolve() == after.resolve():
        raise UsageError(
            f"{before} is compared with itself", next_step="name the earlier run, then the later"
        )
    unknown = [name for name in only if name not in METRICS and name not in OF_ARTEFACTS.entries]
    if unknown:
        raise UsageError(
            f"--metric {unknown[0]}: there is no such metric",
            next_step=f"name one of: {', '.join([*METRICS, *OF_ARTEFACTS.entries])}",
        )
    runs = [read_run(path) for path in (before, after)]
    for run, path in zip(runs, (before, after), strict=True):
        check_measured(run, path)
    return compare(
        release_of(runs[0], before),
        release_of(runs[1], after),
        paired=_by_sample(before, after, int(runs[0].manifest.get("seeds", {}).get("study", 0))),
        tolerance=tolerance,
        only=only,
    )


def check_measured(run: StoredRun, path: Path) -> None:
    """Make sure that a run holds something.

    Raises:
        RunFolderError: nothing was scored or measured in it.
    """
    if not run.scores and not run.trials:
        raise RunFolderError(
            f"{path} holds no score and no trial",
            next_step=f"finish it: harness run STUDY --out {shlex.quote(str(path))} --resume",
        )


def release_of(run: StoredRun, path: Path) -> Release:
    """What a run says, as far as it is compared."""
    study = run.manifest.get("study", {})
    return Release(
        run=str(path),
        study=str(study.get("name", "run")),
        machine=machine_of(run.manifest),
        families=tuple(_family(run, family) for family in families_of(run)),
    )


def machine_of(manifest: Mapping[str, Any]) -> str:
    """The machine that loads were measured on, in words; an external server's address with it."""
    words = machine_words(manifest.get("environment"))
    server = manifest.get("server")
    address = server.get("url") or server.get("address") if isinstance(server, Mapping) else None
    return f"{words}, server at {address}" if words and address else words


def rows_of(run: StoredRun, family: str) -> str:
    """Digest of the rows that a family was scored on; empty where it is not known."""
    known = run.manifest.get("data", {}).get(family)
    return str(known.get("digest", "")) if isinstance(known, Mapping) else ""


def _family(run: StoredRun, family: FamilyResults) -> ReleasedFamily:
    section: Mapping[str, Any] = next(
        (f for f in run.manifest.get("study", {}).get("families", ()) if f["name"] == family.name),
        {},
    )
    kinds = {variant.task for variant in family.variants}
    return ReleasedFamily(
        name=family.name,
        task=str(section.get("task", {}).get("kind", "")) or next(iter(kinds), ""),
        rows=rows_of(run, family.name),
        objective=family.objective,
        recommended=family.recommended,
        variants=tuple(variant.name for variant in family.variants),
        scores=family.scores,
        trials=family.trials,
        sizes_bytes={
            one.name: one.size_bytes for one in family.variants if one.size_bytes is not None
        },
        cold_starts={one.variant: one for one in family.cold_starts},
    )


@dataclass
class _Outcomes:
    """Outcomes of a run folder, each file read once."""

    folder: Path
    known: dict[str, Any]

    def of(self, score: QualityScore) -> Any | None:
        """What a variant answered to the family's rows; None where that was not kept.

        A score with a file of its own is of other rows, those of an lm-eval task.
        """
        if score.outcomes_file:
            return None
        if score.variant not in self.known:
            path = samples_file(self.folder, score.variant)
            self.known[score.variant] = read_outcomes(path) if path.is_file() else None
        return self.known[score.variant]


def _by_sample(before: Path, after: Path, seed: int) -> PairedDifference:
    earlier, later = _Outcomes(before, {}), _Outcomes(after, {})

    def difference(old: QualityScore, new: QualityScore) -> tuple[Estimate, str] | None:
        first, second = earlier.of(old), later.of(new)
        if first is None or second is None or first.kind != second.kind:
            return None
        if first.size != second.size:
            return None
        rows = _rows(old.metric, first, second, seed)
        if rows is None or not rows.answered.any():
            return None
        loss, found = rows.over(rows.answered)
        kept = count(int(rows.answered.sum()))
        reason = f"paired on {kept} rows"
        if metric_named(old.metric).lower_is_better:
            return Estimate(loss, found.low, found.high), reason
        low = None if found.high is None else -found.high
        high = None if found.low is None else -found.low
        return Estimate(-loss, low, high), reason

    return difference


def _rows(metric: str, before: Any, after: Any, seed: int) -> PairedRows | None:
    """Both runs' answers row by row, in a metric; None where it cannot be taken so."""
    family = family_of(before.kind)
    if not family.same_rows(after, before):
        return None
    right = family.right(metric, before), family.right(metric, after)
    if right[0] is not None and right[1] is not None:
        return paired_scores(right[0], right[1], seed=seed, groups=before.groups)
    if metric != family.loss_metric:
        return None
    return family.paired_rows(after, before, seed)
