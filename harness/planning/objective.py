"""The objective's little language: text in, a `ServiceLevelObjective` out.

    p95 < 50ms, accuracy >= 90% of teacher, error_rate < 0.1%, throughput >= 200/s
    p95 < 50 ms at >= 90% of the teacher's accuracy

Grammar (case does not matter; all clauses must hold):

    objective = clause { separator clause }
    separator = "," ["and" | "at"] | "and" | "at"
    clause    = metric operator amount | operator relative quality
    amount    = number [unit] | relative [quality]      quality only repeats the metric
    relative  = number ("%" | "x") ["of"] ["the"] ("teacher" | "teacher's")
    operator  = "<" | "<=" | "≤" | ">" | ">=" | "≥"

| metric                        | bound | amount                                             |
|-------------------------------|-------|----------------------------------------------------|
| p50, p90, p95, p99, mean      | upper | latency with its unit: us, ms, s                   |
| error_rate                    | upper | share of failed requests: 0.1% or 0.001            |
| throughput                    | lower | inferences (samples, not requests) a second: 200/s |
| accuracy, macro_f1,           | lower | 80%, 0.8, or relative                              |
| exact_match, f1               |       |                                                    |
| perplexity, bits_per_byte,    | upper | a number, or relative                              |
| word_perplexity,              |       |                                                    |
| byte_perplexity               |       |                                                    |

A relative amount is a factor of the teacher's own value, taken on the same samples.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.errors import ObjectiveError
from harness.types import Constraint, ServiceLevelObjective, TaskKind

LATENCY_METRICS = ("p50", "p90", "p95", "p99", "mean")

QUALITY_METRICS_BY_TASK: Mapping[TaskKind, tuple[str, ...]] = MappingProxyType(
    {
        TaskKind.SEQUENCE_CLASSIFICATION: ("accuracy", "macro_f1"),
        TaskKind.QUESTION_ANSWERING: ("exact_match", "f1"),
        TaskKind.CAUSAL_LM: ("perplexity", "bits_per_byte", "word_perplexity", "byte_perplexity"),
    }
)

QUALITY_METRICS = tuple(name for names in QUALITY_METRICS_BY_TASK.values() for name in names)

SURPRISE_METRICS = frozenset(QUALITY_METRICS_BY_TASK[TaskKind.CAUSAL_LM])
"""Lower is better, and there is no most."""

SHARE_METRICS = frozenset(QUALITY_METRICS) - SURPRISE_METRICS
"""Of 1, and the more the better."""

_SCALE_OF_UNIT: Mapping[str, float] = {"us": 1e-3, "ms": 1.0, "s": 1e3, "%": 0.01, "/s": 1.0}


@dataclass(frozen=True)
class _Quantity:
    """How a kind of metric is bounded and written."""

    upper_bound: bool
    units: tuple[str, ...]
    """The empty string: a bare number will do."""
    example: str
    """An amount, as a user would write it."""
    largest: float = math.inf


_LATENCY = _Quantity(True, ("us", "ms", "s"), "50 ms")
_ERROR_RATE = _Quantity(True, ("%", ""), "0.1%", largest=1.0)
_THROUGHPUT = _Quantity(False, ("/s",), "200/s")
_SCORE = _Quantity(False, ("%", ""), "80%", largest=1.0)
_SURPRISE = _Quantity(True, ("",), "20")

_METRICS: Mapping[str, _Quantity] = {
    **dict.fromkeys(LATENCY_METRICS, _LATENCY),
    "error_rate": _ERROR_RATE,
    "throughput": _THROUGHPUT,
    **{name: _SURPRISE if name in SURPRISE_METRICS else _SCORE for name in QUALITY_METRICS},
}

_OPERATORS = {"<": "<", "<=": "<=", "≤": "<=", ">": ">", ">=": ">=", "≥": ">="}
_TEACHER = ("teacher", "teacher's")
_FACTORS = {"%": 0.01, "x": 1.0}
_SPELLINGS = {"\u00d7": "x", "\u00b5s": "us", "\u03bcs": "us"}
"""Signs that people copy in: the multiplication sign, and both of Unicode's micros."""

_TOKEN = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+)"
    r"|(?P<word>[a-z_\u00b5\u03bc][a-z0-9_]*(?:[.-][a-z0-9_]+)*(?:['\u2019]s\b)?)"
    r"|(?P<sign><=|>=|[<>≤≥]|/\s*s\b|[%\u00d7,])"
    r"|(?P<other>\S)",
    re.IGNORECASE,
)


def parse_objective(text: str) -> ServiceLevelObjective:
    """Read an objective; the grammar stands at the top of this module.

    Raises:
        ObjectiveError: with a caret under the place, and what was expected there.
    """
    return ServiceLevelObjective(text=text, constraints=tuple(_Parser(text).clauses()))


@dataclass(frozen=True)
class _Token:
    kind: str
    """number, word, sign, other, or end."""
    text: str
    """Normalised: lower case, one spelling a sign."""
    start: int
    end: int


def _scan(text: str) -> list[_Token]:
    tokens = [
        _Token(match.lastgroup or "other", _normal(match.group()), match.start(), match.end())
        for match in _TOKEN.finditer(text)
    ]
    return [*tokens, _Token("end", "", len(text.rstrip()), len(text.rstrip()))]


def _normal(written: str) -> str:
    word = "".join(written.lower().split()).replace("\u2019", "'")
    return _SPELLINGS.get(word, word)


class _Parser:
    """Recursive descent over the tokens; `_next` is the one that is looked at."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _scan(text)
        self._position = 0

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        token = self._next
        self._position += 1
        return token

    def _accept(self, words: Collection[str]) -> _Token | None:
        return self._take() if self._next.text in words else None

    def _error(self, token: _Token, problem: str, expected: str) -> ObjectiveError:
        shown = "".join(c if c.isprintable() else " " for c in self._text)
        caret = " " * token.start + "^" * max(1, token.end - token.start)
        return ObjectiveError(
            f"the objective does not parse: {problem}\n  {shown}\n  {caret}\n  {expected}",
            next_step="an objective looks like: p95 < 50 ms, accuracy >= 90% of teacher",
        )

    def clauses(self) -> list[Constraint]:
        """All clauses, each metric bounded once absolutely and once relative at most."""
        found: dict[tuple[str, bool], Constraint] = {}
        while True:
            first = self._next
            clause = self._clause()
            key = (clause.metric, clause.relative_to_teacher)
            if key in found:
                problem = f"{clause.metric} is bounded twice"
                raise self._error(first, problem, f"keep one of: {found[key].text} | {clause.text}")
            found[key] = clause
            if self._next.kind == "end":
                return list(found.values())
            self._separator()

    def _separator(self) -> None:
        comma = self._accept([","])
        if self._accept(["and", "at"]) is None and comma is None:
            problem = f"'{self._next.text}' where the clause should have ended"
            raise self._error(self._next, problem, "expected a comma, 'and', 'at', or the end")

    def _clause(self) -> Constraint:
        first = self._next
        metric = None if first.text in _OPERATORS else self._metric()
        operator_token = self._next
        operator = self._operator()
        amount_token = self._next
        value, unit, relative = self._amount()
        metric = self._closing_metric(metric, relative=relative)
        quantity = _METRICS[metric]
        self._check_direction(operator_token, metric, upper=operator.startswith("<"))
        if relative:
            if metric not in QUALITY_METRICS:
                expected = f"expected a bound such as {quantity.example}"
                raise self._error(
                    amount_token, f"{metric} cannot be relative to the teacher", expected
                )
        else:
            self._check_unit(amount_token, metric, unit)
        self._check_value(amount_token, metric, value, relative=relative)
        written = self._text[first.start : self._tokens[self._position - 1].end]
        return Constraint(metric, operator, value, relative, written)

    def _metric(self) -> str:
        token = self._next
        if token.text in _METRICS:
            return self._take().text
        known = f"expected one of: {', '.join(_METRICS)}"
        if token.kind == "word":
            raise self._error(
                token, f"unknown metric '{token.text}'", _hint(token.text, _METRICS) + known
            )
        raise self._error(token, "a metric is missing here", known)

    def _operator(self) -> str:
        if self._next.text in _OPERATORS:
            return _OPERATORS[self._take().text]
        raise self._error(self._next, "a comparison is missing here", "expected <, <=, > or >=")

    def _amount(self) -> tuple[float, str, bool]:
        """Value in the metric's own unit or as a factor, the unit, and whether it is a factor."""
        if self._next.kind != "number":
            raise self._error(
                self._next, "a number is missing here", "expected a number, such as 50"
            )
        number = float(self._take().text)
        unit_token = self._accept([*_SCALE_OF_UNIT, *_FACTORS])
        unit = unit_token.text if unit_token else ""
        if unit in _FACTORS and self._next.text in {"of", "the", *_TEACHER}:
            self._teacher()
            return _scaled(number, _FACTORS[unit]), unit, True
        if unit_token and unit not in _SCALE_OF_UNIT:
            raise self._error(
                self._next, f"'{unit}' of what?", "expected 'teacher', as in 1.10x teacher"
            )
        if self._next.text in {"of", "the", *_TEACHER}:
            problem = "a share of the teacher needs % or x after its number"
            raise self._error(self._next, problem, "expected 90% of teacher, or 0.9x teacher")
        return _scaled(number, _SCALE_OF_UNIT.get(unit, 1.0)), unit, False

    def _teacher(self) -> None:
        self._accept(["of"])
        self._accept(["the"])
        if self._accept(_TEACHER) is None:
            problem = "bounds can be relative to the teacher only"
            raise self._error(self._next, problem, "expected 'teacher', as in 90% of teacher")

    def _closing_metric(self, opening: str | None, *, relative: bool) -> str:
        """The metric after `teacher`: it names the clause's metric, or repeats it."""
        token = self._next
        if relative and token.text in QUALITY_METRICS:
            if opening not in {None, token.text}:
                problem = f"the clause began with {opening} but ends with {token.text}"
                raise self._error(token, problem, f"expected {opening}, or nothing")
            return self._take().text
        if opening is not None:
            return opening
        if not relative:
            expected = f"expected a metric before the comparison: {', '.join(_METRICS)}"
            raise self._error(token, "this clause names no metric", expected)
        expected = f"expected one of: {', '.join(QUALITY_METRICS)}"
        hint = _hint(token.text, QUALITY_METRICS)
        raise self._error(token, "which of the teacher's metrics?", hint + expected)

    def _check_direction(self, operator: _Token, metric: str, *, upper: bool) -> None:
        wanted = _METRICS[metric].upper_bound
        if upper is not wanted:
            problem = f"{metric} needs {'an upper' if wanted else 'a lower'} bound"
            expected = f"expected {'< or <=' if wanted else '> or >='}"
            raise self._error(operator, problem, expected)

    def _check_unit(self, amount: _Token, metric: str, unit: str) -> None:
        quantity = _METRICS[metric]
        if unit in quantity.units:
            return
        named = ", ".join(name for name in quantity.units if name)
        problem = f"{metric} is not measured in '{unit}'" if unit else f"{metric} needs a unit"
        rule = f"expected {named}" if named else "expected a bare number"
        raise self._error(amount, problem, f"{rule}, as in {quantity.example}")

    def _check_value(self, amount: _Token, metric: str, value: float, *, relative: bool) -> None:
        if not 0 < value < math.inf:
            raise self._error(
                amount, f"no measurement can show {metric} to be so", "expected more than 0"
            )
        quantity = _METRICS[metric]
        if not relative and value > quantity.largest:
            problem = f"{metric} is a share and cannot exceed 1 (100%)"
            raise self._error(amount, problem, f"expected an amount such as {quantity.example}")


def _scaled(number: float, scale: float) -> float:
    """Product rounded to 12 digits, so that 0.1% is 0.001 and 110% is 1.1 exactly."""
    return float(f"{number * scale:.12g}")


def _hint(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word.replace("-", "_"), known, n=1)
    return f"did you mean {close[0]}? " if close else ""


def load_clauses(slo: ServiceLevelObjective) -> tuple[Constraint, ...]:
    """Those that a load decides: latency, throughput, error rate."""
    return tuple(one for one in slo.constraints if one.metric not in QUALITY_METRICS)


def quality_clauses(slo: ServiceLevelObjective) -> tuple[Constraint, ...]:
    """Those that no load decides."""
    return tuple(one for one in slo.constraints if one.metric in QUALITY_METRICS)
