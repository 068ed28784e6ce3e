"""Whom the metrics page waits for at its end, in time that is made up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.telemetry.exposition.monitor import LoadMonitor
from harness.telemetry.exposition.page import LATE_S, MonitorCollector, wait_for_reader


class Page:
    """A page that is scraped at these times, and waits from `ends_s` on.

    Args:
        scrapes_s: ascending.
        ends_s: when the page would go.
        stands_still_s: how long nothing runs, the first time that it sleeps.
    """

    def __init__(
        self, scrapes_s: Sequence[float], ends_s: float, stands_still_s: float = 0.0
    ) -> None:
        self.now_s = 0.0
        self._due_s = list(scrapes_s)
        self._collector = MonitorCollector(LoadMonitor(), lambda: self.now_s)
        self._until(ends_s)
        self._stands_still_s = stands_still_s
        wait_for_reader(self._collector, self._sleep)

    @property
    def waits_until_s(self) -> float:
        return self.now_s

    @property
    def missed_s(self) -> list[float]:
        """Scrapes that came when the page was gone."""
        return self._due_s

    def _sleep(self, for_s: float) -> None:
        self.now_s += self._stands_still_s
        self._stands_still_s = 0.0
        self._until(self.now_s + for_s)

    def _until(self, at_s: float) -> None:
        while self._due_s and self._due_s[0] <= at_s:
            self.now_s = max(self.now_s, self._due_s.pop(0))
            self._collector.collect()
        self.now_s = at_s


@pytest.mark.parametrize(
    ("scrapes_s", "ends_s"),
    [
        pytest.param((0, 1, 2, 3, 4), 3.1, id="on time"),
        pytest.param((0, 1, 2, 3.7, 4, 5), 4.1, id="behind one that was late"),
        pytest.param((0, 0.2, 15, 15.2, 30, 30.2, 45), 31.0, id="of two by turns"),
        pytest.param((0, 1, 2, 2 + LATE_S), 2.1, id="late by seconds"),
        pytest.param((0, 30, 60, 104), 61.0, id="late by a third of a long interval"),
    ],
)
def test_the_page_waits_for_one_more_scrape(scrapes_s: Sequence[float], ends_s: float) -> None:
    page = Page(scrapes_s, ends_s)
    assert not page.missed_s
    assert page.waits_until_s == pytest.approx(scrapes_s[-1], abs=0.1)


def test_a_standstill_is_not_waiting() -> None:
    assert not Page((0, 1, 2, 13), 2.1, stands_still_s=10.0).missed_s


@pytest.mark.parametrize(
    "scrapes_s", [(), (1,), (0, 1, 2)], ids=["never scraped", "once", "no longer"]
)
def test_nobody_is_waited_for_who_does_not_come(scrapes_s: Sequence[float]) -> None:
    assert Page(scrapes_s, 60.0).waits_until_s == 60.0


def test_the_wait_for_who_has_gone_has_an_end() -> None:
    assert Page((0, 1, 2), 2.5).waits_until_s == pytest.approx(3 + LATE_S, abs=0.1)
    assert Page((0, 1000, 2000), 2000.5).waits_until_s == pytest.approx(2060, abs=0.1)
