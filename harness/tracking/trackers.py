"""The trackers by name, and whether a run can be sent to them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from enum import StrEnum

from harness.system.libraries import require_extra


class Tracker(StrEnum):
    """A tracker that a run can be sent to."""

    WANDB = "wandb"
    MLFLOW = "mlflow"


SINKS = {
    Tracker.WANDB: "harness.tracking.wandb_sink",
    Tracker.MLFLOW: "harness.tracking.mlflow_sink",
}
"""The module that sends a run to each tracker; it imports the tracker's package."""


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Make sure that a run could be sent to the trackers, before hours of measuring.

    Raises:
        MissingExtraError: a package is not installed.
        UsageError: there is no login.
    """
    for tracker in trackers:
        require_extra(str(tracker), extra="track")
        importlib.import_module(SINKS[tracker]).check()
