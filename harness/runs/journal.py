"""The journal of a run: the truth, one line a finished variant, score, loss, cold start or trial.

A line is appended and fsynced before anything else happens. Tables and verdict are derived from
it and can be written again at any time; a torn last line (the machine died while writing) is
ignored, and cut off when the run goes on. A last line that lacks nothing but its end counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from harness.errors import RunFolderError
from harness.system.storage import storage_errors, utc_now
from harness.types import (
    RESPONSE,
    SCHEDULE_DELAY,
    SERVICE,
    BatchConsistency,
    ColdStart,
    FailedVariant,
    ModelVariant,
    QualityScore,
    ServerOverhead,
    TaskEntry,
    TrialResult,
)
from harness.types.card import CardEntry, ServedEntry
from harness.types.loaded_quality import LoadedQuality
from harness.types.losses import LossEntry, PairedMeasure, Relabelling
from harness.types.roles import StudentRoles

SCHEMA_VERSION = 1
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a line raises that is none of a journal."""


@dataclass(frozen=True)
class QualityEntry:
    """All that was scored of one variant (or of the baseline, which has scores alone)."""

    variant: str
    sha256: str
    scores: tuple[QualityScore, ...]
    consistency: tuple[BatchConsistency, ...] = ()
    pairs: tuple[PairedMeasure, ...] = ()
    """Compared with the teacher, sample by sample, and calibration."""
    relabelling: Relabelling | None = None
    """How its outputs seem to stand for other classes than their names say; None where they do
    not."""
    teacher_sha256: str = ""
    """Digest of the teacher it was compared with: beside another it is scored again."""


Entry = (
    ModelVariant
    | FailedVariant
    | QualityEntry
    | TaskEntry
    | TrialResult
    | ColdStart
    | LossEntry
    | CardEntry
    | ServedEntry
    | ServerOverhead
    | StudentRoles
    | LoadedQuality
)
"""What a line of a journal may hold."""


@dataclass(frozen=True)
class _Kind:
    """How one kind of entry is written, and where and under which name it is found again."""

    name: str
    """Name of the entry in the journal."""
    adapter: TypeAdapter[Any]
    place: str
    """Name of the field of `Journal`."""
    key: Callable[[Any], str]
    upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    """Brings a line's data from an earlier version's form to today's."""


def _variant_of_today(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A variant's data; what an ensemble serves was called `pipeline_of` once."""
    former = "pipeline_of"
    if former not in data:
        return data
    rest = {name: value for name, value in data.items() if name != former}
    return {**rest, "ensemble_of": data[former]}


def _trial_of_today(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's data; until each span had its own summary, two had some of their values."""
    if "latencies" in data:
        return data
    service, delay_ms = data.get("service") or {}, data.get("schedule_delay_p99_ms")
    values_ms = {
        SERVICE: {name.removesuffix("_ms"): value for name, value in service.items()},
        SCHEDULE_DELAY: {} if delay_ms is None else {"p99": delay_ms},
    }
    response = data["latency"]
    return {
        **data,
        "latencies": {} if response is None else {RESPONSE: response},
        "values_ms": {name: values for name, values in values_ms.items() if values},
    }


_KINDS: Mapping[type[Entry], _Kind] = {
    ModelVariant: _Kind(
        "variant",
        TypeAdapter(ModelVariant),
        "variants",
        attrgetter("name"),
        _variant_of_today,
    ),
    FailedVariant: _Kind("failed", TypeAdapter(FailedVariant), "failed", attrgetter("name")),
    QualityEntry: _Kind("quality", TypeAdapter(QualityEntry), "quality", attrgetter("variant")),
    TaskEntry: _Kind("task", TypeAdapter(TaskEntry), "tasks", attrgetter("key")),
    TrialResult: _Kind(
        "trial",
        TypeAdapter(TrialResult),
        "trials",
        attrgetter("trial.trial_id"),
        _trial_of_today,
    ),
    ColdStart: _Kind("cold_start", TypeAdapter(ColdStart), "cold_starts", attrgetter("variant")),
    LossEntry: _Kind("loss", TypeAdapter(LossEntry), "losses", attrgetter("variant")),
    CardEntry: _Kind("card", TypeAdapter(CardEntry), "card", attrgetter("key")),
    ServedEntry: _Kind("served", TypeAdapter(ServedEntry), "served", attrgetter("variant")),
    ServerOverhead: _Kind(
        "overhead", TypeAdapter(ServerOverhead), "overheads", attrgetter("protocol")
    ),
    StudentRoles: _Kind("roles", TypeAdapter(StudentRoles), "roles", attrgetter("family")),
    LoadedQuality: _Kind(
        "loaded_quality", TypeAdapter(LoadedQuality), "loaded", attrgetter("variant")
    ),
}
_BY_NAME = {kind.name: kind for kind in _KINDS.values()}


def _measured_of(entry: Entry) -> tuple[Any, Any]:
    """Variant and SHA-256 of the file that an entry was measured of; None where it names none."""
    named = entry.trial if isinstance(entry, TrialResult) else entry
    return getattr(named, "variant", None), getattr(entry, "sha256", None)


def _is_whole(line: bytes) -> bool:
    """Whether a line can be read."""
    try:
        Journal(Path())._take(json.loads(line))
    except UNREADABLE:
        return False
    return True


@dataclass
class Journal:
    """What a journal holds, by name; a later line of the same name replaces an earlier one.

    Of a variant that was exchanged for another file, only what was measured of the present one is
    here: the lines of the earlier file stay in the journal, unread.
    """

    path: Path
    variants: dict[str, ModelVariant] = field(default_factory=dict)
    failed: dict[str, FailedVariant] = field(default_factory=dict)
    """Left out, and not made since."""
    quality: dict[str, QualityEntry] = field(default_factory=dict)
    tasks: dict[str, TaskEntry] = field(default_factory=dict)
    """Entries by `TaskEntry.key`."""
    trials: dict[str, TrialResult] = field(default_factory=dict)
    cold_starts: dict[str, ColdStart] = field(default_factory=dict)
    losses: dict[str, LossEntry] = field(default_factory=dict)
    loaded: dict[str, LoadedQuality] = field(default_factory=dict)
    """By variant."""
    card: dict[str, CardEntry] = field(default_factory=dict)
    """Entries by variant (or model) and runtime."""
    served: dict[str, ServedEntry] = field(default_factory=dict)
    overheads: dict[str, ServerOverhead] = field(default_factory=dict)
    """The server's own overhead, by protocol."""
    roles: dict[str, StudentRoles] = field(default_factory=dict)
    """By family."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a journal; one that does not exist yet is empty.

        Raises:
            RunFolderError: a line cannot be read, other than an unfinished last one.
        """
        journal = cls(path)
        lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                journal._take(json.loads(line))
            except UNREADABLE as error:
                if number == len(lines):
                    break  # no line end: torn by a crash; that result is measured again
                raise RunFolderError(
                    f"{path}, line {number}: not a journal line of schema {SCHEMA_VERSION}",
                    next_step="the journal was edited or is of another version: start a new run",
                ) from error
        return journal

    def add(self, entry: Entry) -> None:
        """Record what is finished; returns once it is on the disk.

        Raises:
            StorageError: it cannot be written.
        """
        kind = _KINDS[type(entry)]
        self._put(kind, entry)
        self._append(kind.name, kind.adapter.dump_python(entry, mode="json"))

    def cut_torn_line(self) -> None:
        """End the last line or drop it, so that the next append starts on its own line.

        Dropped is what cannot be read, and is measured again. What was read is in use already.
        """
        if not self.path.is_file():
            return
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end == len(data):
            return
        with storage_errors(self.path), self.path.open("r+b") as journal:
            if _is_whole(data[end:]):
                journal.seek(len(data))
                journal.write(b"\n")
            else:
                journal.truncate(end)

    def _take(self, line: Mapping[str, Any]) -> None:
        """A line; one of a kind that a later version may know is left alone."""
        if kind := _BY_NAME.get(line["kind"]):
            self._put(kind, kind.adapter.validate_python(kind.upgrade(line["data"])))

    def _put(self, kind: _Kind, entry: Entry) -> None:
        if isinstance(entry, ModelVariant):
            self.failed.pop(entry.name, None)
            known = self.variants.get(entry.name)
            if known is not None and known.sha256 != entry.sha256:
                self._forget(known)
        getattr(self, kind.place)[kind.key(entry)] = entry

    def _forget(self, exchanged: ModelVariant) -> None:
        """Leave out what was measured of a file in whose place another is served now."""
        of_it = exchanged.name, exchanged.sha256
        for kind in _KINDS.values():
            entries = getattr(self, kind.place)
            for key in [key for key, one in entries.items() if _measured_of(one) == of_it]:
                del entries[key]

    def _append(self, kind: str, data: Mapping[str, Any]) -> None:
        # NaN and infinity are no JSON: a measurement that holds one is a bug to be seen at once.
        line = json.dumps({"kind": kind, "utc": utc_now(), "data": data}, allow_nan=False)
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as journal:
            journal.write(line + "\n")
            journal.flush()
            os.fsync(journal.fileno())
