"""What the command line prints of quality: scores, pairs with the teacher, losses."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from harness.report.selection import FamilyResults, families_of, reference_score
from harness.report.terminal.run import plain_table, relative_words
from harness.runs.folder import StoredRun
from harness.types import QualityScore
from harness.types.losses import LossChain
from harness.words.labels import lost, lost_span, measure_words, unit_of
from harness.words.numbers import MISSING, count, metric_title, metric_value, p_value, span

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
        scores = (*family.scores, *family.pipeline_scores)
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
        total = f"{lost(chain.metric, chain.total.value)} {unit_of(chain.metric)}"
        cells = (*(own.get(step, MISSING) for step in steps), total)
        name = Text(variant).append(f"\n{_interval_note(chain)}", style="dim")
        table.add_row(name, *map(Text, cells))
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
