"""How numbers read in a report: three significant digits, thousands separators, no false zeros.

What was not measured is an en dash, never zero.
"""

from __future__ import annotations

import math

EN_DASH, TIMES, MINUS = "\u2013", "\u00d7", "\u2212"
MISSING = EN_DASH
UNBOUNDED_MS = 3_600_000.0
"""The latency summary's largest recordable value stands for 'no upper bound could be given'."""
UNBOUNDED = "unbounded"
_SMALLEST_P_VALUE = 0.001
_SMALLEST_PLAIN = 1e-3
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Three significant digits up to 1000, whole numbers with separators from there on.

    >>> number(0.01234), number(9.876), number(87.65), number(11552.3)
    ('0.0123', '9.88', '87.7', '11,552')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    rounded = round(value, _decimals(value))
    if abs(rounded) < _SMALLEST_PLAIN:
        return _scientific(value)
    # Rounding may have gained a digit: 9.999 is 10.0, not 10.00.
    return f"{rounded:,.{_decimals(rounded)}f}"


def _decimals(value: float) -> int:
    """Decimals that make three significant digits."""
    return max(0, 2 - math.floor(math.log10(abs(value))))


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}{TIMES}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def count(value: int | None) -> str:
    """A whole number, exact: `12,345`."""
    return MISSING if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """A share of one as a percentage with one decimal: `97.2%`."""
    return MISSING if share is None or not math.isfinite(share) else f"{share * 100:.1f}%"


def confidence(level: float) -> str:
    """A level of confidence, as exact as it was chosen: `95%`, `97.5%`."""
    return f"{level * 100:.3g}%"


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
    """A length of time without its unit, to a hundredth: `0.45`, `12`."""
    if value is None:
        return MISSING
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def megabytes(size_bytes: int | None) -> str:
    """A size in MB (10^6 bytes), without its unit."""
    return MISSING if size_bytes is None else number(size_bytes / 1e6)


def millions(value: int | None) -> str:
    """A count in millions, without its unit."""
    return MISSING if value is None else number(value / 1e6)


def signed(value: float | None, unit: str = "") -> str:
    """A difference with its sign and one decimal; the minus is a real one."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{abs(value):.1f}"
    sign = "±" if float(text) == 0 else "+" if value > 0 else MINUS
    return f"{sign}{text}{unit}"


def span(low: str, high: str) -> str:
    """An interval of two formatted numbers; nothing where neither is known, or bounded.

    An en dash stands between them, and a unit that both carry is written once.
    """
    if low == high and low in {MISSING, UNBOUNDED}:
        return ""
    if low[-1:] == high[-1:] and low[-1:] in {"%", TIMES}:
        low = low[:-1]
    return f"{low}{EN_DASH}{high}"
