"""The open loops that follow the verdicts, measured where the journal lacks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.flow.options import RunSettings
from harness.flow.preparation import PreparedFamily
from harness.flow.trial import TrialRunner
from harness.planning.dialogue import AGAIN_REPEAT
from harness.planning.saturation import SaturationTerms, saturation_trials
from harness.runs.folder import RunFolder
from harness.study import Study, variants_of
from harness.types import AFTER_SEARCH, Progress, ServiceLevelObjective, Trial, Verdict


def measure_saturation(
    study: Study,
    families: Sequence[PreparedFamily],
    verdicts: Sequence[Verdict],
    runner: TrialRunner,
    folder: RunFolder,
    settings: RunSettings,
) -> None:
    """Measure each family's winner and teacher at shares of the throughput that was found.

    One that comes out invalid is measured once more. Every trial is in the journal before the next
    one begins, and a resumed run measures only what is missing. Nothing is decided by them.

    Raises:
        ServerError: the server died.
    """
    for prepared, verdict in zip(families, verdicts, strict=True):
        trials = trials_after(study, prepared, verdict, folder)
        for done, trial in enumerate(trials):
            stage = f"latency over rate of {prepared.family.name}"
            settings.progress(Progress(stage, done, len(trials), trial.trial_id))
            _settle(trial, study.objective_of(prepared.family), runner, settings)


def _settle(
    trial: Trial, slo: ServiceLevelObjective, runner: TrialRunner, settings: RunSettings
) -> None:
    """Measure it, once more where what was measured does not count: the last one is shown.

    It is repeated for being invalid, whatever its latency was, so that no luck is chosen.
    """
    result = runner.settle(trial, slo)
    if result.valid or not result.duration_s:
        return
    settings.warn(f"{trial.trial_id}: {result.invalid_reason}; it is measured once more")
    runner.settle(replace(trial, repeat=AGAIN_REPEAT), slo)


def trials_after(
    study: Study, prepared: PreparedFamily, verdict: Verdict, folder: RunFolder
) -> list[Trial]:
    """The open loops that follow a family's verdict; of variants that are served."""
    traffic = study.traffic_of(prepared.family)
    served = {variant.name for variant in prepared.variants}
    return saturation_trials(
        verdict,
        [
            one
            for one in folder.journal.trials.values()
            if one.trial.variant in served and one.trial.stage not in AFTER_SEARCH
        ],
        variants_of(prepared.family.teacher),
        SaturationTerms(
            shares=traffic.saturation_shares,
            duration_s=traffic.saturation_duration_s or traffic.duration_s,
            max_in_flight=traffic.max_in_flight,
        ),
    )
