"""The trackers by name: checked before a run starts, told after its folder is complete."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from harness.errors import EnvironmentFailure, HarnessError
from harness.system.extras import require_extra
from harness.tracking.record import record_of


class Tracker(StrEnum):
    """Where a run can be told."""

    WANDB = "wandb"
    MLFLOW = "mlflow"


_SINKS = {
    Tracker.WANDB: "harness.tracking.wandb_sink",
    Tracker.MLFLOW: "harness.tracking.mlflow_sink",
}


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Make sure that they could be told, before hours of measuring.

    Raises:
        MissingExtraError: a package is not installed.
        UsageError: nobody is logged in.
    """
    for tracker in trackers:
        require_extra(str(tracker), extra="track")
        importlib.import_module(_SINKS[tracker]).check()


def track(folder: Path, tracker: Tracker) -> str:
    """Tell a tracker of a run; a run that was told before is told anew, not twice.

    Returns:
        Where it can be looked at.

    Raises:
        RunFolderError: the folder holds no run.
        EnvironmentFailure: the tracker failed, in its own words.
    """
    record = record_of(folder)
    try:
        place: str = importlib.import_module(_SINKS[tracker]).tell(record, folder)
    except HarnessError:
        raise
    except Exception as error:  # whatever a tracker raises, the measured run is complete
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise EnvironmentFailure(
            f"{tracker} was not told of {folder}: {lines[0] if lines else repr(error)}",
            next_step=f"the run is complete; tell it again: harness track {folder} --to {tracker}",
        ) from error
    return place
