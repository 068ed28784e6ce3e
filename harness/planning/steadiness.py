"""Which trial follows one whose load was not steady yet when its window opened."""

from __future__ import annotations

import dataclasses

from harness.types import STEADIER_REPEAT, Trial, TrialResult


def after_longer_warm_up(result: TrialResult) -> Trial | None:
    """The same trial with the longer warm-up that its result asks for.

    Once: a load that is not steady after that either is a matter for the person who reads it.

    Returns:
        None where the load was steady, or the trial is the second already.
    """
    trial, longer_s = result.trial, result.steadier_warmup_s
    if longer_s is None or trial.after_longer_warm_up:
        return None
    workload = dataclasses.replace(
        trial.workload,
        min_warmup_s=longer_s,
        warmup_s=max(longer_s, trial.workload.warmup_s),
    )
    return dataclasses.replace(trial, workload=workload, repeat=trial.repeat + STEADIER_REPEAT)
