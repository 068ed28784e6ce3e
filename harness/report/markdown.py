"""The page as Markdown: the same words and tables, without the plots."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.report.findings import Finding, Setting
from harness.report.page import FamilyPage, Page
from harness.report.tables.losses import LostQuality
from harness.report.tables.model import Cell, Column, Table

_SMALL_TYPE = re.compile(r"\b([Ii])n small type\b")
_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def render_markdown(page: Page) -> str:
    """The report as GitHub-flavoured Markdown; everything from the study is escaped."""
    blocks = [f"# {text(page.title)}: {page.sign.symbol} {page.sign.word}"]
    blocks.append(facts_list(page.facts))
    for family in page.families:
        blocks += _verdict(family.finding)
    blocks.append(f"The whole run again: {_code(page.command)}")
    for family in page.families:
        blocks += _evidence(family)
    blocks += _capacity(page)
    blocks += _cost(page)
    blocks += _autoscaling(page)
    blocks += _offline(page)
    blocks += _taking_over(page)
    blocks += _rejected(page)
    blocks += ["## Every trial", *table_blocks(page.trials)]
    blocks += [
        "## Environment and digests",
        *table_blocks(page.artefacts),
        *table_blocks(page.environment),
    ]
    blocks += ["## The study, as resolved", _fence(page.study, "yaml")]
    return "\n\n".join(block for block in blocks if block) + "\n"


def text(value: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(_SPECIAL.sub(r"\\\1", escaped).split())


def _code(value: str) -> str:
    ticks = "`" * (max((len(run) for run in re.findall("`+", value)), default=0) + 1)
    pad = " " if value.startswith("`") or value.endswith("`") else ""
    return f"{ticks}{pad}{' '.join(value.split())}{pad}{ticks}"


def _fence(value: str, language: str = "") -> str:
    ticks = "`" * max(3, max((len(run) for run in re.findall("`+", value)), default=0) + 1)
    return f"{ticks}{language}\n{value.rstrip()}\n{ticks}"


def facts_list(items: tuple[Setting, ...]) -> str:
    """Names and values as a list."""
    return "\n".join(f"- {text(item.name)}: {text(item.value)}" for item in items)


def _verdict(finding: Finding) -> Iterator[str]:
    yield f"## {text(finding.family)}: {finding.sign.symbol} {finding.sign.word}"
    if finding.objective:
        yield f"Objective: **{text(finding.objective)}**"
    yield text(finding.summary)
    if finding.next_step:
        yield f"Next step: {text(finding.next_step)}"
    for warning in finding.warnings:
        yield f"Warning: {text(warning)}"
    if finding.variant:
        yield "### What to run"
        yield facts_list((*finding.serving, *finding.traffic))
        if finding.config:
            yield _fence(finding.config, "protobuf")
        if finding.command:
            yield f"Measure it again: {_code(finding.command)}"
    if finding.gains:
        yield f"### {text(finding.gains.caption)}"
        yield from table_blocks(finding.gains)


def _capacity(page: Page) -> Iterator[str]:
    if page.capacity:
        yield "## Capacity"
        yield from table_blocks(page.capacity.replicas)
        yield from table_blocks(page.capacity.trust)
        for line in page.capacity.left_out:
            yield f"Without a plan: {text(line)}"


def _cost(page: Page) -> Iterator[str]:
    if page.cost:
        yield "## Cost"
        yield from table_blocks(page.cost.costs)
        yield from _titled("Saved by a student in the teacher's place", page.cost.savings)
        for line in page.cost.unpriced:
            yield f"Without a cost: {text(line)}"
        for line in page.cost.notes:
            yield f"Note: {text(line)}"


def _autoscaling(page: Page) -> Iterator[str]:
    scaling = page.autoscaling
    if scaling:
        yield "## Autoscaling"
        yield f"**{text(scaling.chosen)}**"
        yield text(f"Objective: {scaling.objective}. Demand: {scaling.trace}. {scaling.terms}")
        yield from table_blocks(scaling.policies)
        if scaling.measured:
            yield f"### {text(scaling.measured.caption)}"
            yield from table_blocks(scaling.measured)
        for line in scaling.notes:
            yield f"Note: {text(line)}"


def _offline(page: Page) -> Iterator[str]:
    job = page.offline
    if job:
        yield "## Job with a deadline"
        for line in job.choices:
            yield f"**{text(line)}**"
        for line in job.beside:
            yield f"{text(line)}."
        yield from table_blocks(job.needs)
        yield from _titled(job.curves.caption, job.curves)
        for line in job.variants:
            yield text(line)
        for line in job.left_out:
            yield f"Without machines: {text(line)}"
        for line in job.notes:
            yield f"Note: {text(line)}"


def _evidence(family: FamilyPage) -> Iterator[str]:
    yield f"## Evidence: {text(family.name)}"
    yield from _quality(family)
    yield from _streams(family)
    yield from _roles(family)
    yield from _titled("Latency over rate", family.rates)
    yield from _titled("Cold start", family.cold_start)
    for table in family.card.tables if family.card else ():
        yield from _titled(table.caption, table)
    if family.trust:
        yield f"### {text(family.trust.caption)}"
        yield text(f"Of the {family.leading_is} trial: {family.leading}.")
        yield from table_blocks(family.trust)
    yield from _titled("The search", family.search)


def _roles(family: FamilyPage) -> Iterator[str]:
    roles = family.roles
    if roles:
        yield f"### {text(roles.roles.caption)}"
        yield text(roles.summary)
        yield from table_blocks(roles.roles)
        yield f"#### {text(roles.draft.caption)}"
        yield from table_blocks(roles.draft)
        for line in roles.notes:
            yield text(line)


def _streams(family: FamilyPage) -> Iterator[str]:
    streams = family.streams
    if streams:
        yield from _titled(streams.table.caption, streams.table)
        if streams.requests:
            yield f"### {text(streams.requests.caption)}"
            yield text(f"{streams.sampled}.")
            yield from table_blocks(streams.requests)


def _quality(family: FamilyPage) -> Iterator[str]:
    yield from _titled("Teacher and students", family.models)
    if family.tasks:
        yield from _titled(family.tasks.caption, family.tasks)
    if family.lost:
        yield from _lost(family.lost)
    yield from _titled("Batch consistency", family.consistency)
    yield from _titled("Quality under the load of the verdict", family.loaded)
    if family.ensemble or family.ensemble_quality:
        yield "### Pre- and post-processing"
        yield text(family.ensemble_quality)
        yield from table_blocks(family.ensemble) if family.ensemble else ()


def _titled(title: str, table: Table | None) -> Iterator[str]:
    if table:
        yield f"### {text(title)}"
        yield from table_blocks(table)


def _lost(part: LostQuality) -> Iterator[str]:
    for table in (part.pairs, part.chain):
        if table:
            yield f"### {text(table.caption)}"
            yield from table_blocks(table)
    for one in part.variants:
        for table in (one.slice_table, one.shifts, one.examples):
            if table:
                yield f"#### {text(table.caption)}"
                yield from table_blocks(table)
        if one.hint:
            yield text(one.hint)


def _taking_over(page: Page) -> Iterator[str]:
    """The router and the rollout."""
    if page.router:
        yield "## Router"
        yield text(page.router.summary)
        yield text(page.router.deployed)
        yield from table_blocks(page.router.curve)
    if page.rollout:
        yield "## Rollout"
        yield text(page.rollout.outcome)
        yield from table_blocks(page.rollout.changes)
        yield "\n".join(f"- {text(line)}" for line in page.rollout.notes)


def _rejected(page: Page) -> Iterator[str]:
    yield "## Rejected candidates"
    if not any(family.rejected for family in page.families):
        yield "None."
    for family in page.families:
        for group in family.rejected:
            yield f"### {text(family.name)}: {group.size} {text(group.title)}"
            yield from table_blocks(group.table)


def table_blocks(table: Table) -> Iterator[str]:
    """A table and its note."""
    if not table.rows:
        yield "None."
        return
    lines = [
        _row([_heading(column) for column in table.columns]),
        _row(["---:" if column.numeric else ":---" for column in table.columns]),
        *(_row([_cell(cell) for cell in row]) for row in table.rows),
    ]
    yield "\n".join(lines)
    if table.note:
        # What the page sets in small type, Markdown has in brackets.
        yield text(_SMALL_TYPE.sub(r"\1n brackets", table.note))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(column: Column) -> str:
    return text(f"{column.title} ({column.unit})" if column.unit else column.title)


def _cell(cell: Cell) -> str:
    if cell.tone == "code":
        return _code(cell.text)
    # Rows of Markdown have no names, so a link within the page would lead nowhere.
    leads = cell.link and not cell.link.startswith("#")
    return f"[{text(cell.plain)}]({cell.link})" if leads else text(cell.plain)
