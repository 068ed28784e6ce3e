"""Which reports of a test have come, from which process: so that none is lost without a word.

Every process numbers its reports from 0, and marks its last.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class _Kept:
    """The reports of one process; its size is that of its gaps."""

    next_number: int = 0
    gaps: set[int] = field(default_factory=set)
    ended: bool = False


class Attendance:
    """Which reports of all processes of one test have arrived."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def take(self, process: str, number: int, *, final: bool) -> bool:
        """Note a report; False where it was taken before, and must not be counted again."""
        kept = self._kept.setdefault(process, _Kept())
        known = number < kept.next_number and number not in kept.gaps
        kept.gaps.discard(number)
        if number >= kept.next_number:
            kept.gaps.update(range(kept.next_number, number))
            kept.next_number = number + 1
        kept.ended = kept.ended or final
        return not known

    def missing(self, process: str) -> int:
        """Reports that were made before one that came, and did not come themselves."""
        return len(self._kept[process].gaps) if process in self._kept else 0

    def made(self, process: str) -> int:
        """Reports that the process is known to have made."""
        return self._kept[process].next_number if process in self._kept else 0

    def ended(self, process: str) -> bool:
        """Whether its last report has come."""
        return process in self._kept and self._kept[process].ended
