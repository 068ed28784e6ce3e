"""One scrape of Triton's `/metrics`: the gauges and the failure reasons the statistics lack."""

from __future__ import annotations

import math
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from harness.system.connections import url_opener

SCRAPE_TIMEOUT_S = 1.0
"""A scrape stands at the boundary of a measuring window: better none than a late one."""


def scrape(
    url: str,
    *,
    timeout_s: float = SCRAPE_TIMEOUT_S,
    headers: Sequence[tuple[str, str]] = (),
    tls: ssl.SSLContext | None = None,
) -> str | None:
    """The text of a metrics page, or None where nothing answers.

    Args:
        url: http or https.
        timeout_s: for the connection, and then for each piece of the answer.
        headers: sent along, for a page that wants to know who asks.
        tls: which certificates to trust; the system's by default.
    """
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  (checked where it is read)
    try:
        with url_opener(tls).open(request, timeout=timeout_s) as response:
            body: bytes = response.read()
    except (urllib.error.URLError, OSError, HTTPException):
        return None
    return body.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class MetricsPage:
    """The samples of one scrape; every reading is None (or empty) where there is no series."""

    samples: tuple[Sample, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Parse the text format; a page in no such format holds no samples, and NaN is none."""
        try:
            families = list(text_string_to_metric_families(text or ""))
        except (ValueError, KeyError, IndexError):
            return cls()
        samples = (sample for family in families for sample in family.samples)
        return cls(tuple(sample for sample in samples if math.isfinite(sample.value)))

    def values(self, name: str, **labels: str) -> list[float]:
        """Values of all series of a metric that carry these labels, in the page's order."""
        return [sample.value for sample in self._select(name, labels.items())]

    def by_label(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Values of a metric summed by one label."""
        sums: dict[str, float] = {}
        for sample in self._select(name, labels.items()):
            key = sample.labels.get(label, "")
            sums[key] = sums.get(key, 0.0) + sample.value
        return sums

    def failed_by_reason(self, model: str, version: str = "") -> dict[str, int] | None:
        """Cumulative failed requests of a model by Triton's reason; None where not offered.

        Of one version, where that is known: a model has a series for each that is loaded.

        REJECTED, CANCELED, BACKEND or OTHER; zero counts are kept, as they mark where to count
        from.
        """
        labels = {"model": model, "version": version} if version else {"model": model}
        counts = self.by_label("nv_inference_request_failure", "reason", **labels)
        return {reason: int(count) for reason, count in counts.items()} if counts else None

    def _select(self, name: str, labels: Iterable[tuple[str, str]]) -> list[Sample]:
        # The parser gives every counter the suffix that OpenMetrics asks for and Triton omits.
        names = {name, f"{name}_total"}
        wanted = set(labels)
        return [
            sample
            for sample in self.samples
            if sample.name in names and wanted <= sample.labels.items()
        ]
