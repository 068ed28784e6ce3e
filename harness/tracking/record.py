"""What is sent to a tracker about a run."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import EnvironmentFailure, HarnessError
from harness.runs.folder import JOURNAL, MANIFEST, VERDICT, StoredRun, read_run
from harness.runs.tables import quality_table, trials_table
from harness.tracking.trackers import SINKS, Tracker
from harness.types import Decision, TrialResult, Verdict
from harness.types.latency import UNBOUNDED_MS


def track(folder: Path, tracker: Tracker) -> str:
    """Send a run to a tracker; a run that was sent before is replaced, not duplicated.

    Returns:
        Where it can be looked at.

    Raises:
        RunFolderError: the folder holds no run.
        EnvironmentFailure: the tracker failed, in its own words.
    """
    record = record_of(folder)
    try:
        place: str = importlib.import_module(SINKS[tracker]).tell(record, folder)
    except HarnessError:
        raise
    except Exception as error:  # whatever a tracker raises, the measured run is complete
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise EnvironmentFailure(
            f"{folder} was not sent to {tracker}: {lines[0] if lines else repr(error)}",
            next_step="the run is complete; send it again: harness track "
            f"{shlex.quote(str(folder))} --to {tracker}",
        ) from error
    return place


ARTEFACTS = (
    "report.html", "report.md", VERDICT, MANIFEST, JOURNAL,
    "trials.csv", "quality.csv", "cold_starts.csv",
)  # fmt: skip
TRIAL_METRICS = (
    "throughput_inferences_per_s", "throughput_requests_per_s", "latency_mean_ms",
    "latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms",
    "server_queue_ms", "server_compute_ms", "server_batch_mean", "failures",
)  # fmt: skip
"""Columns of the trials' table that are drawn a trial."""
_NOT_IN_A_KEY = re.compile(r"[^\w\-./ ]")


@dataclass(frozen=True)
class RunRecord:
    """One tracked run: a study's."""

    name: str
    """Name of the run folder."""
    study: str
    identity: str
    """An id that is the same each time one run is sent, so that it is sent once."""
    tags: Mapping[str, str]
    """Decision, objective and summary of each family."""
    parameters: Mapping[str, str | int | float | bool]
    """The resolved study, flat: `families.topics.objective`."""
    metrics: Mapping[str, float]
    """Metrics of the whole run: verdicts, recommended trials, quality."""
    trials: pd.DataFrame
    quality: pd.DataFrame
    artefacts: tuple[Path, ...]

    def trial_metrics(self) -> Iterator[dict[str, float]]:
        """The metrics of each trial in the order measured; unknown ones are left out."""
        for row in self.trials.to_dict("records"):
            known = [(name, row.get(name)) for name in TRIAL_METRICS]
            yield {
                f"trial/{name}": float(value)
                for name, value in known
                if value is not None and _is(value)
            }


def record_of(folder: Path) -> RunRecord:
    """Read a run folder, finished or not.

    Raises:
        RunFolderError: the folder holds no run.
    """
    run = read_run(folder)
    study = run.manifest.get("study", {})
    created = str(run.manifest.get("created_utc", ""))
    asked = f"{run.manifest.get('study_digest', '')} {created} {folder.resolve().name}"
    return RunRecord(
        name=folder.resolve().name,
        study=str(study.get("name", "run")),
        identity=hashlib.sha256(asked.encode()).hexdigest()[:16],
        tags=_tags(run),
        parameters=dict(_flat(study)),
        metrics=dict(_metrics(run)),
        trials=trials_table(run.every_trial, run.variants),
        quality=quality_table(run.scores),
        artefacts=tuple(folder / name for name in ARTEFACTS if (folder / name).is_file()),
    )


def _tags(run: StoredRun) -> dict[str, str]:
    tags = {"decision": "not finished" if run.interrupted else str(run.decision)}
    for verdict in run.verdicts:
        tags[f"{verdict.family}.decision"] = str(verdict.decision)
        tags[f"{verdict.family}.objective"] = verdict.slo
        tags[f"{verdict.family}.recommended"] = verdict.recommended or "none"
        tags[f"{verdict.family}.summary"] = verdict.summary
    return tags


def _metrics(run: StoredRun) -> Iterator[tuple[str, float]]:
    trials = {result.trial.trial_id: result for result in run.trials}
    for verdict in run.verdicts:
        yield from _verdict_metrics(verdict, trials)
    for score in run.scores:
        name = key(f"{score.variant}/{score.metric}")
        yield f"quality/{name}", score.value
        # Not below the value's own name: MLflow's stores make a folder of what has something below.
        if score.relative_to_teacher is not None:
            yield f"quality_vs_teacher/{name}", score.relative_to_teacher
    yield "trials", len(run.every_trial)
    yield "trials_invalid", sum(not result.valid for result in run.every_trial)


def _verdict_metrics(
    verdict: Verdict, trials: Mapping[str, TrialResult]
) -> Iterator[tuple[str, float]]:
    if verdict.decision in {Decision.PASS, Decision.FAIL}:
        yield f"{verdict.family}/objective_met", float(verdict.decision is Decision.PASS)
    best = trials.get(verdict.recommended or "")
    if best is None:
        return
    place = f"{verdict.family}/recommended"
    yield f"{place}/throughput_inferences_per_s", best.throughput_inferences_per_s
    for name, percentile in (best.latency.percentiles if best.latency else {}).items():
        if percentile.value_ms < UNBOUNDED_MS:  # else the queue never drained
            yield f"{place}/latency_{name}_ms", percentile.value_ms


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    """Leaves by their dotted path; the members of a list by their name where they have one."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _flat(one, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for number, one in enumerate(value):
            yield from _flat(one, f"{place}.{one.get('name', number)}")
    elif isinstance(value, list):
        yield key(place), ", ".join(map(str, value))
    elif value is not None:
        yield key(place), value


def key(text: str) -> str:
    """A name as every tracker takes it."""
    return _NOT_IN_A_KEY.sub("_", text)


def _is(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
