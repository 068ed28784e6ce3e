"""What a reader must know of a family before its numbers: what was left out, and why."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from harness.report.labels import cause_title
from harness.report.selection import FamilyResults, families_of
from harness.runs import StoredRun
from harness.types import FailedVariant


def warnings_of(family: FamilyResults) -> tuple[str, ...]:
    """One a variant that is left out, with its whole reason."""
    return tuple(_left_out(one) for one in family.failed)


def warning_lines(run: StoredRun) -> Group:
    """Those of every family, for the terminal."""
    found = [line for family in families_of(run) for line in warnings_of(family)]
    return Group(*(Text(f"warning: {line}", style="yellow") for line in found))


def has_warnings(run: StoredRun) -> bool:
    """Whether there is anything to say."""
    return any(warnings_of(family) for family in families_of(run))


def _left_out(one: FailedVariant) -> str:
    step = f" ({one.next_step})" if one.next_step else ""
    reason = " ".join(f"{one.reason}{step}".split())
    return f"{one.name} is left out, because it is {cause_title(one.cause)}: {reason}"
