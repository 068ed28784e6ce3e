"""All that a report shows, in the order it shows it, and the page as one self-contained file."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.errors import EnvironmentFailure
from harness.report.autoscaling.section import AutoscalingSection, autoscaling_section
from harness.report.capacity.section import CapacitySection, capacity_section
from harness.report.card.section import CardSection, card_section
from harness.report.card.values import cards_of
from harness.report.cost.section import CostSection, cost_section
from harness.report.family_results import FamilyResults, families_of
from harness.report.findings import Finding, Setting, finding_of
from harness.report.offline.section import OfflineSection, offline_section
from harness.report.plots.base import Plot, VariantStyle, styles_of
from harness.report.plots.saturation import saturation_plot
from harness.report.plots.series import seconds_plot, start_plots
from harness.report.plots.server import batches_plot, ensemble_plot, split_plot
from harness.report.plots.throughput import throughput_plots
from harness.report.plots.tradeoffs import quality_plot
from harness.report.roles.section import RolesSection, roles_section
from harness.report.rollout.section import RolloutSection, rollout_section
from harness.report.routing.section import RouterSection, router_section
from harness.report.selection import leading_trials
from harness.report.streams.section import StreamsSection, streams_section
from harness.report.tables.costs import (
    cold_start_table,
    ensemble_quality,
    ensemble_table,
    search_table,
)
from harness.report.tables.loaded_quality import loaded_quality_table
from harness.report.tables.losses import LostQuality, lost_quality
from harness.report.tables.model import Table
from harness.report.tables.provenance import (
    artefacts_table,
    environment_table,
    run_command,
    study_yaml,
    when,
)
from harness.report.tables.quality import consistency_table, models_table, task_table
from harness.report.tables.saturation import saturation_table
from harness.report.tables.trials import RejectedGroup, rejected_groups, trials_table
from harness.report.tables.trust import spans_table, trust_table
from harness.runs.folder import StoredRun
from harness.types.autoscaling import AutoscalePlan
from harness.types.capacity import CapacityPlan
from harness.types.costs import CostReport
from harness.types.offline import OfflinePlan
from harness.types.rollout import RolloutRecord
from harness.types.routing import Route
from harness.words.labels import INTERRUPTED, SIGNS, Sign, trial_words
from harness.words.numbers import count, things


@dataclass(frozen=True)
class FamilyPage:
    """A family's part of the report."""

    name: str
    anchor: str
    percentile: str
    finding: Finding
    styles: tuple[VariantStyle, ...]
    quality: Plot | None
    throughput: tuple[Plot, ...]
    over_rate: Plot | None
    """Latency over rate in open loops, measured after the verdict; None where it was not."""
    rates: Table | None
    """The curve over rate as a table."""
    split: Plot | None
    batches: Plot | None
    starts: tuple[Plot, ...]
    """The start of the leading trial's load, then of the other variants' best trials."""
    seconds: Plot | None
    leading: str
    """The trial that stands for the family, in words."""
    spans: Table | None
    """The leading trial's latency, one row per span."""
    trust: Table | None
    """The checks that the leading trial had to pass to be valid."""
    cold_start: Table | None
    search: Table | None
    models: Table
    lost: LostQuality | None
    tasks: Table | None
    """Scores of lm-eval's tasks; None where none was asked."""
    consistency: Table | None
    loaded: Table | None
    """Quality while the load of the verdict ran; None where that was not scored."""
    ensemble: Table | None
    ensemble_quality: str
    ensemble_bars: Plot | None
    rejected: tuple[RejectedGroup, ...]
    card: CardSection | None = None
    """The report card, measured in process; None where it was not."""
    roles: RolesSection | None = None
    """What a student is worth beside its teacher; None where the study has no draft."""
    streams: StreamsSection | None = None
    """Answers that came token by token; None where none did."""

    @property
    def leading_is(self) -> str:
        """What the leading trial is to the verdict."""
        return "recommended" if self.finding.variant else "best"

    @property
    def rejected_words(self) -> str:
        """How many candidates were rejected, by cause."""
        return "; ".join(f"{group.size} {group.title}" for group in self.rejected)

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Every plot of the family."""
        throughput = (self.quality, *self.throughput, self.over_rate, self.split, self.batches)
        lost = self.lost.plots if self.lost else ()
        card = self.card.plots if self.card else ()
        streams = self.streams.plots if self.streams else ()
        last = (self.ensemble_bars, *self.starts, self.seconds, *lost, *card, *streams)
        return tuple(plot for plot in (*throughput, *last) if plot)


@dataclass(frozen=True)
class Page:
    """Everything that the report's page shows."""

    title: str
    sign: Sign
    facts: tuple[Setting, ...]
    command: str
    families: tuple[FamilyPage, ...]
    trials: Table
    artefacts: Table
    environment: Table
    study: str
    capacity: CapacitySection | None = None
    """The newest plan for a demand; None where none was asked for."""
    cost: CostSection | None = None
    """The newest costs; None where none were asked for."""
    autoscaling: AutoscalingSection | None = None
    """The newest policies on a trace; None where none were asked for."""
    offline: OfflineSection | None = None
    """The newest job with a deadline; None where none was asked for."""
    router: RouterSection | None = None
    """The newest router; None where none was asked for."""
    rollout: RolloutSection | None = None
    """The newest rollout; None where there was none."""

    @property
    def plots(self) -> dict[str, object]:
        """What plotly draws for every plot, by key."""
        planned = self.capacity.plots if self.capacity else ()
        priced = self.cost.plots if self.cost else ()
        scaled = self.autoscaling.plots if self.autoscaling else ()
        offline = self.offline.plots if self.offline else ()
        routed = self.router.plots if self.router else ()
        rolled = self.rollout.plots if self.rollout else ()
        families = (plot for family in self.families for plot in family.plots)
        every = (*families, *planned, *priced, *scaled, *offline, *routed, *rolled)
        return {plot.key: plot.figure for plot in every}


@dataclass(frozen=True)
class Documents:
    """What was planned from a run: the newest document of each kind, None where there is none."""

    plan: CapacityPlan | None = None
    costs: CostReport | None = None
    scaling: AutoscalePlan | None = None
    offline: OfflinePlan | None = None
    route: Route | None = None
    rollout: RolloutRecord | None = None


def page_of(run: StoredRun, documents: Documents = Documents()) -> Page:
    """Choose and word everything; whatever the run did not reach is left out or said.

    Args:
        run: as it was read.
        documents: what was planned from it.
    """
    study = run.manifest.get("study", {})
    families = families_of(run)
    return Page(
        title=str(study.get("name", "run")),
        sign=SIGNS[run.decision] if run.verdicts and not run.interrupted else INTERRUPTED,
        facts=_facts(run),
        command=run_command(run.manifest),
        families=tuple(
            _family_page(run, family, number) for number, family in enumerate(families, start=1)
        ),
        trials=trials_table(run.every_trial, run.overheads, _judged(families)),
        artefacts=artefacts_table(run.variants),
        environment=environment_table(run.manifest),
        study=study_yaml(run.manifest),
        capacity=capacity_section(documents.plan) if documents.plan else None,
        cost=cost_section(documents.costs) if documents.costs else None,
        autoscaling=autoscaling_section(documents.scaling) if documents.scaling else None,
        offline=offline_section(documents.offline) if documents.offline else None,
        router=router_section(documents.route) if documents.route else None,
        rollout=rollout_section(documents.rollout) if documents.rollout else None,
    )


def _family_page(run: StoredRun, family: FamilyResults, number: int) -> FamilyPage:
    styles = styles_of(family)
    leading = next(iter(leading_trials(family)), None)
    card = next((one for one in cards_of(run) if one.family.name == family.name), None)
    return FamilyPage(
        name=family.name,
        anchor=f"family-{number}",
        percentile=family.latency_title,
        finding=finding_of(family),
        styles=tuple(styles.values()),
        quality=quality_plot(family, styles),
        throughput=throughput_plots(family, styles),
        over_rate=saturation_plot(family, styles),
        rates=saturation_table(family),
        split=split_plot(family),
        batches=batches_plot(family),
        starts=start_plots(family, styles),
        seconds=seconds_plot(family, styles),
        leading=f"{leading.trial.variant}, {trial_words(leading.trial)}" if leading else "",
        spans=spans_table(leading) if leading else None,
        trust=trust_table(leading) if leading else None,
        cold_start=cold_start_table(family),
        search=search_table(family, resumed=bool(run.manifest.get("resumed_utc"))),
        models=models_table(family),
        lost=lost_quality(family),
        tasks=task_table(family),
        consistency=consistency_table(family, run.consistency),
        loaded=loaded_quality_table(family, run.loaded),
        ensemble=ensemble_table(family),
        ensemble_quality=ensemble_quality(family),
        ensemble_bars=ensemble_plot(family),
        rejected=rejected_groups(family),
        card=card_section(card, styles) if card else None,
        roles=roles_section(family),
        streams=streams_section(family, styles, run.records),
    )


def _judged(families: Sequence[FamilyResults]) -> list[str]:
    return list(dict.fromkeys(name for one in families for name in one.judged_latencies))


def _facts(run: StoredRun) -> tuple[Setting, ...]:
    """The line under the title."""
    environment = run.manifest.get("environment") or {}
    left_out = {one.name for one in run.failed}
    invalid = sum(not result.valid for result in run.every_trial)
    trials = count(len(run.every_trial)) + (f" ({count(invalid)} invalid)" if invalid else "")
    known = (
        ("Started", when(run.manifest.get("created_utc"))),
        ("Variants served", count(sum(one.name not in left_out for one in run.variants))),
        ("Trials", trials),
        ("Machine", machine_words(environment)),
    )
    return tuple(Setting(name, value) for name, value in known if value)


def machine_words(environment: object) -> str:
    """Processor, cores and GPUs in one line."""
    if not isinstance(environment, Mapping):
        return ""
    cores = environment.get("usable_cores") or environment.get("cores")
    gpus = environment.get("gpus") or ()
    parts = (environment.get("cpu"), things(cores, "core") if cores else "", *gpus)
    return ", ".join(str(part) for part in parts if part)


_TEMPLATES = files("harness.report") / "templates"


def render_html(page: Page) -> str:
    """The report as HTML; everything that comes from the study is escaped."""
    return render_page("report.html.j2", page, plots=bool(page.plots))


def render_page(template: str, page: object, *, plots: bool) -> str:
    """Any page of the harness.

    Args:
        template: its template's name.
        page: what the template shows, under the name `page`.
        plots: whether the page has plots, so that plotly.js has to come along.
    """
    return (
        _templates()
        .get_template(template)
        .render(
            page=page,
            css=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
            script=(_TEMPLATES / "report.js").read_text(encoding="utf-8"),
            plotly=b64encode(compressed_plotly()).decode() if plots else "",
        )
    )


@cache
def _templates() -> Environment:
    """The templates, each compiled once per process: that takes longer than to render a page."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def compressed_plotly() -> bytes:
    """plotly.js as gzip: the bundle of the installation, else the one of an installed `plotly`.

    Raises:
        EnvironmentFailure: there is neither, as in a checkout that was never installed.
    """
    own = _TEMPLATES / "plotly.min.js.gz"
    if own.is_file():
        return own.read_bytes()
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise EnvironmentFailure(
            "plotly.js, which draws the report's plots, is not in this installation",
            next_step="install the harness again: pip install -e . (it fetches plotly.js)",
        )
    return _compressed(Path(found.origin).parent / "package_data" / "plotly.min.js")


@cache
def _compressed(script: Path) -> bytes:
    """Once per process: it takes longer than to render a page."""
    return gzip.compress(script.read_bytes(), compresslevel=9, mtime=0)
