"""How numbers, metrics, their values and their bounds read: one spelling, everywhere.

A metric is given by its name, as scores and clauses carry it. Of lm-eval's own metrics (whose
names are `TASK/METRIC`) those that the registry does not have are plain numbers.
"""

from __future__ import annotations

import math
import re

from harness.metrics import TASK_SEPARATOR, described, metric_named
from harness.types import Constraint, QualityScore
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import MILLISECONDS

_OPERATORS = {"<": "under", "<=": "at most", ">": "over", ">=": "at least"}


def metric_title(metric: str) -> str:
    """A metric's name as it is commonly written; of an lm-eval task as lm-eval has it."""
    return metric if TASK_SEPARATOR in metric else metric_named(metric).title


def heading(metric: str) -> str:
    """A metric's name at the head of a column or row; one with capitals inside as it is (nDCG)."""
    title = metric_title(metric)
    own = TASK_SEPARATOR in metric or any(map(str.isupper, re.split(r"\W", title)[0][1:]))
    return title if own else title[:1].upper() + title[1:]


def metric_value(metric: str, value: float | None) -> str:
    """A value without its unit, but for a share's: `97.2%`, `41.3`."""
    known = described(metric)
    if known is not None and known.unit.is_share:
        return percent(value)
    return milliseconds(value) if known and known.unit is MILLISECONDS else number(value)


def metric_span(metric: str, low: float | None, high: float | None) -> str:
    """An interval of values, without a unit but for a share's percent sign."""
    return span(metric_value(metric, low), metric_value(metric, high))


def with_unit(metric: str, text: str) -> str:
    """A value or an interval with its unit behind it: `41.3 ms`; nothing behind `unbounded`."""
    return f"{text}{metric_named(metric).unit.suffix if text[-1:].isdigit() else ''}"


def relative_value(metric: str, value: float | None) -> str:
    """A value over the teacher's: a share of its accuracy, a factor of its perplexity."""
    known = described(metric)
    if known is None or known.lower_is_better:
        return factor(value)
    return percent(value)


def relative_span(metric: str, low: float | None, high: float | None) -> str:
    """An interval of such ratios."""
    return span(relative_value(metric, low), relative_value(metric, high))


def relative_title(score: QualityScore) -> str:
    """`of the teacher's accuracy`, as it follows a relative value."""
    return f"of the teacher's {metric_title(score.metric)}"


def amount(constraint: Constraint) -> str:
    """A clause's bound with its unit, as exact as it was asked: `50 ms`, `90%`."""
    metric, value = metric_named(constraint.metric), constraint.value
    if constraint.relative_to_teacher:
        return f"{asked(value)}{TIMES}" if metric.lower_is_better else asked_percent(value)
    return asked_percent(value) if metric.unit.is_share else f"{asked(value)}{metric.unit.suffix}"


def bound(constraint: Constraint) -> str:
    """What a clause asks for: `at least 90%`, `under 50 ms`."""
    return f"{_OPERATORS[constraint.operator]} {amount(constraint)}"


EN_DASH, TIMES, MINUS = "\u2013", "\u00d7", "\u2212"
MISSING = EN_DASH
UNBOUNDED = "unbounded"
NO_INTERVAL = "interval unknown"
"""Where neither end is known: from nothing to unbounded tells nobody anything."""
_NOTHING_YET = frozenset({"0", "0.0%", MISSING, UNBOUNDED})
_SMALLEST_P_VALUE = 0.001
_SMALLEST_PLAIN = 1e-3
_NOTHING = 1e-6
"""A percentage this near to 0 or 100 is at it, but for rounding."""
_HALF_A_TENTH = 0.05
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Three significant digits up to 1000, whole numbers with separators from there on.

    >>> number(0.01234), number(9.876), number(87.65), number(11552.3)
    ('0.0123', '9.88', '87.7', '11,552')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return UNBOUNDED
    if value == 0:
        return "0"
    rounded = round(value, _decimals(value))
    if abs(rounded) < _SMALLEST_PLAIN:
        return _scientific(value)
    # Rounding may have gained a digit: 9.999 is 10.0, not 10.00.
    return f"{rounded:,.{_decimals(rounded)}f}".replace("-", MINUS)


def _decimals(value: float) -> int:
    """Decimals that make three significant digits."""
    return max(0, 2 - math.floor(math.log10(abs(value))))


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.replace('-', MINUS)}{TIMES}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def count(value: int | None) -> str:
    """A whole number, exact: `12,345`."""
    return MISSING if value is None else f"{value:,}"


def things(how_many: int, name: str) -> str:
    """A number of things: `1 trial`, `1,200 trials`."""
    return f"{count(how_many)} {name}{'' if how_many == 1 else 's'}"


def whole(value: float | None) -> str:
    """A number of things or a rough length, rounded to a whole one: `12,345`."""
    return MISSING if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share of one as a percentage with one decimal: `97.2%`.

    More decimals where one would make nothing of something, or all of nearly all: `0.031%`,
    `99.97%`; only what is exactly so reads `0.0%` or `100.0%`.

    >>> percent(0.972), percent(0.00031), percent(0.9997), percent(0.0), percent(1.0)
    ('97.2%', '0.031%', '99.97%', '0.0%', '100.0%')
    """
    if share is None or math.isnan(share) or math.isinf(share):
        return MISSING
    value = share * 100
    below, beside = abs(value), abs(100 - value)
    if below <= _NOTHING:
        value = 0.0  # a difference may leave a minus before it
    if _NOTHING < below < _SMALLEST_PLAIN:
        return f"{_scientific(value)}%"
    decimals = 1
    if _NOTHING < below < 1:
        decimals = 1 - math.floor(math.log10(below))
    elif _NOTHING < beside < _HALF_A_TENTH:
        decimals = -math.floor(math.log10(beside))
    return f"{value:,.{decimals}f}%".replace("-", MINUS)


def asked(value: float) -> str:
    """A number that somebody chose, as exact as it was chosen: `50`, `0.25`, `1,200`."""
    return f"{value:,.10g}"


def asked_percent(share: float) -> str:
    """A share that somebody chose, as a percentage and as exact: `90%`, `0.1%`."""
    return f"{asked(share * 100)}%"


def confidence(level: float) -> str:
    """A level of confidence, as exact as it was chosen: `95%`, `97.5%`; below 1 never `100%`."""
    text = f"{level * 100:.3g}"
    if text == "100" and level < 1:
        text = f"{level * 100:.{2 - math.floor(math.log10(100 * (1 - level)))}g}"
    return f"{text}%"


def factor(value: float | None) -> str:
    """A ratio with the sign of multiplication behind it."""
    return MISSING if value is None or not math.isfinite(value) else f"{number(value)}{TIMES}"


def milliseconds(value: float | None) -> str:
    """A latency without its unit; a bound that could not be given reads 'unbounded'."""
    if value is not None and value >= UNBOUNDED_MS:
        return UNBOUNDED
    return number(value)


def latency(value: float | None) -> str:
    """A latency with its unit; one of a queue that never drained in words, without."""
    text = milliseconds(value)
    if text == MISSING:
        return text
    return f"{text}: the queue never drained" if text == UNBOUNDED else f"{text} ms"


def p_value(value: float | None) -> str:
    """A p-value; below 0.001 only that it is."""
    if value is None:
        return MISSING
    return "<0.001" if value < _SMALLEST_P_VALUE else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """A length of time without its unit, to a hundredth: `0.45`, `12`; more exact below it."""
    if value is None:
        return MISSING
    text = f"{value:,.2f}".rstrip("0").rstrip(".")
    return text if value == 0 or text.strip("-0") else number(value).rstrip("0")


def megabytes(size_bytes: int | None) -> str:
    """A size in MB (10^6 bytes), without its unit."""
    return MISSING if size_bytes is None else number(size_bytes / 1e6)


def millions(value: int | None) -> str:
    """A count in millions, without its unit."""
    return MISSING if value is None else number(value / 1e6)


POINT_DECIMALS = 2
"""Decimals of a difference in percentage points."""


def threshold(value: float) -> str:
    """A confidence below which another model is asked, to four digits: it will be copied.

    Near 1, where a model that is sure has nearly all of its confidences, more digits tell one from
    another: two of what is missing.

    >>> threshold(0.5), threshold(0.95257), threshold(0.99996), threshold(0.9999938558)
    ('0.5', '0.9526', '0.99996', '0.9999939')
    """
    missing = 1 - value
    digits = 4 if missing <= 0 else max(4, 1 - math.floor(math.log10(missing)))
    return f"{value:.{digits}g}"


def cosine(value: float | None) -> str:
    """The cosine of two vectors, to four decimals: near 1 is where they are told apart."""
    return MISSING if value is None or math.isnan(value) else f"{value:.4f}".replace("-", MINUS)


def points(share: float | None) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return signed(None if share is None else 100 * share, " points", decimals=POINT_DECIMALS)


def signed(value: float | None, unit: str = "", *, decimals: int = 1) -> str:
    """A difference with its sign; the minus is a real one, and no difference reads 0."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{abs(value):,.{decimals}f}"
    if not text.strip("0."):
        return f"0{unit}"
    return f"{'+' if value > 0 else MINUS}{text}{unit}"


def span(low: str, high: str) -> str:
    """An interval of two formatted numbers; nothing where neither is known, or bounded.

    An en dash stands between them, the word where one has a sign; a unit that both carry is written
    once. With one end unknown it says what the other does: `at least 3.33`.

    >>> span("3.33", UNBOUNDED), span("0", UNBOUNDED)
    ('at least 3.33', 'interval unknown')
    """
    if low == high and low in {MISSING, UNBOUNDED}:
        return ""
    if high in {MISSING, UNBOUNDED}:
        return NO_INTERVAL if low in _NOTHING_YET else f"at least {low}"
    if low in {MISSING, UNBOUNDED}:
        return f"at most {high}"
    if low[-1:] == high[-1:] and low[-1:] in {"%", TIMES}:
        low = low[:-1]
    has_sign = {low[:1], high[:1]} & {MINUS, "+"}
    return f"{low} to {high}" if has_sign else f"{low}{EN_DASH}{high}"
