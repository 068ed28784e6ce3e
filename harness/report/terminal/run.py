"""What commands print of a run: verdict, a line per variant, quality, losses, report card."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.metrics import SHOWN_PERCENTILES
from harness.report.card.values import FamilyCard, cards_of
from harness.report.cautions import warnings_of
from harness.report.family_results import FamilyResults, families_of, reference_score
from harness.report.findings import Finding, finding_of
from harness.report.selection import best_of_variant, percentile_of, standing
from harness.report.tables.costs import search_words
from harness.report.tables.model import decision_cell
from harness.runs.folder import StoredRun
from harness.types import Decision, FailedVariant, QualityScore, Role, TrialResult
from harness.types.card import CardEntry, Runtime
from harness.types.losses import LossChain
from harness.words.labels import (
    PROTOCOLS,
    batch_words,
    load_label,
    lost,
    lost_span,
    measure_words,
    unit_of,
)
from harness.words.numbers import (
    MISSING,
    count,
    factor,
    megabytes,
    metric_title,
    metric_value,
    millions,
    milliseconds,
    number,
    p_value,
    relative_value,
    seconds,
    span,
    things,
)


def plain_table(title: str) -> Table:
    """A table without ruled lines, under its title, which is as it stands: no markup."""
    return Table(
        title=Text(title, style="dim"),
        title_justify="left",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def relative_words(score: QualityScore) -> tuple[str, str]:
    """A score over the teacher's, and its interval."""
    low = relative_value(score.metric, score.relative_low)
    high = relative_value(score.metric, score.relative_high)
    return relative_value(score.metric, score.relative_to_teacher), span(low, high)


_WIDEST_NAME = 26
_TONES = {"pass": "green", "fail": "red", "undecided": "yellow", "invalid": "dim"}


def verdict_table(run: StoredRun) -> Table:
    """One line per variant: quality, best trial, its throughput and latency, decision."""
    families = families_of(run)
    names = [name for family in families for name in family.names]
    width = min(_WIDEST_NAME, max(map(len, names), default=0))
    table = plain_table("Every variant at its best trial; intervals stand beside the values")
    table.add_column("Variant", min_width=width, max_width=_WIDEST_NAME, overflow="fold")
    table.add_column("Quality", justify="right", no_wrap=True)
    table.add_column("vs teacher", no_wrap=True)
    table.add_column("Load", no_wrap=True)
    table.add_column("Inf/s", justify="right", no_wrap=True)
    judged = list(dict.fromkeys(family.latency_title for family in families))
    table.add_column(f"{judged[0]} ms" if len(judged) == 1 else "Latency ms")
    table.add_column("Decision", no_wrap=True)
    for family in families:
        for name in family.names:
            table.add_row(*_verdict_row(family, name, named=len(judged) > 1))
        for one in _never_made(family):
            table.add_row(Text(one.name), *(Text(MISSING) for _ in range(5)), _left_out(one))
    return table


def _never_made(family: FamilyResults) -> list[FailedVariant]:
    """Variants of which there is nothing else to show."""
    return [one for one in family.failed if one.name not in family.names]


def _left_out(failed: FailedVariant) -> Text:
    return Text("✕ Left out", style=_TONES["fail"]).append(f" ({failed.cause})", style="dim")


def verdict_summary(run: StoredRun) -> RenderableType:
    """Every family's verdict in words, the recommended trial and the next step."""
    blocks: list[RenderableType] = []
    for family in families_of(run):
        resumed = bool(run.manifest.get("resumed_utc"))
        blocks += _summary(finding_of(family), family, search_words(family, resumed=resumed))
    return Group(*blocks)


def cold_start_table(run: StoredRun) -> Table:
    """A row per variant: loading, the first request, and the way to a steady latency."""
    table = plain_table("From cold to steady")
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
                things(requests, "request") if requests is not None else MISSING,
                seconds(one.steady_after_s),
                milliseconds(one.steady_ms),
            )
            table.add_row(*map(Text, cells), end_section=one is family.cold_starts[-1])
    return table


def _summary(finding: Finding, family: FamilyResults, search: str) -> list[RenderableType]:
    style = f"bold {_TONES[finding.sign.tone]}"
    head = Text(f"{finding.sign.symbol} {finding.sign.word}", style=style)
    head.append(f"  {finding.family}: {finding.objective}", style="bold default")
    lines = [Text(finding.summary)]
    if family.recommended:
        lines.append(Text(f"trial {family.recommended.trial.trial_id}", style="dim"))
    if family.trials:
        lines.append(Text(f"search: {search}", style="dim"))
    if finding.next_step:
        lines.append(Text(f"next: {finding.next_step}"))
    lines += [Text(f"warning: {one}", style="yellow") for one in finding.warnings]
    return [head, *(Padding(line, (0, 0, 0, 2)) for line in lines)]


def _verdict_row(family: FamilyResults, name: str, *, named: bool) -> tuple[Text, ...]:
    best = best_of_variant(family, name)
    return (
        Text(name, style="bold" if _is_recommended(family, name) else ""),
        *_quality(family, name),
        _load(best),
        Text(number(best.throughput_inferences_per_s) if best else MISSING),
        _latency(family, best, named=named),
        _decision(family, name, best),
    )


def _is_recommended(family: FamilyResults, name: str) -> bool:
    return family.recommended is not None and family.recommended.trial.variant == name


def _quality(family: FamilyResults, name: str) -> tuple[Text, Text]:
    metric = next(iter(family.metrics), None)
    score = family.score(name, metric) if metric else None
    if metric is None or score is None:
        return Text(MISSING), Text(MISSING)
    value = Text(metric_value(metric, score.value))
    if score is reference_score(family, metric):
        return value, Text(MISSING)
    return value, _with_interval(*relative_words(score))


def _load(best: TrialResult | None) -> Text:
    """Protocol, client batch size and load of a trial: `gRPC b16 c45`."""
    if best is None:
        return Text(MISSING)
    workload = best.trial.workload
    return Text(f"{PROTOCOLS[workload.protocol]} b{batch_words(workload)} {load_label(workload)}")


def _latency(family: FamilyResults, best: TrialResult | None, *, named: bool) -> Text:
    """The judged latency with its interval, and its name where the families differ in it."""
    found = percentile_of(best, family.percentile) if best else None
    if found is None:
        return Text(MISSING)
    interval = span(milliseconds(found.low_ms), milliseconds(found.high_ms))
    name = f"{family.latency_title} " if named else ""
    return _with_interval(f"{name}{milliseconds(found.value_ms)}", interval)


def _with_interval(value: str, interval: str) -> Text:
    return Text(value).append(f" {interval}" if interval else "", style="dim")


def _decision(family: FamilyResults, name: str, best: TrialResult | None) -> Text:
    for one in family.failed:
        if one.name == name:
            return _left_out(one)
    role = family.role(name)
    if role in {Role.CONTROL, Role.BASELINE}:
        return Text(f"{MISSING} {role}", style="dim")
    if _is_recommended(family, name):
        return Text("✓ Recommended", style="bold green")
    own = [r for r in (family.verdict.rejected if family.verdict else ()) if r.variant == name]
    if any(rejection.cause == "quality" for rejection in own):
        return _sign(Decision.FAIL, "quality")
    if best is None:
        return Text(f"{MISSING} {'no valid trial' if family.trials_of(name) else 'not measured'}")
    return _sign(*standing(family, best))


def _sign(decision: Decision, cause: str) -> Text:
    cell = decision_cell(decision)
    text = Text(f"{cell.symbol} {cell.text}", style=_TONES[cell.tone])
    shown = "" if cause == decision.value else cause
    return text.append(f" ({shown})" if shown else "", style="dim")


def warning_lines(run: StoredRun) -> Group:
    """The warnings of every family, as they are printed."""
    found = [line for family in families_of(run) for line in warnings_of(family)]
    return Group(*(Text(f"warning: {line}", style="yellow") for line in found))


def has_warnings(run: StoredRun) -> bool:
    """Whether any family has a warning."""
    return any(warnings_of(family) for family in families_of(run))


def card_table(run: StoredRun) -> Table:
    """One row per model and runtime, in process: what it takes and how fast it is."""
    table = plain_table("Report card: in this process, without a server")
    table.add_column("Model", no_wrap=True)
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
        *(milliseconds(entry.latency.percentiles[name].value_ms) for name in SHOWN_PERCENTILES),
        factor(p50.ratio if p50 else None),
        number(smallest.per_s.value if smallest else None),
        number(largest.per_s.value if largest else None),
    )
    return (name, *map(Text, cells))


_PAIRS = {
    "right_to_wrong": "right→wrong",
    "wrong_to_right": "wrong→right",
    "agreement": "agrees",
    "label_agreement": "same label",
    "entity_agreement": "same entities",
    "cohen_kappa": "kappa",
    "kl_mean_nats": "KL mean",
    "ece": "ECE",
    "temperature": "temp.",
    "log_likelihood_change_nats": "ll nats",
    "greedy_agreement": "same token",
    "common_prefix_tokens": "same beginning",
    "reference_change_nats": "reference nats",
    "draft_acceptance": "accepted as draft",
    "draft_tokens_per_run": "tokens a run",
    "mean_error": "mean error",
    "mae_change": "MAE change",
    "pearson_with_teacher": "r to teacher",
    "difference_mean": "|difference|",
    "cosine_mean": "cosine to teacher",
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


def quality_table(run: StoredRun) -> Table:
    """A row per variant and metric, beside the teacher's."""
    table = plain_table("Quality through the endpoint")
    for title in ("Variant", "Metric"):
        table.add_column(title, no_wrap=True)
    for title in ("Value", "95% interval", "vs teacher", "95% interval", "McNemar p", "Samples"):
        table.add_column(title, justify="right", no_wrap=True)
    for family in families_of(run):
        scores = (*family.scores, *family.ensemble_scores)
        for score in scores:
            last = score is scores[-1]
            table.add_row(*_score_row(family, score), end_section=last)
    return table


def pairs_table(run: StoredRun) -> Table:
    """A row per variant: flips, agreement and divergence beside the teacher, and calibration."""
    families = families_of(run)
    measures = [name for name in _PAIRS if any(p.measure == name for p in run.pairs)]
    table = plain_table("Compared with the teacher, sample by sample")
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
    """A row per variant: what each step of its making lost, in points or bits per byte."""
    chains = [(entry.variant, entry.chain) for entry in run.losses if entry.chain]
    steps = list(dict.fromkeys(s for _, c in chains for s in _MAKING if s in _steps_of(c)))
    steps.sort(key=list(_MAKING).index)
    table = plain_table("Where quality was lost")
    table.add_column("Variant", no_wrap=True)
    for step in steps:
        table.add_column(_MAKING[step], justify="right", no_wrap=True)
    table.add_column("in all", justify="right", no_wrap=True)
    for variant, chain in chains:
        own = {link.step: lost(chain.metric, link.loss.value) for link in chain.links}
        total = Text(f"{lost(chain.metric, chain.total.value)} {unit_of(chain.metric)}")
        if note := _interval_note(chain):
            total.append(f"\n{note}", style="dim")
        table.add_row(Text(variant), *(own.get(step, MISSING) for step in steps), total)
    return table


def _steps_of(chain: LossChain) -> set[str]:
    return {link.step for link in chain.links}


def _interval_note(chain: LossChain) -> str:
    span_words = lost_span(chain.metric, chain.total)
    return f"95%: {span_words}" if span_words else ""


def _score_row(family: FamilyResults, score: QualityScore) -> tuple[Text, ...]:
    low, high = metric_value(score.metric, score.low), metric_value(score.metric, score.high)
    relative, interval = relative_words(score)
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
