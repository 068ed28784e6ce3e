"""The tests of one session of Locust: for the page's table and downloads, and as a run folder.

pandas takes a second to import, so it is where it is used: workers have no need of it.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.flow.manifest import bare_manifest, command_line
from harness.runs.folder import RunFolder, read_run
from harness.types import TrialResult
from harness_locust.conductor import Conductor, Watcher
from harness_locust.serving_document import summary_rows, test_document
from harness_locust.serving_watch import ServingWatch, Watched, load_of

logger = logging.getLogger("harness")


class SessionLog(Watcher):
    """Keeps what is over, as it was shown; its histograms go to the run folder.

    Args:
        conductor: whose tests these are.
        watch: has judged a test before this hears of its end: it was made first.
        folder: a run folder that is open, or None.
    """

    def __init__(self, conductor: Conductor, watch: ServingWatch, folder: RunFolder | None) -> None:
        self._conductor, self._watch, self._folder = conductor, watch, folder
        self.documents: dict[int, dict[str, Any]] = {}
        """The document of each test, by its number."""
        self.rows: list[dict[str, Any]] = []
        self._trials: list[TrialResult] = []
        self._series: list[dict[str, Any]] = []
        self.problem = ""
        """Why the run folder is not complete; empty where it is."""
        conductor.watchers.append(self)
        import_module("harness.runs.tables")  # now, and not in the middle of a test

    @property
    def folder(self) -> Path | None:
        """Where the session is written."""
        return self._folder.path if self._folder is not None else None

    def test_ended(self) -> None:
        """Keep what it has shown."""
        watched = self._watch.current
        if watched is None or watched.ended_s is None or watched.number in self.documents:
            return
        self.documents[watched.number] = test_document(watched, watched.ended_s)
        self.rows += summary_rows(watched)
        trials = [one.result for one in watched.verdicts.values()]
        self._trials += trials
        self._series += _series_rows(watched)
        if self._folder is not None and trials:
            self._write(self._folder, watched, trials)

    def trials_csv(self) -> str:
        """One row per trial of every test that is over, in the columns of a run's trials.csv."""
        from harness.runs.tables import trials_table

        return str(trials_table(self._trials, ()).to_csv(index=False))

    def series_csv(self) -> str:
        """One row per second (more for a long test) of every test that is over."""
        import pandas as pd

        return str(pd.DataFrame(self._series).to_csv(index=False))

    def _write(self, folder: RunFolder, watched: Watched, trials: list[TrialResult]) -> None:
        from harness.flow.results import write_load
        from harness.runs.tables import write_tables

        try:
            phases = {one.name: one for one in watched.results.phases(watched.ended_s or 0.0)}
            for name, result in zip(watched.verdicts, trials, strict=True):
                phase = phases[name]
                load = load_of(watched, phase, phase.start_s + phase.duration_s)
                histogram = write_load(folder, result.trial, load)
                folder.journal.add(replace(result, histogram_file=histogram))
            write_tables(read_run(folder.path), folder.path)
            logger.info("the test is in the run folder %s", folder.path)
        except HarnessError as error:
            self.problem = f"the run folder lacks test {watched.number}: {error}"
            logger.error("%s", self.problem)
            self._conductor.environment.process_exit_code = error.exit_code


def open_run_folder(out: str) -> RunFolder | None:
    """A new run folder for the session, open until this process ends; None where none is asked for.

    Raises:
        HarnessError: the folder holds something already, or cannot be written.
    """
    if not out:
        return None
    manifest = bare_manifest("locust", 0)
    told = command_line(sys.argv[1:]).removeprefix("harness ")
    command = {"command": f"{shlex.quote('locust')} {told}"}
    folder = RunFolder.create(Path(out), manifest | command)
    return folder.__enter__()


def _series_rows(watched: Watched) -> Iterator[dict[str, Any]]:
    for one in watched.results.history.points(watched.ended_s or 0.0):
        row = asdict(one)
        failures, stream = row.pop("failures"), row.pop("stream") or {}
        spans_ms = stream.pop("spans_ms", {})
        yield {
            "test": watched.results.test,
            "variant": watched.plan.model,
            "phase": watched.results.phase_at(one.start_s),
            **row,
            "failed": sum(failures.values()),
            **stream,
            **{
                f"{span}_{name}_ms": value_ms
                for span, values in spans_ms.items()
                for name, value_ms in values.items()
            },
        }
