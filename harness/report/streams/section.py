"""A family's streams, ready for the report's page and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.family_results import FamilyResults
from harness.report.plots.base import Plot, VariantStyle
from harness.report.selection import leading_trials
from harness.report.streams.plots import load_plots, tokens_plot
from harness.report.streams.tables import requests_table, streamed_trials, streams_table
from harness.report.streams.timeline import parts_of, timeline_plot
from harness.report.tables.model import Table
from harness.runs.records import RecordedStream
from harness.types import TrialResult
from harness.words.labels import trial_words


@dataclass(frozen=True)
class StreamsSection:
    """What is shown of a family's streams, in order."""

    over_load: tuple[Plot, ...]
    tokens: Plot | None
    """Tokens per second against quality; None where no variant has both."""
    table: Table
    timeline: Plot | None
    """Single requests; None where no record was kept."""
    requests: Table | None
    """The same as a table."""
    sampled: str
    """The trial that the single requests are of, in words."""
    parts: Sequence[tuple[str, str]]
    """The parts of a request's time and their colours."""

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Every plot of the section."""
        others = (self.tokens, self.timeline)
        return (*self.over_load, *(one for one in others if one is not None))


def streams_section(
    family: FamilyResults,
    styles: dict[str, VariantStyle],
    records: Mapping[str, Sequence[RecordedStream]],
) -> StreamsSection | None:
    """Choose and draw; None where no answer came token by token.

    Args:
        family: one of the run's.
        styles: how its variants look.
        records: single requests by trial.
    """
    table = streams_table(family)
    if table is None:
        return None
    result, sample = _sampled(family, records)
    words = f"{result.trial.variant}, {trial_words(result.trial)}" if result else ""
    return StreamsSection(
        over_load=load_plots(family, styles),
        tokens=tokens_plot(family, styles),
        table=table,
        timeline=timeline_plot(family.name, words, sample) if sample else None,
        requests=requests_table(sample) if sample else None,
        sampled=words,
        parts=parts_of(sample),
    )


def _sampled(
    family: FamilyResults, records: Mapping[str, Sequence[RecordedStream]]
) -> tuple[TrialResult | None, Sequence[RecordedStream]]:
    """The leading trial's requests, else those of the first trial of which some were kept."""
    for result in (*leading_trials(family), *streamed_trials(family)):
        sample = records.get(result.trial.trial_id)
        if sample:
            return result, sample
    return None, ()
