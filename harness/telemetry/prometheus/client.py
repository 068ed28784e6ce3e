"""A Prometheus, asked for raw samples over its HTTP API, and how much a counter grew by them.

https://prometheus.io/docs/prometheus/latest/querying/api/ - Thanos, Mimir, VictoriaMetrics and the
managed ones answer the same.

How much a scraped counter grew between two instants, from its raw samples. A counter is known at
its scrapes only, and a window's edges lie between two of them. Inside the window the samples' own
differences are taken. From an edge to the nearest scrape inside, the counter is taken to have grown
as fast as in the scrape interval that follows it there, and never by more than it grew up to the
scrape on the edge's other side. (Prometheus' `increase()` extrapolates too, by the mean rate and
without that bound.) Under a steady load this is exact but for chance; whatever the load did, it
errs by no more than `Increase.uncertainty`: what the counter grew by in the two scrape intervals
that hold the edges.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import pairwise
from statistics import median
from typing import Any

from harness.errors import UsageError
from harness.system.connections import url_opener
from harness.words.numbers import seconds

FEWEST_SCRAPES = 2
"""Inside the window: one sample tells no rate."""
LATE_SCRAPES = 1.5
"""Scrape intervals beyond which a scrape near an edge is not late but missing."""


@dataclass(frozen=True)
class Series:
    """One series' raw samples, in order of time."""

    labels: Mapping[str, str] = field(default_factory=dict)
    times_s: tuple[float, ...] = ()
    """When each value was scraped, by Prometheus' clock (Unix time)."""
    values: tuple[float, ...] = ()

    @property
    def interval_s(self) -> float | None:
        """Between scrapes, the median; None of fewer than two."""
        gaps_s = [later - sooner for sooner, later in pairwise(self.times_s)]
        return median(gaps_s) if gaps_s else None


@dataclass(frozen=True)
class Increase:
    """What a counter grew by over a window."""

    value: float
    uncertainty: float = 0.0
    """How far it may be off at most."""
    reset: bool = False
    """The counter was reset inside the window: then the value is worth nothing."""


def problem_of(series: Series, start_s: float, end_s: float) -> str:
    """Why a window's increase cannot be told from these samples; empty where it can."""
    first, last = _inside(series, start_s, end_s)
    window = f"the window of {seconds(end_s - start_s)} s"
    interval_s = series.interval_s
    every = f", one every {seconds(interval_s)} s" if interval_s else ""
    if last - first < FEWEST_SCRAPES:
        count = {0: "no scrape", 1: "one scrape"}[last - first]
        return f"{window} holds {count} of Prometheus{every}: it takes two"
    assert interval_s is not None  # noqa: S101  (two scrapes lie inside)
    late_s = LATE_SCRAPES * interval_s
    begins_s = series.times_s[first] - start_s
    if first == 0 and begins_s > late_s:
        return f"Prometheus' samples begin {seconds(begins_s)} s into {window}"
    ends_s = end_s - series.times_s[last - 1]
    if last == len(series.times_s) and ends_s > late_s:
        return f"Prometheus' samples end {seconds(ends_s)} s before {window} does"
    return ""


def increase(series: Series, start_s: float, end_s: float) -> Increase:
    """What a counter grew by from one instant to another.

    A fall between the scrape before the window and the first inside it is taken to lie before
    the window: that is where the harness loads models.

    Args:
        series: a counter's, of which `problem_of` has nothing to say.
        start_s: Unix time, as is the end.
        end_s: after the start.
    """
    first, last = _inside(series, start_s, end_s)
    times_s, values = series.times_s, series.values
    steps = [later - sooner for sooner, later in pairwise(values[first:last])]
    if any(step < 0 for step in steps):
        return Increase(0.0, reset=True)
    fell_before = first == 0 or values[first - 1] > values[first]
    most_before = values[first] - (0.0 if fell_before else values[first - 1])
    before = _at_edge(
        steps[0] / (times_s[first + 1] - times_s[first]) * (times_s[first] - start_s), most_before
    )
    known_after = last < len(values) and values[last] >= values[last - 1]
    most_after = values[last] - values[last - 1] if known_after else None
    after = _at_edge(
        steps[-1] / (times_s[last - 1] - times_s[last - 2]) * (end_s - times_s[last - 1]),
        most_after,
    )
    return Increase(sum(steps) + before.value + after.value, before.uncertainty + after.uncertainty)


def last_inside(series: Series, start_s: float, end_s: float) -> float | None:
    """A gauge as of the last scrape inside a window; None without one."""
    first, last = _inside(series, start_s, end_s)
    return series.values[last - 1] if last > first else None


def _inside(series: Series, start_s: float, end_s: float) -> tuple[int, int]:
    """Where the samples inside a window begin, and end."""
    return bisect_left(series.times_s, start_s), bisect_right(series.times_s, end_s)


def _at_edge(expected: float, most: float | None) -> Increase:
    if most is None:
        return Increase(expected, expected)
    value = min(expected, most)
    return Increase(value, max(value, most - value))


QUERY_TIMEOUT_S = 5.0
_HTTP_SCHEMES = ("http", "https")


class QueryFailure(Exception):  # noqa: N818  (a figure that is missing, no error of the harness)
    """No answer, or one that says no; never a reason to stop a trial."""


@dataclass(frozen=True)
class Prometheus:
    """One Prometheus: where it is, and which of its series are meant."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    match: str = ""
    """Label matchers of the server's series, such as `job="triton"`; what they match is summed.
    Without any the series must be of one target."""
    host_match: str = ""
    """Matches the series of the server's machine, as node_exporter and DCGM's exporter label
    them."""

    def check(self) -> None:
        """Make sure that there is a Prometheus, and that it understands the matchers.

        Raises:
            UsageError: there is none.
        """
        try:
            self.clock_offset_s()
            for matchers in filter(None, (self.match, self.host_match)):
                self.samples(f"{{{matchers}}}", end_s=time.time(), length_s=1.0)
        except QueryFailure as failure:
            raise UsageError(
                f"--prometheus: {failure}",
                next_step="name a Prometheus that answers: --prometheus http://HOST:9090",
            ) from failure

    def clock_offset_s(self) -> float:
        """How far its clock is ahead of this machine's; half the answer's time is the error.

        Raises:
            QueryFailure: it does not answer.
        """
        asked_s = time.time()
        now_s = float(self._ask(query="time()")["result"][1])
        return now_s - (asked_s + time.time()) / 2

    def samples(self, selector: str, *, end_s: float, length_s: float) -> list[Series]:
        """The raw samples of the series that a selector matches, up to an instant of its clock.

        Raises:
            QueryFailure: it does not answer, or does not take the selector.
        """
        milliseconds = max(1, math.ceil(length_s * 1e3))
        answer = self._ask(query=f"{selector}[{milliseconds}ms]", time=f"{end_s:.3f}")
        return [_series(one) for one in answer["result"]]

    def values(self, query: str, *, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """What an expression gives at equal steps (a range query), by series.

        Args:
            query: PromQL.
            start_s: Unix time, as is the end.
            end_s: after the start.
            step_s: between two values.

        Raises:
            QueryFailure: it does not answer, or does not take the expression.
        """
        times = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        answer = self._ask("query_range", query=query, **times)
        return [_series(one) for one in answer["result"]]

    def value(self, query: str) -> float | None:
        """The sum of the series that an expression gives now; None where it gives none.

        Raises:
            QueryFailure: it does not answer, or does not take the expression.
        """
        answer = self._ask(query=query)
        if answer["resultType"] == "scalar":
            values = [float(answer["result"][1])]
        else:
            values = [float(one["value"][1]) for one in answer["result"] if "value" in one]
        known = [value for value in values if math.isfinite(value)]
        return sum(known) if known else None

    def _ask(self, endpoint: str = "query", /, **form: str) -> Any:
        request = urllib.request.Request(  # noqa: S310  (checked in parse_prometheus)
            f"{self.url}/api/v1/{endpoint}",
            data=urllib.parse.urlencode(form).encode(),
            headers=dict(self.headers),
        )
        try:
            with url_opener(None).open(request, timeout=QUERY_TIMEOUT_S) as response:
                document = json.loads(response.read())
            return document["data"]
        except urllib.error.HTTPError as error:
            said = " ".join(error.read(500).decode("utf-8", "replace").split())
            raise QueryFailure(f"{self.url} refuses the query ({error.code}): {said}") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise QueryFailure(f"{self.url} does not answer: {reason}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise QueryFailure(f"{self.url} answers, but not as a Prometheus does") from error


def parse_prometheus(
    url: str, headers: Iterable[str] = (), match: str = "", host_match: str = ""
) -> Prometheus:
    """Read an address, headers such as `Authorization: Bearer ...`, and matchers.

    Raises:
        UsageError: an address or a header that is none.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None:
        raise UsageError(
            f"--prometheus: the address of {parts.hostname} holds a name or a password, which is "
            "not sent",
            next_step="name it as a header: --prometheus-header 'Authorization: Basic ...'",
        )
    if parts.scheme not in _HTTP_SCHEMES or not parts.hostname or not _has_port(parts):
        raise UsageError(
            f"--prometheus {url}: no address",
            next_step="write it as http://HOST:9090 or https://HOST/PATH",
        )
    pairs = []
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(
                "--prometheus-header without a colon", next_step="write it as 'NAME: VALUE'"
            )
        pairs.append((name.strip(), value.strip()))
    plain = (one.strip().removeprefix("{").removesuffix("}") for one in (match, host_match))
    return Prometheus(url.rstrip("/"), tuple(pairs), *plain)


def _has_port(parts: urllib.parse.SplitResult) -> bool:
    """Whether the port is one, or is left to the scheme."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _series(entry: dict[str, Any]) -> Series:
    """One entry of a range vector or of a range query; NaN is not a sample.

    A native histogram has no values, but `histograms`: matchers of a whole target match those too.
    """
    pairs = [(float(at_s), float(value)) for at_s, value in entry.get("values", ())]
    known = [(at_s, value) for at_s, value in pairs if math.isfinite(value)]
    return Series(
        entry["metric"], tuple(at_s for at_s, _ in known), tuple(value for _, value in known)
    )
