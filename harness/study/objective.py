"""The objective's little language: text in, a `ServiceLevelObjective` out.

    p95 < 50ms, accuracy >= 90% of teacher, error_rate < 0.1%, throughput >= 200/s
    p95 < 50 ms at >= 90% of the teacher's accuracy

Grammar (case does not matter; all clauses must hold):

    objective = clause { separator clause }
    separator = "," ["and" | "at"] | "and" | "at"
    clause    = metric operator amount | operator relative quality
    metric    = name | span statistic                         ttft p95 is ttft_p95
    amount    = ["-"] number [unit] | relative [quality]      quality only repeats the metric
                                                            cost: /1M tokens is output_token_cost
    relative  = number ("%" | "x") ["of"] ["the"] ("teacher" | "teacher's")
    operator  = "<" | "<=" | "≤" | ">" | ">=" | "≥"

Which metrics there are, in which units, and whether their bound is an upper or a lower one, stands
in `harness.metrics`; a throughput counts inferences (samples), not requests.
A relative amount is a factor of the teacher's own value, taken on the same samples. A bound that
no model can meet, or that every model meets, is an error: each metric has the range of what it can
be.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from pydantic.config import JsonDict

from harness.errors import ObjectiveError, did_you_mean
from harness.metrics import (
    COST,
    METRICS,
    WRITING_COST,
    latencies_of,
    metric_named,
    quality_metrics,
)
from harness.system.strict import written
from harness.types import SPANS, Constraint, LatencySpan, ServiceLevelObjective
from harness.types.metrics import Metric
from harness.words.numbers import amount

EXAMPLE = "p95 < 50 ms, accuracy >= 90% of teacher"
"""Also what a study asks for that names no objective."""
_OPERATORS = {"<": "<", "<=": "<=", "≤": "<=", ">": ">", ">=": ">=", "≥": ">="}
_TEACHER = ("teacher", "teacher's")
_FACTORS = {"%": 0.01, "x": 1.0}
_SPELLINGS = {
    **{"\u00d7": "x", "\u00b5s": "us", "\u03bcs": "us"},
    **{"rouge1": "rouge_1", "rouge2": "rouge_2", "rougel": "rouge_l"},
}
"""What people copy in: the multiplication sign, both of Unicode's micros, rouge-score's names."""

_TOKEN = re.compile(
    r"(?P<number>-?[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+)"
    r"|(?P<word>[a-z_\u00b5\u03bc][a-z0-9_]*(?:[.-][a-z0-9_]+)*(?:['\u2019]s\b)?)"
    r"|(?P<sign><=|>=|[<>≤≥]|/\s*[a-z0-9]+\b|[%\u00d7,])"
    r"|(?P<other>\S)",
    re.IGNORECASE,
)


def parse_objective(text: str, *, judged: bool = True) -> ServiceLevelObjective:
    """Read an objective; the grammar stands at the top of this module.

    Args:
        text: as it was written.
        judged: whether anything is still to be judged by it. What an earlier run was judged by is
            read also where no model could have met it.

    Raises:
        ObjectiveError: with a caret under the place, and what was expected there.
    """
    return ServiceLevelObjective(
        text=text, constraints=tuple(_Parser(text, judged=judged).clauses())
    )


def _objective_text(slo: ServiceLevelObjective) -> str:
    return slo.text


Objective = Annotated[ServiceLevelObjective, written(parse_objective, _objective_text)]
"""A study's objective as a field: parsed once, when the file is read."""


def describe_objective(schema: JsonDict) -> None:
    """Write into a field's JSON schema which metrics there are, each with an example."""
    clauses = "; ".join(f"{metric.clause} ({metric.of})" for metric in METRICS.values())
    said = schema.get("description", "")
    schema["description"] = (
        f"{said} Clauses that must all hold, on any of these metrics: {clauses}. A quality may be "
        "bounded by the teacher's own: accuracy >= 90% of teacher, perplexity <= 1.1x teacher."
    ).strip()
    if schema.get("default"):
        schema["default"] = EXAMPLE
    schema["examples"] = [EXAMPLE, *(metric.clause for metric in METRICS.values())]


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

    def __init__(self, text: str, *, judged: bool) -> None:
        self._text = text
        self._judged = judged
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

    def _error(
        self, token: _Token, problem: str, expected: str, *, what: str = "does not parse"
    ) -> ObjectiveError:
        shown = "".join(c if c.isprintable() else " " for c in self._text)
        caret = " " * token.start + "^" * max(1, token.end - token.start)
        return ObjectiveError(
            f"the objective {what}: {problem}\n  {shown}\n  {caret}\n  {expected}",
            next_step=f"an objective looks like: {EXAMPLE}",
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
        opening = None if first.text in _OPERATORS else self._metric()
        operator_token = self._next
        operator = self._operator()
        amount_token = self._next
        number, unit, relative = self._amount()
        metric = metric_named(self._closing_metric(opening, relative=relative))
        if metric.name == COST and self._next.text in {"output", "tokens"}:
            metric = self._tokens_priced()
        self._check_direction(operator_token, metric, upper=operator.startswith("<"))
        if not relative:
            self._check_unit(amount_token, metric, unit)
            if metric.unit.is_share and metric.lower_is_better and (number, unit) == (1, ""):
                problem = "1 is all of it, which nearly everything stays under: is 1% meant?"
                raise self._error(amount_token, problem, "expected 1%, or 100%")
            value = _scaled(number, metric.unit.scales[unit])
        elif metric.is_quality:
            value = _scaled(number, _FACTORS[unit])
        else:
            problem = f"{metric.name} cannot be relative to the teacher"
            raise self._error(amount_token, problem, f"expected a bound such as {metric.example}")
        written = self._text[first.start : self._tokens[self._position - 1].end]
        clause = Constraint(metric.name, operator, value, relative, written)
        if self._judged and (idle := _idle(clause)):
            raise self._error(amount_token, *idle, what="decides nothing")
        return clause

    def _metric(self) -> str:
        token = self._next
        if token.text in METRICS:
            return self._take().text
        if (span := SPANS.get(token.text)) is not None and span.judged:
            return self._statistic(span)
        known = f"expected one of: {', '.join(METRICS)}"
        if token.kind == "word":
            raise self._error(
                token, f"unknown metric '{token.text}'", _hint(token.text, METRICS) + known
            )
        raise self._error(token, "a metric is missing here", known)

    def _statistic(self, span: LatencySpan) -> str:
        """The metric that a span and one of its statistics make, written apart: `ttft p95`."""
        token, by_statistic = self._take(), {one.statistic: one for one in latencies_of(span)}
        if self._next.text in by_statistic:
            return by_statistic[self._take().text].name
        problem = f"which statistic of the {span.in_words}?"
        raise self._error(token, problem, f"expected one of: {', '.join(by_statistic)}")

    def _operator(self) -> str:
        if self._next.text in _OPERATORS:
            return _OPERATORS[self._take().text]
        raise self._error(self._next, "a comparison is missing here", "expected <, <=, > or >=")

    def _amount(self) -> tuple[float, str, bool]:
        """The number as written, its unit, and whether it is a factor of the teacher's value."""
        if self._next.kind != "number":
            raise self._error(
                self._next, "a number is missing here", "expected a number, such as 50"
            )
        number = float(self._take().text)
        units = {unit for metric in METRICS.values() for unit in metric.unit.scales if unit}
        unit_token = self._accept([*units, *_FACTORS])
        unit = unit_token.text if unit_token else ""
        if unit in _FACTORS and self._next.text in {"of", "the", *_TEACHER}:
            self._teacher()
            return number, unit, True
        if unit_token and unit not in units:
            raise self._error(
                self._next, f"'{unit}' of what?", "expected 'teacher', as in 1.10x teacher"
            )
        if self._next.text in {"of", "the", *_TEACHER}:
            problem = "a share of the teacher needs % or x after its number"
            raise self._error(self._next, problem, "expected 90% of teacher, or 0.9x teacher")
        return number, unit, False

    def _teacher(self) -> None:
        self._accept(["of"])
        self._accept(["the"])
        if self._accept(_TEACHER) is None:
            problem = "bounds can be relative to the teacher only"
            raise self._error(self._next, problem, "expected 'teacher', as in 90% of teacher")

    def _closing_metric(self, opening: str | None, *, relative: bool) -> str:
        """The metric after `teacher`: it names the clause's metric, or repeats it."""
        token = self._next
        qualities = [metric.name for metric in quality_metrics()]
        if relative and token.text in qualities:
            if opening not in {None, token.text}:
                problem = f"the clause began with {opening} but ends with {token.text}"
                raise self._error(token, problem, f"expected {opening}, or nothing")
            return self._take().text
        if opening is not None:
            return opening
        if not relative:
            expected = f"expected a metric before the comparison: {', '.join(METRICS)}"
            raise self._error(token, "this clause names no metric", expected)
        expected = f"expected one of: {', '.join(qualities)}"
        hint = _hint(token.text, qualities)
        raise self._error(token, "which of the teacher's metrics?", hint + expected)

    def _tokens_priced(self) -> Metric:
        """The metric of a cost `per million tokens`; those that are written."""
        self._accept(["output"])
        if self._accept(["tokens"]) is None:
            raise self._error(self._next, "output of what?", "expected 'tokens'")
        return metric_named(WRITING_COST)

    def _check_direction(self, operator: _Token, metric: Metric, *, upper: bool) -> None:
        wanted = metric.lower_is_better
        if upper is not wanted:
            problem = f"{metric.name} needs {'an upper' if wanted else 'a lower'} bound"
            expected = f"expected {'< or <=' if wanted else '> or >='}"
            raise self._error(operator, problem, expected)

    def _check_unit(self, amount: _Token, metric: Metric, unit: str) -> None:
        scales = metric.unit.scales
        if unit in scales:
            return
        named = ", ".join(name for name in scales if name)
        problem = f"{metric.name} needs a unit"
        # A word behind the number was meant as one, unless a clause could begin with it.
        foreign = self._next.kind == "word" and self._next.text not in {"and", "at", *METRICS}
        if foreign:
            amount, unit = self._next, self._next.text
        if unit:
            problem = f"{metric.name} is not measured in '{unit}'"
        rule = f"expected {named}" if named else "expected a bare number"
        raise self._error(amount, problem, f"{rule}, as in {metric.example}")


def _idle(clause: Constraint) -> tuple[str, str] | None:
    """Why a clause decides nothing, and what was expected; None for one that decides.

    Its bound lies beyond the best value that the metric can have, or at it (no interval ends
    there), or beyond the worst.
    """
    metric, value = metric_named(clause.metric), clause.value
    if not math.isfinite(value):
        problem = f"this is no bound: {metric.title} is always finite"
        return problem, f"expected a finite amount, as in {_example(clause)}"
    low, high = (0.0, math.inf) if clause.relative_to_teacher else metric.possible
    best, worst = (low, high) if metric.lower_is_better else (high, low)
    tighter = best - value if metric.lower_is_better else value - best
    looser = value - worst if metric.lower_is_better else worst - value
    strict = clause.operator in {"<", ">"}
    sides = ("below", "above") if metric.lower_is_better else ("above", "below")
    limit = best if tighter >= 0 else worst
    at = amount(dataclasses.replace(clause, value=limit))
    if tighter > 0 or (tighter == 0 and strict):
        problem = f"no model can meet this: {metric.title} is never {sides[0]} {at}"
    elif tighter == 0:
        problem = (
            f"no measurement can show this: {metric.title} would have to be {at} without any doubt"
        )
    elif looser > 0 or (looser == 0 and not strict):
        problem = f"every model meets this: {metric.title} is never {sides[1]} {at}"
    else:
        return None
    side = "more" if limit == low else "less"
    return problem, f"expected {side} than {at}, as in {_example(clause)}"


def _example(clause: Constraint) -> str:
    metric = metric_named(clause.metric)
    if not clause.relative_to_teacher:
        return metric.example
    return "1.1x teacher" if metric.lower_is_better else "90% of teacher"


def _scaled(number: float, scale: float) -> float:
    """Product rounded to 12 digits, so that 0.1% is 0.001 and 110% is 1.1 exactly."""
    return float(f"{number * scale:.12g}")


def _hint(word: str, known: Collection[str]) -> str:
    question = did_you_mean(word.replace("-", "_"), known)
    return f"{question} " if question else ""
