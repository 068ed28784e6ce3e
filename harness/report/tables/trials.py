"""Every trial, and every rejected candidate with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.metrics import DEFAULT_LATENCY, SHOWN_PERCENTILES, metric_named
from harness.report.family_results import FamilyResults
from harness.report.selection import latency_split, percentile_of, service_differs, service_ms
from harness.report.tables.model import (
    Cell,
    Column,
    Table,
    decision_cell,
    lines,
    numeric,
    trial_anchor,
    words,
)
from harness.types import Rejection, ServerOverhead, TrialResult, Workload
from harness.types.latency import UNBOUNDED_MS
from harness.types.limits import lost_share
from harness.words.labels import (
    PROTOCOLS,
    again_words,
    batch_words,
    cause_title,
    causes,
    is_open,
    load_amount,
    load_parts,
    offered_words,
    throughput_span,
    trial_words,
)
from harness.words.numbers import (
    MISSING,
    confidence,
    count,
    milliseconds,
    number,
    percent,
    seconds,
    span,
)

_FIRST = (Column("Variant", numeric=False), Column("Decision", numeric=False))
_LOAD_AND_SERVING = (
    Column("Protocol", numeric=False),
    Column("Client batch"),
    Column("Load"),
    Column("Max batch"),
    Column("Queue delay", "µs"),
    Column("Instances"),
    Column("Threads"),
)
_LAST = (
    Column("Client", "ms"),
    Column("Queue", "ms"),
    Column("Compute", "ms"),
    Column("Null model", "ms"),
    Column("Mean batch", "executed"),
    Column("Measured", "s"),
    Column("Requests"),
    Column("Failures"),
    Column("From cache"),
    Column("Short of a core", "of the server's time"),
    Column("Generator CPU", "of a core"),
    Column("Loop lag", "p99, ms"),
    Column("Stage", numeric=False),
    Column("Reason", numeric=False),
)
_LATENCIES = (*SHOWN_PERCENTILES, "mean")


def trials_table(
    trials: Sequence[TrialResult],
    overheads: Sequence[ServerOverhead] = (),
    judged: Sequence[str] = (DEFAULT_LATENCY,),
) -> Table:
    """One row per trial, in the order they were measured.

    A latency that reads more than a tenth lower when it is timed from the send has that beside it.

    Args:
        trials: of every family.
        overheads: what the server itself costs a request, by protocol.
        judged: the latencies that the objectives bound, by their metrics' names. They stand in
            front, beside the throughput.
    """
    others = [name for name in _LATENCIES if name not in judged]
    columns = (
        *_FIRST,
        Column("Throughput", "inferences/s"),
        *map(_latency_column, judged),
        *_LOAD_AND_SERVING,
        *map(_latency_column, others),
        *_LAST,
    )
    return Table(
        caption="Every trial",
        columns=columns,
        rows=_once_anchored([_trial_row(one, overheads, judged, others) for one in trials]),
        note=_note(trials, overheads),
        sortable=True,
    )


def _once_anchored(rows: Sequence[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Links lead to the first row of a name, so that no name is there twice."""
    first = {row[0].anchor: place for place, row in reversed(list(enumerate(rows)))}
    return tuple(
        row if first[row[0].anchor] == place else (replace(row[0], anchor=""), *row[1:])
        for place, row in enumerate(rows)
    )


def _note(trials: Sequence[TrialResult], overheads: Sequence[ServerOverhead]) -> str:
    words = "Invalid trials decide nothing; they are shown with the reason."
    levels = sorted({result.latency.confidence for result in trials if result.latency})
    if levels:
        named = " to ".join(dict.fromkeys(confidence(one) for one in (levels[0], levels[-1])))
        words += (
            f" In small type beside throughput and percentiles: intervals at {named} confidence."
        )
    if any(map(service_differs, trials)):
        words += " Sent: timed from the send instead of from when the request fell due."
    if overheads:
        words += (
            " Null model: the median latency of a model with nothing to compute, one request in "
            "flight; where a model's own is not far above it, the server was measured."
        )
    return words


def _latency_column(name: str) -> Column:
    return Column(metric_named(name).title, "ms")


def _trial_row(
    result: TrialResult,
    overheads: Sequence[ServerOverhead],
    judged: Sequence[str],
    others: Sequence[str],
) -> tuple[Cell, ...]:
    trial = result.trial
    serving, workload = trial.serving, trial.workload
    batch = result.server.batch_mean
    rate = result.throughput_inferences_per_s
    lost = lost_share(result.host, result.in_flight_mean)
    return (
        Cell(trial.variant, anchor=trial_anchor(trial.trial_id)),
        decision_cell(result.decision),
        numeric(number(rate), rate, lines(throughput_span(result), _offered(result))),
        *(_latency_cell(result, name) for name in judged),
        words(PROTOCOLS[workload.protocol]),
        numeric(batch_words(workload), workload.client_batch_size),
        _load_cell(workload),
        _told_cell(serving.max_batch_size or None),
        _told_cell(serving.queue_delay_us if serving.max_batch_size else None),
        _told_cell(serving.instance_count or None),
        _told_cell(serving.intra_op_threads or None),
        *(_latency_cell(result, name) for name in others),
        *_split_cells(result),
        _overhead_cell(result, overheads),
        numeric(number(batch), batch),
        numeric(
            seconds(result.duration_s), result.duration_s, f"{seconds(result.warmup_s)} cut before"
        ),
        _count_cell(result.requests),
        _failures_cell(result),
        _cache_cell(result),
        numeric(percent(lost), lost),
        numeric(percent(result.generator_cpu), result.generator_cpu),
        numeric(milliseconds(result.loop_lag_p99_ms), result.loop_lag_p99_ms),
        words(trial.stage + (f" #{trial.repeat}" if trial.repeat else "")),
        words("; ".join(filter(None, [again_words(trial), _reason(result)]))),
    )


def _reason(result: TrialResult) -> str:
    return result.reason if result.valid else result.invalid_reason or result.reason


def _count_cell(value: int) -> Cell:
    return numeric(count(value), value)


def _cache_cell(result: TrialResult) -> Cell:
    """Missing where the server does not tell."""
    hits = result.server.from_cache
    return numeric(MISSING if hits is None else count(hits), hits)


def _told_cell(value: int | None) -> Cell:
    """A dash where an external server does not report it."""
    return numeric(MISSING if value is None else count(value), value)


def _load_cell(workload: Workload) -> Cell:
    amount, kind = load_parts(workload)
    return numeric(amount, load_amount(workload), kind) if amount else words(kind)


def _offered(result: TrialResult) -> str:
    workload = result.trial.workload
    if not is_open(workload):
        return ""
    return f"offered {offered_words(workload, result.offered_requests_per_s)}"


def _failures_cell(result: TrialResult) -> Cell:
    kinds = ", ".join(f"{kind} {count(n)}" for kind, n in result.failures_by_kind.items())
    return numeric(count(result.failures), result.failures, kinds)


def _latency_cell(result: TrialResult, name: str) -> Cell:
    found = percentile_of(result, name)
    if found is None:
        return numeric(milliseconds(None), None)
    known = found.high_ms < UNBOUNDED_MS or found.low_ms > 0
    bounds = span(milliseconds(found.low_ms), milliseconds(found.high_ms)) if known else ""
    from_sent = service_ms(result, name)
    sent = "" if from_sent is None else f"sent {milliseconds(from_sent)}"
    return numeric(milliseconds(found.value_ms), found.value_ms, lines(bounds, sent))


def _split_cells(result: TrialResult) -> tuple[Cell, ...]:
    split = latency_split(result)
    values = (
        split.client_ms if split else None,
        result.server.queue_ms,
        result.server.compute_ms,
    )
    return tuple(numeric(milliseconds(value), value) for value in values)


def _overhead_cell(result: TrialResult, overheads: Sequence[ServerOverhead]) -> Cell:
    """What the server itself costs over the trial's protocol, beside the trial's median."""
    by_protocol = {one.protocol: one for one in overheads}
    own = by_protocol.get(result.trial.workload.protocol)
    if own is None:
        return numeric(MISSING, None)
    median = percentile_of(result, "p50")
    share = f"{percent(own.median_ms / median.value_ms)} of p50" if median else ""
    return numeric(milliseconds(own.median_ms), own.median_ms, share)


@dataclass(frozen=True)
class RejectedGroup:
    """Candidates rejected for one cause."""

    cause: str
    title: str
    table: Table

    @property
    def size(self) -> int:
        """Number of candidates in the group."""
        return len(self.table.rows)


def rejected_groups(family: FamilyResults) -> tuple[RejectedGroup, ...]:
    """A family's rejected and left-out candidates by cause, in the order a reader asks for them."""
    by_cause: dict[str, list[Rejection]] = defaultdict(list)
    verdict = family.verdict
    for rejection in (*verdict.rejected, *verdict.pruned) if verdict else ():
        by_cause[rejection.cause].append(rejection)
    order = list(dict.fromkeys([*causes(), *by_cause]))
    return tuple(
        _rejected_group(family, cause, by_cause[cause]) for cause in order if cause in by_cause
    )


def _rejected_group(
    family: FamilyResults, cause: str, rejections: Sequence[Rejection]
) -> RejectedGroup:
    trials = {result.trial.trial_id: result.trial for result in family.trials}
    rows = []
    for rejection in rejections:
        trial = trials.get(rejection.trial_id or "")
        candidate = trial_words(trial) if trial else rejection.trial_id or "every configuration"
        rows.append((words(rejection.variant), words(candidate), words(rejection.reason)))
    return RejectedGroup(
        cause=cause,
        title=cause_title(cause),
        table=Table(
            caption=f"{family.name}: {cause_title(cause)}",
            columns=(
                Column("Variant", numeric=False),
                Column("Candidate", numeric=False),
                Column("Reason", numeric=False),
            ),
            rows=tuple(rows),
        ),
    )
