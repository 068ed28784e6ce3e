"""Demand as people write it: `2000/s`, `120k/min`, `3x`."""

from __future__ import annotations

import math
import re

from harness.errors import UsageError

_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "m": 60.0,
    "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0,
}  # fmt: skip
_THOUSANDS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
WHOLE = r"(?:[1-9][0-9]{0,2}(?:[,_ ][0-9]{3})+|[0-9]+)"
"""The whole part of a number as a regular expression: digits, parted in threes or not at all. A
comma in any other place may be a decimal one, and 1,5k is not 15k."""
_RATE = re.compile(
    rf"(?P<number>{WHOLE}(?:\.[0-9]+)?(?:e\+?[0-9]+)?)\s*(?P<thousands>[kmg]?)\s*"
    r"(?:(?:req|reqs|requests|r)?\s*(?:/|per)\s*(?P<unit>[a-z]+)|(?P<rps>rps|qps))",
    re.IGNORECASE,
)
_FACTOR = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*[x\u00d7]?", re.IGNORECASE)
_LENGTH = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[a-z]+)", re.IGNORECASE)
_SHARE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*%")


def parse_rate(text: str) -> float:
    """Requests per second.

    >>> parse_rate("2000/s"), parse_rate("120k/min"), parse_rate("86.4M requests/day")
    (2000.0, 2000.0, 1000.0)

    Raises:
        UsageError: no rate, no unit of time, or nothing above 0.
    """
    found = _RATE.fullmatch(text.strip())
    unit = (found["unit"] or "s").lower() if found else ""
    if not found or unit not in _SECONDS:
        raise UsageError(
            f"'{text}' is not a rate: a number of requests and the time that it is for",
            next_step="write it as --demand 2000/s, 120k/min or 5M/day",
        )
    number = float(re.sub(r"[,_ ]", "", found["number"]))
    rate = number * _THOUSANDS[found["thousands"].lower()] / _SECONDS[unit]
    if not rate > 0 or math.isinf(rate):
        raise UsageError(
            f"a demand of {text} needs no replica", next_step="name a rate above 0: 2000/s"
        )
    return rate


def parse_peak(text: str) -> float:
    """The peak over the mean, at least 1: `3x` or `3`.

    Raises:
        UsageError: not a factor, or below 1.
    """
    found = _FACTOR.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"'{text}' is not a factor", next_step="write the peak over the mean as --peak 3x"
        )
    factor = float(found["number"])
    if factor < 1:
        raise UsageError(
            f"a peak of {text} is below the mean", next_step="a peak is 1x of the mean or more"
        )
    return factor


def parse_seconds(text: str) -> float:
    """A length of time in seconds: `10min`, `90s`.

    Raises:
        UsageError: not a length of time above 0 with its unit.
    """
    found = _LENGTH.fullmatch(text.strip())
    unit = found["unit"].lower() if found else ""
    if not found or unit not in _SECONDS or not float(found["number"]) > 0:
        raise UsageError(
            f"'{text}' is not a length of time above 0", next_step="write it as 90s or 10min"
        )
    return float(found["number"]) * _SECONDS[unit]


def parse_unavailable(text: str) -> float:
    """A share of the replicas, as in Kubernetes' `maxUnavailable`: `25%`.

    Raises:
        UsageError: not a percentage, or 100% and more.
    """
    found = _SHARE.fullmatch(text.strip())
    share = float(found["number"]) / 100 if found else 1.0
    if share >= 1:
        raise UsageError(
            f"'{text}' is not a share of the replicas that may be away at a time",
            next_step="write it as 25%; it must be below 100%",
        )
    return share
