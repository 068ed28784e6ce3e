"""The journal of a run: the truth, one line a finished variant, score, loss, cold start or trial.

A line is appended and fsynced before anything else happens. Tables and verdict are derived from
it and can be written again at any time; a torn last line (the machine died while writing) is
ignored, and cut off when the run goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from harness.card import CardEntry, ServedEntry
from harness.errors import RunFolderError
from harness.losses import LossEntry, PairedMeasure
from harness.storage import storage_errors, utc_now
from harness.types import BatchConsistency, ColdStart, ModelVariant, QualityScore, TrialResult

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class QualityEntry:
    """All that was scored of one variant (or of the baseline, which has scores alone)."""

    variant: str
    sha256: str
    scores: tuple[QualityScore, ...]
    consistency: tuple[BatchConsistency, ...] = ()
    pairs: tuple[PairedMeasure, ...] = ()
    """Beside the teacher, sample by sample, and calibration."""


@dataclass(frozen=True)
class TaskEntry:
    """One lm-eval task (or group of tasks) as one variant answered it."""

    variant: str
    sha256: str
    task: str
    """As it was asked for."""
    digest: str
    """SHA-256 of every request it made."""
    scores: tuple[QualityScore, ...]
    requests: int
    unanswered: int
    truncated: int
    """Requests whose context was cut from the left to the model's length."""
    windowed: int
    """Texts that took more than one window."""

    @property
    def key(self) -> str:
        """What a later entry of the same name replaces."""
        return f"{self.variant}/{self.task}"


_TASK = TypeAdapter(TaskEntry)
_VARIANT = TypeAdapter(ModelVariant)
_QUALITY = TypeAdapter(QualityEntry)
_TRIAL = TypeAdapter(TrialResult)
_COLD_START = TypeAdapter(ColdStart)
_LOSS = TypeAdapter(LossEntry)
_CARD = TypeAdapter(CardEntry)
_SERVED = TypeAdapter(ServedEntry)


@dataclass
class Journal:
    """What a journal holds, by name; a later line of the same name replaces an earlier one."""

    path: Path
    variants: dict[str, ModelVariant] = field(default_factory=dict)
    quality: dict[str, QualityEntry] = field(default_factory=dict)
    tasks: dict[str, TaskEntry] = field(default_factory=dict)
    """By `TaskEntry.key`."""
    trials: dict[str, TrialResult] = field(default_factory=dict)
    cold_starts: dict[str, ColdStart] = field(default_factory=dict)
    losses: dict[str, LossEntry] = field(default_factory=dict)
    card: dict[str, CardEntry] = field(default_factory=dict)
    """By variant (or model) and runtime."""
    served: dict[str, ServedEntry] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a journal; one that does not exist yet is empty.

        Raises:
            RunFolderError: a line other than the last cannot be read.
        """
        journal = cls(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                journal._take(json.loads(line))
            except (json.JSONDecodeError, KeyError, ValidationError) as error:
                if number == len(lines):
                    break  # torn by a crash; that result is measured again
                raise RunFolderError(
                    f"{path}, line {number}: not a journal line of schema {SCHEMA_VERSION}",
                    next_step="the journal was edited or is of another version: start a new run",
                ) from error
        return journal

    def add_variant(self, variant: ModelVariant) -> None:
        """Record an exported artefact."""
        self.variants[variant.name] = variant
        self._append("variant", _VARIANT.dump_python(variant, mode="json"))

    def add_quality(self, entry: QualityEntry) -> None:
        """Record a finished score."""
        self.quality[entry.variant] = entry
        self._append("quality", _QUALITY.dump_python(entry, mode="json"))

    def add_task(self, entry: TaskEntry) -> None:
        """Record a finished lm-eval task."""
        self.tasks[entry.key] = entry
        self._append("task", _TASK.dump_python(entry, mode="json"))

    def add_trial(self, result: TrialResult) -> None:
        """Record a finished trial."""
        self.trials[result.trial.trial_id] = result
        self._append("trial", _TRIAL.dump_python(result, mode="json"))

    def add_cold_start(self, cold_start: ColdStart) -> None:
        """Record a variant's cold start."""
        self.cold_starts[cold_start.variant] = cold_start
        self._append("cold_start", _COLD_START.dump_python(cold_start, mode="json"))

    def add_loss(self, entry: LossEntry) -> None:
        """Record where a variant's quality was lost."""
        self.losses[entry.variant] = entry
        self._append("loss", _LOSS.dump_python(entry, mode="json"))

    def add_card(self, entry: CardEntry) -> None:
        """Record a model's measurements in process."""
        self.card[entry.key] = entry
        self._append("card", _CARD.dump_python(entry, mode="json"))

    def add_served(self, entry: ServedEntry) -> None:
        """Record a variant's card measurements through the server."""
        self.served[entry.variant] = entry
        self._append("served", _SERVED.dump_python(entry, mode="json"))

    def cut_torn_line(self) -> None:
        """Drop an unfinished last line, so that the next append starts on a line of its own."""
        if not self.path.is_file():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with storage_errors(self.path):
                self.path.write_bytes(whole)

    def _take(self, line: Mapping[str, Any]) -> None:
        data = line["data"]
        match line["kind"]:
            case "variant":
                variant = _VARIANT.validate_python(data)
                self.variants[variant.name] = variant
            case "quality":
                entry = _QUALITY.validate_python(data)
                self.quality[entry.variant] = entry
            case "task":
                task = _TASK.validate_python(data)
                self.tasks[task.key] = task
            case "trial":
                result = _TRIAL.validate_python(data)
                self.trials[result.trial.trial_id] = result
            case "cold_start":
                cold_start = _COLD_START.validate_python(data)
                self.cold_starts[cold_start.variant] = cold_start
            case "loss":
                loss = _LOSS.validate_python(data)
                self.losses[loss.variant] = loss
            case "card":
                card = _CARD.validate_python(data)
                self.card[card.key] = card
            case "served":
                served = _SERVED.validate_python(data)
                self.served[served.variant] = served

    def _append(self, kind: str, data: Mapping[str, Any]) -> None:
        # NaN and infinity are no JSON: a measurement that holds one is a bug to be seen at once.
        line = json.dumps({"kind": kind, "utc": utc_now(), "data": data}, allow_nan=False)
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as journal:
            journal.write(line + "\n")
            journal.flush()
            os.fsync(journal.fileno())
