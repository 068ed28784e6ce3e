"""What the search, a cold start, and an ensemble's pre- and post-processing cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from harness.report.family_results import FamilyResults
from harness.report.selection import alone_of, latency_split
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types import ColdStart, Decision, ModelVariant, TrialResult
from harness.words.labels import serving_words, workload_words
from harness.words.numbers import (
    MISSING,
    count,
    factor,
    heading,
    metric_value,
    milliseconds,
    number,
    percent,
    seconds,
    signed,
    things,
)


def cold_start_table(family: FamilyResults) -> Table | None:
    """A row per variant; None where no cold start was measured."""
    if not family.cold_starts:
        return None
    return Table(
        caption="Cold start",
        columns=(
            Column("Variant", numeric=False),
            Column("Load", "s"),
            Column("First request", "ms"),
            Column("Steady after", "requests"),
            Column("Steady after", "s from ready"),
            Column("Steady latency", "ms"),
        ),
        rows=tuple(_row(one) for one in family.cold_starts),
        note=_note(family.cold_starts),
    )


def _row(one: ColdStart) -> tuple[Cell, ...]:
    after, times = one.steady_after_requests, None
    if one.steady_ms:
        times = one.first_request_ms / one.steady_ms
    return (
        words(one.variant),
        numeric(seconds(one.load_s), one.load_s),
        numeric(
            milliseconds(one.first_request_ms),
            one.first_request_ms,
            f"{factor(times)} steady" if times else "",
        ),
        numeric(
            count(after), after, "" if after is not None else f"not in {count(one.requests)} sent"
        ),
        numeric(seconds(one.steady_after_s), one.steady_after_s),
        numeric(milliseconds(one.steady_ms), one.steady_ms),
    )


def _note(cold_starts: tuple[ColdStart, ...]) -> str:
    servings = {serving_words(one.serving) for one in cold_starts}
    setting = f" ({servings.pop()})" if len(servings) == 1 else ""
    return (
        f"From the order to load until ready{setting}, then one request at a time on a new "
        f"connection. {MISSING} where no steady state was found. No trial holds any of this."
    )


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
    rows = [
        _search_row(stage, [r for r in family.trials if r.trial.stage == stage]) for stage in stages
    ]
    if len(rows) > 1:
        rows.append(_search_row("all", family.trials))
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
    words = things(len(trials), "trial")
    words += "" if resumed or not trials else f" in {_time(_span_s(trials))}"
    if early:
        words += f", {count(early)} of them ended early, decided"
    pruned = family.verdict.pruned if family.verdict else ()
    if pruned:
        words += f"; {count(len(pruned))} skipped because they could no longer win"
    return f"{words}."


def ended_early(result: TrialResult) -> bool:
    """Whether a trial's window was cut short because the objective was decided."""
    decided = result.decision in {Decision.PASS, Decision.FAIL}
    workload = result.trial.workload
    # Sums of slices are off by rounding: half a slice is not early.
    return decided and result.duration_s < 0.99 * workload.duration_s


def _search_row(stage: str, trials: Sequence[TrialResult]) -> tuple[Cell, ...]:
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
    """Seconds from the first trial's start to the last one's end, loading of models included."""
    first, last = trials[0], trials[-1]
    between = datetime.fromisoformat(last.started_utc) - datetime.fromisoformat(first.started_utc)
    return between.total_seconds() + last.warmup_s + last.duration_s


def _time(span_s: float) -> str:
    minutes, seconds = divmod(round(span_s), int(_MINUTE_S))
    return f"{count(minutes)} min {seconds} s" if minutes else f"{seconds} s"


_NOTE = (
    "Means per request, from Triton's statistics of each composing model over the trial's window. "
    "The part named client, network and ensemble is what no composing model accounts for."
)


def ensemble_table(family: FamilyResults) -> Table | None:
    """One row per part of each measured ensemble; None where none was measured."""
    measured = [result for result in family.ensemble_trials if result.latency]
    if not measured:
        return None
    rows = [row for result in measured for row in _rows(family, result)]
    return Table(
        caption="Pre- and post-processing",
        columns=(
            Column("Part", numeric=False),
            Column("Queue", "ms"),
            Column("Compute", "ms"),
            Column("Mean latency", "ms"),
            Column("Share of it"),
        ),
        rows=tuple(rows),
        note=" ".join((_NOTE, *(f"{_load(one)}." for one in measured))),
    )


def ensemble_quality(family: FamilyResults) -> str:
    """A sentence on what the ensembles answered; empty where none was scored."""
    said = []
    for ensemble in family.ensembles:
        own = [score for score in family.ensemble_scores if score.variant == ensemble.name]
        for score in own[:1]:
            alone = family.score(ensemble.ensemble_of, score.metric)
            beside = metric_value(score.metric, alone.value) if alone else MISSING
            said.append(
                f"{ensemble.ensemble_of} {metric_value(score.metric, score.value)} (alone {beside})"
            )
    if not said:
        return ""
    metric = family.ensemble_scores[0].metric
    return f"{heading(metric)}, text in and label out: {', '.join(said)}."


def part_title(ensemble: ModelVariant, part: str) -> str:
    """A composing model by what it does: `tokenize`, `model`, `label`."""
    return (
        part.removeprefix(f"{ensemble.ensemble_of}-") if part != ensemble.ensemble_of else "model"
    )


def _load(result: TrialResult) -> str:
    return f"{result.trial.variant}: {workload_words(result.trial.workload)}"


def _rows(family: FamilyResults, result: TrialResult) -> Iterator[tuple[Cell, ...]]:
    ensemble = next(one for one in family.ensembles if one.name == result.trial.variant)
    split, latency = latency_split(result), result.latency
    mean_ms = latency.mean_ms if latency else 0.0
    for part in result.server.parts:
        spent_ms = part.accounted_ms
        yield (
            words(part_title(ensemble, part.model), part.model),
            numeric(milliseconds(part.queue_ms), part.queue_ms),
            numeric(milliseconds(part.compute_ms), part.compute_ms),
            numeric(milliseconds(spent_ms), spent_ms),
            numeric(percent(spent_ms / mean_ms), spent_ms / mean_ms),
        )
    if split:
        share = split.client_ms / mean_ms
        yield (
            words("client, network and ensemble"),
            Cell(MISSING),
            Cell(MISSING),
            numeric(milliseconds(split.client_ms), split.client_ms),
            numeric(percent(share), share),
        )
    alone = alone_of(family, result)
    yield _whole_row("whole ensemble", result, _against(result, alone))
    if alone is not None:
        yield _whole_row("model alone, same load", alone, "")


def _whole_row(name: str, result: TrialResult, detail: str) -> tuple[Cell, ...]:
    queue_ms, compute_ms = result.server.queue_ms, result.server.compute_ms
    mean_ms = result.latency.mean_ms if result.latency else None
    return (
        words(name, result.trial.variant),
        numeric(milliseconds(queue_ms), queue_ms),
        numeric(milliseconds(compute_ms), compute_ms),
        numeric(milliseconds(mean_ms), mean_ms, detail),
        Cell("100%", sort=1.0),
    )


def _against(result: TrialResult, alone: TrialResult | None) -> str:
    if alone is None or alone.latency is None or result.latency is None:
        return ""
    own_ms, alone_ms = result.latency.mean_ms, alone.latency.mean_ms
    return f"{signed(own_ms - alone_ms, ' ms')}, {factor(own_ms / alone_ms)} the model alone"
