"""A profile as one page, `profile.html`, and as a few lines for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from harness.report.findings import Setting
from harness.report.page import machine_words, render_page
from harness.report.plots.base import Plot
from harness.report.profile.findings import (
    RUNTIMES,
    bound_of,
    heaviest,
    peak_caveat,
    scaling_sentence,
)
from harness.report.profile.plots import kinds_plot, roofline_plot, scaling_plot
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.report.tables.provenance import environment_table, when
from harness.system.storage import replace_text
from harness.types.card import Runtime
from harness.types.profiles import OperatorProfile, VariantProfile
from harness.words.numbers import MISSING, count, millions, number, percent, span, things

PROFILE = "profile.json"
_MOST_OPERATORS = 25


@dataclass(frozen=True)
class RuntimePart:
    """One runtime's part of the page."""

    title: str
    kinds: Plot
    roofline: Plot
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class ProfilePage:
    """Everything that the profile's page shows."""

    title: str
    facts: tuple[Setting, ...]
    verdicts: tuple[str, ...]
    runtimes: tuple[RuntimePart, ...]
    roofline: Table
    caveat: str
    scaling: Plot
    scaling_sentences: tuple[str, ...]
    scaling_table: Table
    environment: Table

    @property
    def plots(self) -> dict[str, object]:
        """What plotly draws for every plot, by key."""
        own = [plot for one in self.runtimes for plot in (one.kinds, one.roofline)]
        return {plot.key: plot.figure for plot in (*own, self.scaling)}


def build_profile(profile: VariantProfile, folder: Path) -> Path:
    """Write profile.html into a folder; returns its path.

    Raises:
        StorageError: it cannot be written.
    """
    page = profile_page(profile)
    path = folder / "profile.html"
    replace_text(path, render_page("profile.html.j2", page, plots=True))
    return path


def profile_summary(profile: VariantProfile) -> RenderableType:
    """The verdicts, for the terminal."""
    lines = [*_verdicts(profile), *(scaling_sentence(one) for one in profile.scaling)]
    return Group(*(Text(line) for line in lines))


def profile_page(profile: VariantProfile) -> ProfilePage:
    """Choose and word everything that the profile's page shows."""
    variant = profile.variant
    threads = things(profile.threads, "thread")
    known = (
        ("Measured", when(profile.created_utc)),
        ("Variant", f"{variant.precision}, {millions(variant.parameters)} M parameters"),
        ("Threads", threads),
        ("Machine", machine_words(profile.environment)),
    )
    return ProfilePage(
        title=variant.name,
        facts=tuple(Setting(name, value) for name, value in known if value),
        verdicts=_verdicts(profile),
        runtimes=tuple(
            _runtime_part(profile, runtime)
            for runtime in Runtime
            if any(one.runtime is runtime for one in profile.operators)
        ),
        roofline=_roofline_table(profile),
        caveat=peak_caveat(profile),
        scaling=scaling_plot(profile),
        scaling_sentences=tuple(scaling_sentence(one) for one in profile.scaling),
        scaling_table=_scaling_table(profile),
        environment=environment_table({"environment": profile.environment}),
    )


def _verdicts(profile: VariantProfile) -> tuple[str, ...]:
    return tuple(bound_of(one, profile.roofline).sentence for one in profile.operators)


def _runtime_part(profile: VariantProfile, runtime: Runtime) -> RuntimePart:
    own = [one for one in profile.operators if one.runtime is runtime]
    return RuntimePart(
        title=f"{RUNTIMES[runtime]} {profile.versions.get(str(runtime), '')}".strip(),
        kinds=kinds_plot(own),
        roofline=roofline_plot(profile, runtime),
        tables=tuple(_operators_table(one) for one in reversed(own)),
    )


def _operators_table(one: OperatorProfile) -> Table:
    shown = heaviest(one, _MOST_OPERATORS)
    rest = len(one.operators) - len(shown)
    return Table(
        caption=f"Batch {one.batch_size}, {one.length} tokens: by operator",
        columns=(
            Column("Operator", numeric=False),
            Column("Type", numeric=False),
            Column("Time", "µs per call"),
            Column("Share"),
            Column("Calls"),
            Column("Operations", "million"),
            Column("Moved", "kB"),
            Column("Intensity", "operations per byte"),
            Column("Achieved", "billion operations/s"),
        ),
        rows=tuple(
            (
                words(cost.name),
                words(cost.kind, cost.datatype),
                numeric(number(cost.time_us), cost.time_us),
                numeric(percent(cost.time_us / (one.operator_us or 1)), cost.time_us),
                numeric(number(cost.calls), cost.calls),
                _scaled(cost.operations, 1e6),
                _scaled(cost.moved_bytes, 1e3),
                _scaled(cost.intensity, 1),
                _scaled(cost.operations_per_s, 1e9),
            )
            for cost in shown
        ),
        note=(
            f"Mean of {one.runs} profiled calls. A call takes {number(one.call_ms.value)} ms with "
            f"the profiler off; all operators together {number(one.operator_us / 1e3)} ms with it "
            f"on. {f'{count(rest)} lighter ones are in operators.csv. ' if rest > 0 else ''}"
            f"The profiler's own trace: {one.trace}."
        ),
        sortable=True,
    )


def _scaled(value: float | None, unit: float) -> Cell:
    scaled = None if value is None else value / unit
    return numeric(number(scaled), scaled)


def _roofline_table(profile: VariantProfile) -> Table:
    roofline = profile.roofline
    rows = [
        (
            words(f"{RUNTIMES[peak.runtime]}, {peak.datatype}, product of 1024 x 1024"),
            numeric(number(peak.operations_per_s / 1e9), peak.operations_per_s),
            words("billion operations per second"),
        )
        for peak in roofline.peaks
    ]
    for name, bytes_per_s, size in (
        ("Memory", roofline.memory_bytes_per_s, roofline.memory_array_bytes),
        ("Last-level cache", roofline.cache_bytes_per_s, roofline.cache_array_bytes),
    ):
        rows.append(
            (
                words(f"{name}, triad over three arrays of {number(size / 1e6)} MB"),
                numeric(number(bytes_per_s / 1e9), bytes_per_s),
                words("billion bytes per second"),
            )
        )
    return Table(
        caption="This machine's roofs",
        columns=(
            Column("Measured", numeric=False),
            Column("Best"),
            Column("Unit", numeric=False),
        ),
        rows=tuple(rows),
        note=f"The best of at least 12, on {when(roofline.measured_utc)}, with as many threads as "
        "the model gets; kept in the user's cache for this machine and these versions.",
    )


def _scaling_table(profile: VariantProfile) -> Table:
    rows = []
    for scaling in profile.scaling:
        for step in scaling.steps:
            growth = numeric(MISSING, None)
            if step.growth is not None:
                bounds = span(percent(step.growth_low), percent(step.growth_high))
                growth = numeric(percent(step.growth), step.growth, bounds)
            spread = span(number(step.per_s.low), number(step.per_s.high))
            knee = "returns diminish here" if step.batch_size == scaling.knee else ""
            rows.append(
                (
                    words(RUNTIMES[scaling.runtime], knee),
                    numeric(count(step.batch_size), step.batch_size),
                    numeric(number(step.per_s.value), step.per_s.value, spread),
                    numeric(number(step.per_s.value * 3600), step.per_s.value),
                    growth,
                    numeric(count(step.rounds), step.rounds),
                )
            )
    return Table(
        caption="Batch scaling",
        columns=(
            Column("Runtime", numeric=False),
            Column("Batch"),
            Column("Throughput", "samples/s"),
            Column("Jobs", "samples per hour"),
            Column("Growth", "over half the batch"),
            Column("Rounds"),
        ),
        rows=tuple(rows),
        note="In small type the range of the rounds, and the growth's interval: Student's t over "
        "rounds in which a batch and its double ran one after the other, 95% over up to three "
        "looks.",
    )
