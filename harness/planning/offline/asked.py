"""A job as people write it: `10M` documents, three times a day, by `6h`."""

from __future__ import annotations

import math
import re

from harness.errors import UsageError
from harness.planning.capacity.demand import WHOLE, parse_seconds
from harness.types.offline import DAY_S, OfflineTerms
from harness.words.numbers import asked

_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_COUNT = re.compile(rf"(?P<number>{WHOLE}(?:\.[0-9]+)?)\s*(?P<thousands>[kmbg]?)", re.IGNORECASE)
MOST_DOCUMENTS = 10**12


def parse_documents(text: str) -> int:
    """Documents of a job.

    >>> parse_documents("10M"), parse_documents("2.5k"), parse_documents("1,000,000")
    (10000000, 2500, 1000000)

    Raises:
        UsageError: not a whole number above 0, or more than 10^12.
    """
    found = _COUNT.fullmatch(text.strip())
    exact = math.nan
    if found:
        number = float(re.sub(r"[,_ ]", "", found["number"]))
        exact = round(number * _THOUSANDS[found["thousands"].lower()], 6)
    if not (exact > 0 and exact == math.floor(exact) and exact <= MOST_DOCUMENTS):
        raise UsageError(
            f"'{text}' is not a number of documents above 0",
            next_step="write it as --documents 10M, 250k or 1,000,000",
        )
    return int(exact)


def parse_deadline(text: str) -> float:
    """Seconds until the last document has to be done: `6h`, `90min`.

    Raises:
        UsageError: not a length of time above 0 with its unit.
    """
    try:
        return parse_seconds(text)
    except UsageError as error:
        raise UsageError(
            f"a deadline after '{text}': {error}", next_step="write it as --deadline 6h or 90min"
        ) from error


def check_terms(terms: OfflineTerms) -> None:
    """Refuse a job that no machines could do as asked.

    Raises:
        UsageError: jobs of a day that overlap, or numbers that are not above 0.
    """
    for option, value in (
        ("--rows-per-document", terms.rows_per_document),
        ("--jobs-per-day", terms.jobs_per_day),
    ):
        if not 0 < value < math.inf:
            raise UsageError(f"{option} is {asked(value)}", next_step="it is more than 0")
    if terms.jobs_per_day * terms.deadline_s > DAY_S * (1 + 1e-9):
        noun = "job" if terms.jobs_per_day == 1 else "jobs"
        raise UsageError(
            f"{asked(terms.jobs_per_day)} {noun} per day of {asked(terms.deadline_s)} s each do "
            "not fit into a day one after another",
            next_step="say how many there are (--jobs-per-day 0.14 is one a week), give each less "
            "time (--deadline), or count jobs that run together as one",
        )
