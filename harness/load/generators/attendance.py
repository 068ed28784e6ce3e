"""Which reports of a load have come, from which process and when: none is lost without a word.

Every process numbers its reports of a load from 0, and marks its last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.load.generators.messages import LoadProgress
from harness.types.limits import STANDSTILL_SHARE
from harness.words.numbers import count, seconds

STANDSTILL_S = 1.0
_NS = 1_000_000_000

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


def stood_still_s(
    report: LoadProgress, every_s: float, counted_ns: Iterable[tuple[int, int]]
) -> float:
    """How long a process did nothing at all before it made a report: it was stopped, or starved.

    It wakes at the end of that time, so that only what lies in a stretch that counts is compared
    with it. A report that is overdue by less than a second is a busy machine's doing, and the event
    loop's lag tells.

    Args:
        report: of the process.
        every_s: how often reports are due.
        counted_ns: stretches of the load, by their first and last instants.
    """
    due_ns = report.since_ns + round(every_s * _NS)
    if report.at_ns - due_ns < STANDSTILL_S * _NS:
        return 0.0
    within_ns = [min(end, report.at_ns) - max(begin, due_ns) for begin, end in counted_ns]
    return sum(one for one in within_ns if one > 0) / _NS


def standstill_words(process: str, still_s: float, counted_s: float) -> Iterator[str]:
    """Why a process that stood still makes a load invalid; nothing where it was not for long."""
    if still_s > STANDSTILL_SHARE * counted_s:
        yield (
            f"{process} stood still for {seconds(still_s)} s: its share of the load was missing "
            "for so long"
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
