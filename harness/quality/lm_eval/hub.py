"""Whether the data-set hub can be reached; where not, only the local cache is looked into."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Hub:
    """Whether the data-set hub can be reached, asked once."""

    missing: bool


@contextmanager
def hub_or_cache(*, needed: bool) -> Iterator[Hub]:
    """Where the hub cannot be reached, let the libraries look into their local cache alone.

    They would try again and again for minutes; off line they say at once what they lack.
    """
    import datasets
    import huggingface_hub.constants as hub_constants

    if not needed or hub_constants.HF_HUB_OFFLINE or _reachable(hub_constants.ENDPOINT):
        yield Hub(missing=needed and bool(hub_constants.HF_HUB_OFFLINE))
        return
    before = hub_constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    hub_constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield Hub(missing=True)
    finally:
        hub_constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _reachable(url: str) -> bool:
    proxy = next((os.environ[n] for n in ("HTTPS_PROXY", "https_proxy") if os.environ.get(n)), "")
    asked = proxy or url
    # Clients take `proxy:3128` for one of http; without a scheme it would be no host at all.
    parts = urlsplit(asked if "://" in asked else f"http://{asked}")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False
