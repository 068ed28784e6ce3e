"""What the search spent: trials and time by stage, and what it did not have to measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from harness.report.numbers import count, number
from harness.report.selection import FamilyResults
from harness.report.tables import Cell, Column, Table, numeric, words
from harness.types import Decision, TrialResult

_DECISIONS = (Decision.PASS, Decision.FAIL, Decision.UNDECIDED, Decision.INVALID)
_MINUTE_S = 60.0


def search_table(family: FamilyResults, *, resumed: bool) -> Table | None:
    """A row a stage and one for all; None where nothing was measured.

    Args:
        family: the family searched.
        resumed: whether the run stopped in between, so that its span says nothing.
    """
    if not family.trials:
        return None
    stages = dict.fromkeys(result.trial.stage for result in family.trials)
    rows = [_row(stage, [r for r in family.trials if r.trial.stage == stage]) for stage in stages]
    if len(rows) > 1:
        rows.append(_row("all", family.trials))
    return Table(
        caption=f"The search for {family.name}",
        columns=(
            Column("Stage", numeric=False),
            Column("Trials"),
            Column("Under load", "s"),
            Column("Ended early", "decided"),
            *(Column(decision.value.capitalize()) for decision in _DECISIONS),
        ),
        rows=tuple(rows),
        note=search_words(family, resumed=resumed),
    )


def search_words(family: FamilyResults, *, resumed: bool) -> str:
    """`38 trials in 1 min 4 s, 21 of them ended early, decided; 9 left out, ...`."""
    trials, early = family.trials, sum(map(ended_early, family.trials))
    words = "1 trial" if len(trials) == 1 else f"{count(len(trials))} trials"
    words += "" if resumed or not trials else f" in {_time(_span_s(trials))}"
    if early:
        words += f", {count(early)} of them ended early, decided"
    pruned = family.verdict.pruned if family.verdict else ()
    if pruned:
        words += f"; {count(len(pruned))} left out, which could not win any more"
    return f"{words}."


def ended_early(result: TrialResult) -> bool:
    """Whether a trial's window was cut short because the objective was decided."""
    decided = result.decision in {Decision.PASS, Decision.FAIL}
    workload = result.trial.workload
    # Sums of slices are off by rounding: half a slice is not early.
    return decided and result.duration_s < 0.99 * workload.duration_s


def _row(stage: str, trials: Sequence[TrialResult]) -> tuple[Cell, ...]:
    load_s = sum(result.warmup_s + result.duration_s for result in trials)
    decisions = Counter(result.decision for result in trials)
    early = sum(map(ended_early, trials))
    return (
        words(stage),
        numeric(count(len(trials)), len(trials)),
        numeric(number(load_s), load_s),
        numeric(count(early), early),
        *(numeric(count(decisions[one]), decisions[one]) for one in _DECISIONS),
    )


def _span_s(trials: Sequence[TrialResult]) -> float:
    """From the first trial's start to the last one's end, the models' loading included."""
    first, last = trials[0], trials[-1]
    between = datetime.fromisoformat(last.started_utc) - datetime.fromisoformat(first.started_utc)
    return between.total_seconds() + last.warmup_s + last.duration_s


def _time(span_s: float) -> str:
    minutes, seconds = divmod(round(span_s), int(_MINUTE_S))
    return f"{count(minutes)} min {seconds} s" if minutes else f"{seconds} s"
