"""What the command line prints of a run: verdict, scores, cold starts, card; fits 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.card import CardEntry, Runtime
from harness.losses import LossChain
from harness.report.card_values import FamilyCard, cards_of
from harness.report.findings import Finding, finding_of
from harness.report.labels import (
    PROTOCOLS,
    metric_title,
    metric_value,
    relative_value,
)
from harness.report.load_words import load_label
from harness.report.loss_words import lost, lost_span, measure_words
from harness.report.numbers import (
    MISSING,
    count,
    factor,
    megabytes,
    millions,
    milliseconds,
    number,
    p_value,
    seconds,
    span,
)
from harness.report.search_table import search_words
from harness.report.selection import (
    FamilyResults,
    best_of_variant,
    families_of,
    percentile_of,
    reference_score,
)
from harness.report.tables import decision_cell
from harness.runs import StoredRun
from harness.types import Decision, QualityScore, Rejection, Role, TrialResult

_WIDEST_NAME = 30
_PAIRS = {
    "right_to_wrong": "right→wrong",
    "wrong_to_right": "wrong→right",
    "agreement": "agrees",
    "cohen_kappa": "kappa",
    "kl_mean_nats": "KL mean",
    "ece": "ECE",
    "temperature": "temp.",
    "log_likelihood_change_nats": "ll nats",
    "greedy_agreement": "same token",
}
_MAKING = {
    "distillation": "distillation",
    "training": "training",
    "export": "export",
    "quantisation": "int8",
    "half precision": "fp16",
    "export+quantisation": "export+int8",
    "export+half precision": "export+fp16",
    "serving": "serving",
    "batching": "batching",
}
"""Steps of a chain in the order of the making, as short as a terminal wants them."""
_TONES = {"pass": "green", "fail": "red", "undecided": "yellow", "invalid": "dim"}


def verdict_table(run: StoredRun) -> Table:
    """A row a variant: quality, best trial, its latency and throughput, decision and why."""
    families = families_of(run)
    percentiles = "/".join(dict.fromkeys(family.percentile for family in families))
    names = [name for family in families for name in family.names]
    width = min(_WIDEST_NAME, max(map(len, names), default=0))
    table = _table()
    table.add_column("Variant", min_width=width, max_width=_WIDEST_NAME, overflow="fold")
    table.add_column("Quality", justify="right", no_wrap=True)
    table.add_column("vs teacher", justify="right", no_wrap=True)
    table.add_column("Best trial", no_wrap=True)
    table.add_column("Inf/s", justify="right", no_wrap=True)
    table.add_column(f"{percentiles or 'p95'} ms", justify="right", no_wrap=True)
    table.add_column("Decision")
    for family in families:
        for name in family.names:
            table.add_row(*_verdict_row(family, name), end_section=name == family.names[-1])
    return table


def verdict_summary(run: StoredRun) -> RenderableType:
    """Every family's verdict in words, the recommended trial and the next step."""
    blocks: list[RenderableType] = []
    for family in families_of(run):
        resumed = bool(run.manifest.get("resumed_utc"))
        blocks += _summary(finding_of(family), family, search_words(family, resumed=resumed))
    return Group(*blocks)


def quality_table(run: StoredRun) -> Table:
    """A row a variant and metric, beside the teacher's."""
    table = _table()
    for title in ("Variant", "Metric"):
        table.add_column(title, no_wrap=True)
    for title in ("Value", "95% interval", "vs teacher", "95% interval", "McNemar p", "Samples"):
        table.add_column(title, justify="right", no_wrap=True)
    for family in families_of(run):
        scores = (*family.scores, *family.pipeline_scores)
        for score in scores:
            last = score is scores[-1]
            table.add_row(*_score_row(family, score), end_section=last)
    return table


def cold_start_table(run: StoredRun) -> Table:
    """A row a variant: loading, the first request, and the way to a steady latency."""
    table = _table()
    table.add_column("Variant", no_wrap=True)
    for title in ("Load s", "First ms", "Steady after", "s from ready", "Steady ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for family in families_of(run):
        for one in family.cold_starts:
            requests = one.steady_after_requests
            cells = (
                one.variant,
                seconds(one.load_s),
                milliseconds(one.first_request_ms),
                f"{count(requests)} requests" if requests is not None else MISSING,
                seconds(one.steady_after_s),
                milliseconds(one.steady_ms),
            )
            table.add_row(*map(Text, cells), end_section=one is family.cold_starts[-1])
    return table


def pairs_table(run: StoredRun) -> Table:
    """A row a variant: flips, agreement and divergence beside the teacher, and calibration."""
    families = families_of(run)
    measures = [name for name in _PAIRS if any(p.measure == name for p in run.pairs)]
    table = _table()
    table.add_column("Variant", no_wrap=True)
    for name in measures:
        table.add_column(_PAIRS[name], justify="right", no_wrap=True)
    for family in families:
        known = {(one.variant, one.measure): one for one in family.pairs}
        own = [name for name in family.names if any((name, m) in known for m in measures)]
        for name in own:
            found = [known.get((name, measure)) for measure in measures]
            cells = [measure_words(m.measure, m.value) if m else MISSING for m in found]
            table.add_row(Text(name), *map(Text, cells), end_section=name == own[-1])
    return table


def losses_table(run: StoredRun) -> Table:
    """A row a variant: what each step of its making lost, in points or bits per byte."""
    chains = [(entry.variant, entry.chain) for entry in run.losses if entry.chain]
    steps = list(dict.fromkeys(s for _, c in chains for s in _MAKING if s in _steps_of(c)))
    steps.sort(key=list(_MAKING).index)
    table = _table()
    table.add_column("Lost by", no_wrap=True)
    for step in steps:
        table.add_column(_MAKING[step], justify="right", no_wrap=True)
    table.add_column("in all", justify="right", no_wrap=True)
    for variant, chain in chains:
        own = {link.step: lost(chain.metric, link.loss.value) for link in chain.links}
        unit = "points" if chain.metric == "accuracy" else "bits/byte"
        total = f"{lost(chain.metric, chain.total.value)} {unit}"
        cells = (*(own.get(step, MISSING) for step in steps), total)
        name = Text(variant).append(f"\n{_interval_note(chain)}", style="dim")
        table.add_row(name, *map(Text, cells))
    return table


def _steps_of(chain: LossChain) -> set[str]:
    return {link.step for link in chain.links}


def _interval_note(chain: LossChain) -> str:
    span_words = lost_span(chain.metric, chain.total)
    return f"95%: {span_words}" if span_words else ""


def card_table(run: StoredRun) -> Table:
    """A row a model and runtime, in process: what it takes, how fast it is, beside the teacher."""
    table = _table()
    table.add_column("In process", no_wrap=True)
    titles = ("M", "MB", "Mem MB", "Quality", "p50 ms", "p95", "p99", "vs t.", "b1/s", "max/s")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for card in cards_of(run):
        for entry in card.entries:
            table.add_row(*_card_row(card, entry), end_section=entry is card.entries[-1])
    return table


def _card_row(card: FamilyCard, entry: CardEntry) -> tuple[Text, ...]:
    smallest, largest = (entry.rate(size) for size in (card.batch_sizes[0], card.batch_sizes[-1]))
    p50 = card.row(entry.name, entry.runtime, "latency_p50", 1)
    metric = next(iter(card.family.metrics), "")
    quality = card.row(entry.name, entry.runtime, metric)
    name = Text(entry.name)
    if entry.runtime is Runtime.PYTORCH:
        name.append(" torch", style="dim")
    cells = (
        millions(entry.parameters),
        megabytes(entry.size_bytes),
        megabytes(round(entry.cold.memory_bytes.value)),
        metric_value(metric, quality.value) if quality else MISSING,
        *(number(entry.latency.percentiles[name].value_ms) for name in ("p50", "p95", "p99")),
        factor(p50.ratio if p50 else None),
        number(smallest.per_s.value if smallest else None),
        number(largest.per_s.value if largest else None),
    )
    return (name, *map(Text, cells))


def _table() -> Table:
    return Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))


def _summary(finding: Finding, family: FamilyResults, search: str) -> list[Text]:
    style = f"bold {_TONES[finding.sign.tone]}"
    head = Text(f"{finding.sign.symbol} {finding.sign.word}", style=style)
    head.append(f"  {finding.family}: {finding.objective}", style="bold default")
    lines = [head, Text(f"  {finding.summary}")]
    if family.recommended:
        lines.append(Text(f"  trial {family.recommended.trial.trial_id}", style="dim"))
    if family.trials:
        lines.append(Text(f"  search: {search}", style="dim"))
    if finding.next_step:
        lines.append(Text(f"  next: {finding.next_step}"))
    return lines


def _verdict_row(family: FamilyResults, name: str) -> tuple[Text, ...]:
    best = best_of_variant(family, name)
    return (
        _name(family, name),
        *_quality(family, name),
        _configuration(best),
        Text(number(best.throughput_inferences_per_s) if best else MISSING),
        _latency(family, best),
        _decision(family, name, best),
    )


def _name(family: FamilyResults, name: str) -> Text:
    cell = Text(name, style="bold" if _is_recommended(family, name) else "")
    return cell.append(f"\n{family.role(name)}", style="dim")


def _is_recommended(family: FamilyResults, name: str) -> bool:
    return family.recommended is not None and family.recommended.trial.variant == name


def _quality(family: FamilyResults, name: str) -> tuple[Text, Text]:
    metric = next(iter(family.metrics), None)
    score = family.score(name, metric) if metric else None
    if metric is None or score is None:
        return Text(MISSING), Text(MISSING)
    value = Text(metric_value(metric, score.value))
    value.append(f"\n{metric_title(metric)}", style="dim")
    if score is reference_score(family, metric):
        return value, Text(MISSING)
    relative, interval = _relative(score)
    return value, Text(relative).append(f"\n{interval}", style="dim")


def _relative(score: QualityScore) -> tuple[str, str]:
    """A score over the teacher's, and its interval."""
    low = relative_value(score.metric, score.relative_low)
    high = relative_value(score.metric, score.relative_high)
    return relative_value(score.metric, score.relative_to_teacher), span(low, high)


def _configuration(best: TrialResult | None) -> Text:
    if best is None:
        return Text(MISSING)
    workload, serving = best.trial.workload, best.trial.serving
    text = Text(
        f"{PROTOCOLS[workload.protocol]} b{workload.client_batch_size} {load_label(workload)}"
    )
    return text.append(f"\n{serving.label}", style="dim")


def _latency(family: FamilyResults, best: TrialResult | None) -> Text:
    found = percentile_of(best, family.percentile) if best else None
    if found is None:
        return Text(MISSING)
    interval = span(milliseconds(found.low_ms), milliseconds(found.high_ms))
    return Text(milliseconds(found.value_ms)).append(f"\n{interval}", style="dim")


def _decision(family: FamilyResults, name: str, best: TrialResult | None) -> Text:
    if family.role(name) in {Role.CONTROL, Role.BASELINE}:
        return Text(f"{MISSING} yardstick", style="dim")
    if _is_recommended(family, name):
        return Text("✓ Recommended", style="bold green")
    own = [r for r in (family.verdict.rejected if family.verdict else ()) if r.variant == name]
    if any(rejection.cause == "quality" for rejection in own):
        return _sign(Decision.FAIL, "quality")
    if best is None:
        return Text(f"{MISSING} {'no valid trial' if family.trials_of(name) else 'not measured'}")
    return _sign(best.decision, _cause(best, own))


def _cause(best: TrialResult, rejections: Sequence[Rejection]) -> str:
    """The recorded cause against a variant's best trial."""
    trial_id = best.trial.trial_id
    return next((r.cause for r in rejections if r.trial_id == trial_id), "")


def _sign(decision: Decision, cause: str) -> Text:
    cell = decision_cell(decision)
    text = Text(f"{cell.symbol} {cell.text}", style=_TONES[cell.tone])
    return text.append(f"\n{cause}", style="dim") if cause else text


def _score_row(family: FamilyResults, score: QualityScore) -> tuple[Text, ...]:
    low, high = metric_value(score.metric, score.low), metric_value(score.metric, score.high)
    relative, interval = _relative(score)
    if score is reference_score(family, score.metric):
        relative, interval = "reference", ""
    cells = (
        score.variant,
        metric_title(score.metric),
        metric_value(score.metric, score.value),
        span(low, high),
        relative,
        interval,
        p_value(score.p_value),
        count(score.samples),
    )
    return tuple(Text(cell) for cell in cells)
