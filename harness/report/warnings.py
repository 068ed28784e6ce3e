"""What a reader must know of a family before its numbers: what was left out, what is mixed up."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from harness.report.selection import FamilyResults, families_of
from harness.runs.folder import StoredRun
from harness.types import FailedVariant
from harness.types.losses import Relabelling
from harness.words.labels import cause_title
from harness.words.numbers import percent

_LISTED = 20


def warnings_of(family: FamilyResults) -> tuple[str, ...]:
    """One per variant that is left out, with its whole reason, or whose classes seem mixed up."""
    return (*map(_left_out, family.failed), *map(_mixed_up, family.relabellings))


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
    return f"{one.name} is left out, because it {cause_title(one.cause)}: {reason}"


def _mixed_up(one: Relabelling) -> str:
    pairs = [(a, b) for a, b in zip(one.called, one.means, strict=True) if a != b]
    listed = ", ".join(f"'{a}' for '{b}'" for a, b in pairs[:_LISTED])
    more = f", and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
    return (
        f"the classes of {one.variant} look mixed up: by what it answers, its outputs stand "
        f"{listed}{more}. Called like that, its accuracy would be {percent(one.mended)} instead of "
        f"{percent(one.accuracy)}. Scores and verdict are of what is served: correct "
        "id2label in its checkpoint, or the labels of the data, and run again"
    )
