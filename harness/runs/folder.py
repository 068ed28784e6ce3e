"""The run folder: where one study's results live, and how a run is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from harness.errors import HarnessError, RunFolderError
from harness.runs.journal import SCHEMA_VERSION, Journal
from harness.runs.records import RECORDS, RecordedStream, StoredRecords
from harness.runs.series import LoadSeries, StoredSeries
from harness.study import Study
from harness.study.objective import parse_objective
from harness.system.storage import replace_text, storage_errors
from harness.types import (
    AFTER_SEARCH,
    BATCHES,
    ROLES,
    SATURATION,
    BatchConsistency,
    ColdStart,
    Decision,
    FailedVariant,
    ModelVariant,
    QualityScore,
    ServerOverhead,
    ServiceLevelObjective,
    TaskEntry,
    TrialResult,
    Verdict,
)
from harness.types.card import CardEntry, ServedEntry
from harness.types.loaded_quality import LoadedQuality
from harness.types.losses import LossEntry, PairedMeasure, Relabelling
from harness.types.roles import StudentRoles

MANIFEST, JOURNAL, VERDICT = "manifest.json", "journal.jsonl", "verdict.json"
SERIES = "series"

_VERDICT = TypeAdapter(Verdict)


@dataclass(frozen=True)
class StoredRun:
    """A run as read back from its folder: all that a report needs."""

    manifest: Mapping[str, Any]
    variants: tuple[ModelVariant, ...]
    scores: tuple[QualityScore, ...]
    consistency: tuple[BatchConsistency, ...]
    trials: tuple[TrialResult, ...]
    """What the search asked for; in the run of `harness load`, its one trial."""
    verdicts: tuple[Verdict, ...]
    decision: Decision
    interrupted: bool = False
    """No verdict was reached: the run can be resumed."""
    objectives: Mapping[str, ServiceLevelObjective] = field(default_factory=dict)
    """Parsed objectives by family: a report draws their bounds even where no verdict was
    reached."""
    cold_starts: tuple[ColdStart, ...] = ()
    overheads: tuple[ServerOverhead, ...] = ()
    """The server's own cost per request, by protocol; none in older runs."""
    series: Mapping[str, LoadSeries] = field(default_factory=dict)
    """Loads over time, by trial; a trial may have none."""
    records: Mapping[str, tuple[RecordedStream, ...]] = field(default_factory=dict)
    """Single streams by trial; none without records."""
    pairs: tuple[PairedMeasure, ...] = ()
    losses: tuple[LossEntry, ...] = ()
    card: tuple[CardEntry, ...] = ()
    """Entries measured in process; empty where no card was asked for."""
    served: tuple[ServedEntry, ...] = ()
    """The card's own measurements through the server."""
    failed: tuple[FailedVariant, ...] = ()
    """Variants that could not be made or served."""
    relabellings: tuple[Relabelling, ...] = ()
    """Relabellings of variants whose outputs seem to stand for other classes than their names
    say."""
    tasks: tuple[TaskEntry, ...] = ()
    """lm-eval's, one per variant; their scores are among `scores`."""
    saturation: tuple[TrialResult, ...] = ()
    """Open loops of the winners and the teachers after the verdict, for planning; none in older
    runs."""
    loaded: tuple[LoadedQuality, ...] = ()
    """Quality while the load of the verdict ran; none in older runs."""
    batches: tuple[TrialResult, ...] = ()
    """Closed loops at growing batch sizes, for jobs with a deadline; none in older runs."""
    roles: tuple[StudentRoles, ...] = ()
    """What students are worth as drafts and as first stages; none in older runs."""
    role_trials: tuple[TrialResult, ...] = ()
    """Closed loops of teacher, student and the teacher with its draft, in turn."""

    @property
    def every_trial(self) -> tuple[TrialResult, ...]:
        """The search's trials, then those that followed it."""
        return (*self.trials, *self.saturation, *self.batches, *self.role_trials)


def require_new(path: Path) -> None:
    """Make sure that a new run would overwrite nothing.

    Raises:
        RunFolderError: the folder holds something already.
        StorageError: it cannot be read.
    """
    with storage_errors(path):
        if path.exists() and any(path.iterdir()):
            raise RunFolderError(
                f"{path} is not empty, and nothing measured is ever overwritten",
                next_step="choose another --out, or add --resume to continue that run",
            )


class RunFolder:
    """A run folder held open for writing by this process alone; a context manager."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path = path
        self.journal = journal
        self._lock = FileLock(path / ".lock")

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any]) -> Self:
        """Make a new run folder.

        Raises:
            RunFolderError: the folder holds something already.
            StorageError: it cannot be written.
        """
        require_new(path)
        with storage_errors(path):
            for part in ("histograms", "samples", "payloads", "logs"):
                (path / part).mkdir(parents=True, exist_ok=True)
        folder = cls(path, Journal(path / JOURNAL))
        folder.write_manifest(manifest)
        return folder

    @classmethod
    def resume(cls, path: Path, study: Study) -> Self:
        """Open the run of the same study to continue where it stopped.

        Raises:
            RunFolderError: no run there, or the run of another study.
        """
        manifest = read_manifest(path)
        if not _is_of(manifest, study):
            name = manifest.get("study", {}).get("name")
            raise RunFolderError(
                f"{path} is a run of a study that has since changed, or of another ('{name}')",
                next_step="start a new run without --resume",
            )
        return cls(path, Journal.read(path / JOURNAL))

    def __enter__(self) -> Self:
        with storage_errors(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise RunFolderError(
                    f"{self.path} is in use by another harness process",
                    next_step="wait for it, or choose another --out",
                ) from error
            self.journal.cut_torn_line()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, replacing the earlier one."""
        replace_text(self.path / MANIFEST, json.dumps(manifest, indent=2, default=str) + "\n")

    def withdraw_verdicts(self) -> None:
        """Have the run count as interrupted until it is decided again."""
        with storage_errors(self.path):
            (self.path / VERDICT).unlink(missing_ok=True)

    def write_verdicts(self, verdicts: tuple[Verdict, ...]) -> None:
        """Write the families' verdicts to verdict.json."""
        document = verdict_document(verdicts)
        replace_text(self.path / VERDICT, json.dumps(document, indent=2) + "\n")


def samples_file(folder: Path, variant: str) -> Path:
    """Where a variant's answers to every scored sample lie in a run folder, as Parquet."""
    return folder / "samples" / f"{variant}.parquet"


def read_run(path: Path) -> StoredRun:
    """Read a run folder, finished or not.

    Raises:
        RunFolderError: the folder holds no run, or one of its files is damaged or missing.
    """
    manifest = read_manifest(path)
    journal = Journal.read(path / JOURNAL)
    document = _read_json(path / VERDICT) if (path / VERDICT).is_file() else None
    if not (journal.variants or journal.trials or journal.quality) and _has_rows(path):
        raise RunFolderError(
            f"{path / JOURNAL} holds nothing, although the run has tables",
            next_step="put the journal back from where the folder was copied; tables and report "
            "are left as they are",
        )
    verdicts = _verdicts(document or {}, path)
    return StoredRun(
        manifest=manifest,
        variants=tuple(journal.variants.values()),
        scores=(
            *(score for entry in journal.quality.values() for score in entry.scores),
            *(score for task in journal.tasks.values() for score in task.scores),
        ),
        consistency=tuple(c for entry in journal.quality.values() for c in entry.consistency),
        trials=tuple(t for t in journal.trials.values() if t.trial.stage not in AFTER_SEARCH),
        verdicts=verdicts,
        decision=overall_decision(verdicts),
        interrupted=document is None,
        objectives=_objectives(manifest.get("study", {})),
        cold_starts=tuple(journal.cold_starts.values()),
        overheads=tuple(journal.overheads.values()),
        series=StoredSeries(path / SERIES),
        records=StoredRecords(path / RECORDS),
        pairs=tuple(p for entry in journal.quality.values() for p in entry.pairs),
        losses=tuple(journal.losses.values()),
        card=tuple(journal.card.values()),
        served=tuple(journal.served.values()),
        failed=tuple(journal.failed.values()),
        relabellings=tuple(e.relabelling for e in journal.quality.values() if e.relabelling),
        tasks=tuple(journal.tasks.values()),
        saturation=tuple(t for t in journal.trials.values() if t.trial.stage == SATURATION),
        loaded=tuple(journal.loaded.values()),
        batches=tuple(t for t in journal.trials.values() if t.trial.stage == BATCHES),
        roles=tuple(journal.roles.values()),
        role_trials=tuple(t for t in journal.trials.values() if t.trial.stage == ROLES),
    )


def _has_rows(path: Path) -> bool:
    """Whether a table of the run has a line below that of its columns."""
    for table in (path / "trials.csv", path / "quality.csv"):
        if table.is_file() and table.read_bytes().strip().count(b"\n"):
            return True
    return False


def _verdicts(document: Mapping[str, Any], path: Path) -> tuple[Verdict, ...]:
    try:
        return tuple(_VERDICT.validate_python(one) for one in document.get("families", ()))
    except (ValueError, TypeError) as error:
        raise RunFolderError(
            f"{path / VERDICT} is damaged: {error}",
            next_step="delete it: the run then counts as interrupted, and --resume decides anew",
        ) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        RunFolderError: there is none, or it is of another schema.
    """
    if not (path / MANIFEST).is_file():
        raise RunFolderError(
            f"{path} is not a run folder (it has no {MANIFEST})",
            next_step="name a folder that `harness run` or `harness demo` wrote",
        )
    manifest = _read_json(path / MANIFEST)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError(
            f"{path} is of schema {manifest.get('schema_version')}; this harness reads "
            f"{SCHEMA_VERSION}",
            next_step="read it with the harness version its manifest names",
        )
    return manifest


def latest_run(root: Path, study: Study) -> Path:
    """The newest run folder of a study below `root`.

    Raises:
        RunFolderError: there is none.
    """
    found = [
        path.parent
        for path in sorted(root.glob(f"{study.name}-*/{MANIFEST}"))
        if _is_of(_read_json(path), study)
    ]
    if not found:
        raise RunFolderError(
            f"no run of study '{study.name}' as it now stands below {root}",
            next_step="start one without --resume",
        )
    return found[-1]


def study_digest(study: Study) -> str:
    """SHA-256 of the resolved study."""
    text = json.dumps(study.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_of(manifest: Mapping[str, Any], study: Study) -> bool:
    """Whether a run is of this very study, whichever version of the harness wrote it down.

    An earlier version wrote some values otherwise (`gamma:2.0`) and lacked some keys, so its
    digest is another: then its study is read, and compared as this version writes it.
    """
    digest = study_digest(study)
    if manifest.get("study_digest") == digest:
        return True
    try:
        return study_digest(Study.model_validate(manifest.get("study"))) == digest
    except (ValidationError, HarnessError):
        return False


def verdict_document(verdicts: tuple[Verdict, ...]) -> dict[str, Any]:
    """What verdict.json holds: the first family's verdict at the top, every family's below.

    `decision` joins the families and `rejected` lists those of all of them.
    """
    families = [_VERDICT.dump_python(verdict, mode="json") for verdict in verdicts]
    first = families[0] if families else {"slo": "", "recommended": None, "summary": ""}
    return {
        "schema_version": SCHEMA_VERSION,
        "slo": first["slo"],
        "decision": overall_decision(verdicts).value,
        "recommended": first["recommended"],
        "summary": first["summary"],
        "rejected": [rejection for family in families for rejection in family["rejected"]],
        "families": families,
    }


def overall_decision(verdicts: tuple[Verdict, ...]) -> Decision:
    """A study fails where one family fails, and passes where all pass."""
    decisions = {verdict.decision for verdict in verdicts}
    if Decision.FAIL in decisions:
        return Decision.FAIL
    return Decision.PASS if decisions == {Decision.PASS} else Decision.UNDECIDED


def new_run_path(root: Path, study: Study) -> Path:
    """A path for a new run: `<root>/<study>-<UTC time>`."""
    return root / f"{study.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _objectives(study: Mapping[str, Any]) -> dict[str, ServiceLevelObjective]:
    """Each family's objective, its own or the study's, of a resolved study."""
    return {
        family["name"]: parse_objective(family.get("objective") or study["objective"], judged=False)
        for family in study.get("families", ())
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise RunFolderError(f"{path} cannot be read: it is not a JSON object")
    return document
