"""Which reports of a load have come, from which process: so that none is lost without a word.

Every process numbers its reports of a load from 0, and marks its last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.load.generators.messages import LoadProgress
from harness.words.numbers import count

logger = logging.getLogger("harness")


@dataclass
class _Kept:
    """The reports of one process; its size is that of its gaps."""

    next_number: int = 0
    gaps: set[int] = field(default_factory=set)
    ended: bool = False
    failed: bool = False


class Attendance:
    """Which reports of all processes of one load have arrived.

    Args:
        load: its name, which they bear.
    """

    def __init__(self, load: str) -> None:
        self._load = load
        self._kept: dict[str, _Kept] = {}
        self._first_failures: list[tuple[int, str]] = []
        self.over = False
        """Once the load's numbers are told: what comes then is not counted."""

    def take(self, process: str, report: LoadProgress) -> bool:
        """Note a report; False where it was taken before, or too late: it must not be counted."""
        if self.over or report.load != self._load:
            note_late(process, report)
            return False
        kept, number = self._kept.setdefault(process, _Kept()), report.number
        known = number < kept.next_number and number not in kept.gaps
        kept.gaps.discard(number)
        if number >= kept.next_number:
            kept.gaps.update(range(kept.next_number, number))
            kept.next_number = number + 1
        kept.ended = kept.ended or report.final
        if report.first_failure and not kept.failed:
            kept.failed = True
            self._first_failures.append((report.first_failure_ns, report.first_failure))
        return not known

    @property
    def first_failure(self) -> str:
        """The first failure of all processes, in its own words; empty without any."""
        return min(self._first_failures, default=(0, ""))[1]

    def missing(self, process: str) -> int:
        """Reports that were made before one that came, and did not come themselves."""
        return len(self._kept[process].gaps) if process in self._kept else 0

    def ended(self, process: str) -> bool:
        """Whether its last report has come."""
        return process in self._kept and self._kept[process].ended

    def troubles(self, process: str) -> Iterator[str]:
        """Why what is known of a process's load is not all of it; nothing where it is."""
        if missing := self.missing(process):
            made = self._kept[process].next_number
            yield (
                f"{count(missing)} of {count(made)} reports of {process} did not arrive: "
                "what it saw meanwhile is not counted"
            )


def note_late(process: str, report: LoadProgress) -> None:
    """What comes after a load's end changes no number that was told; how much it is is said."""
    answered = sum(one.completed for one in report.slices)
    failed = sum(sum(one.failures.values()) for one in report.slices)
    if answered or failed:
        logger.warning(
            "%s reports %d answers and %d failures of the load %s, which is over: not counted",
            process, answered, failed, report.load,
        )  # fmt: skip
