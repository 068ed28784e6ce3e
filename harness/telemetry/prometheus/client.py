"""A Prometheus, asked for raw samples over its HTTP API (`/api/v1/query`).

https://prometheus.io/docs/prometheus/latest/querying/api/ - Thanos, Mimir, VictoriaMetrics and the
managed ones answer the same.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from harness.errors import UsageError
from harness.system.connections import url_opener
from harness.telemetry.prometheus.increase import Series

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
    """Those of the server's machine, as node_exporter and DCGM's exporter give it."""

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

    def _ask(self, **form: str) -> Any:
        request = urllib.request.Request(  # noqa: S310  (checked in parse_prometheus)
            f"{self.url}/api/v1/query",
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
    if parts.scheme not in _HTTP_SCHEMES or not parts.hostname:
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


def _series(entry: dict[str, Any]) -> Series:
    """One entry of a range vector; NaN is not a sample."""
    pairs = [(float(at_s), float(value)) for at_s, value in entry["values"]]
    known = [(at_s, value) for at_s, value in pairs if math.isfinite(value)]
    return Series(
        entry["metric"], tuple(at_s for at_s, _ in known), tuple(value for _, value in known)
    )
