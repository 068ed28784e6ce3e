"""A student's roles on the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from harness.report.family_results import families_of
from harness.report.roles.section import roles_section
from harness.report.terminal.review import rich_table
from harness.runs.folder import StoredRun


def roles_tables(run: StoredRun) -> RenderableType | None:
    """What the report says of the roles; None where no family has a draft."""
    blocks: list[RenderableType] = []
    for family in families_of(run):
        section = roles_section(family)
        if section is not None:
            blocks += [Text(section.summary), rich_table(section.roles), rich_table(section.draft)]
            blocks += [Text(note, style="dim") for note in section.notes]
    return Group(*blocks) if blocks else None
