"""The tables of a decision: matrix, hard limits, ranking, sensitivity, risks, what is planned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.metrics import metric_named
from harness.report.review.figures import figure_cell, model_link, report_link
from harness.report.tables.model import (
    Cell,
    Column,
    Table,
    decision_cell,
    numeric,
    trial_anchor,
    words,
)
from harness.types.review import DecisionCandidate, DecisionMatrix
from harness.words.numbers import MISSING, heading, metric_title, number, percent


def matrix_table(matrix: DecisionMatrix, page_folder: Path) -> Table:
    """A row per candidate: hard limits, every figure with its interval, the front."""
    relative = {f.metric for one in matrix.candidates for f in one.figures if f.relative}
    rows = [_matrix_row(matrix, one, page_folder) for one in matrix.candidates]
    return Table(
        caption=f"Candidates of {matrix.family}",
        columns=(
            Column("Candidate", numeric=False),
            Column("Hard limits", numeric=False),
            *(_metric_column(name, of_teacher=name in relative) for name in matrix.metrics),
            Column("On the front", "probability"),
            Column("Surely dominated by", numeric=False),
        ),
        rows=tuple(rows),
        note="Each candidate at its own best trial, linked from its figures; in small type 95% "
        "intervals. On the front: the share of draws from all intervals in which no other "
        "candidate is at least as good in everything. Hard limits play no part in it.",
    )


def _metric_column(name: str, *, of_teacher: bool) -> Column:
    if of_teacher:
        return Column(heading(name), "of the teacher's")
    return Column(heading(name), metric_named(name).unit.suffix.strip())


def _matrix_row(
    matrix: DecisionMatrix, one: DecisionCandidate, page_folder: Path
) -> tuple[Cell, ...]:
    place = matrix.place(one.name)
    mark = "recommended" if one.name == matrix.recommended else ""
    role = str(one.role) if one.role else "router"
    missing = "\n".join(metric_title(name) for name in place.missing)
    front = percent(place.probability) if place.probability is not None else MISSING
    return (
        Cell(
            one.name,
            detail="\n".join(part for part in (role, mark) if part),
            symbol="★" if mark else "",
            link=model_link(one.run, one.variant, page_folder),
        ),
        decision_cell(one.decision),
        *(_figure(one, name, page_folder) for name in matrix.metrics),
        numeric(front, place.probability, f"{missing} not known" if missing else ""),
        words(", ".join(place.dominated_by)),
    )


def _figure(one: DecisionCandidate, metric: str, page_folder: Path) -> Cell:
    figure = one.figure(metric)
    cell = figure_cell(figure, page_folder)
    if figure is None or cell.link:
        return cell
    link = model_link(figure.run, one.variant, page_folder)
    return Cell(cell.text, detail=cell.detail, sort=cell.sort, link=link)


def limits_table(matrix: DecisionMatrix, page_folder: Path) -> Table:
    """Every clause of the objective for every candidate, with what it rests on."""
    rows = [
        (
            words(one.name),
            words(limit.text),
            decision_cell(limit.decision),
            Cell(
                limit.reason or MISSING,
                link=report_link(one.run, trial_anchor(limit.trial_id), page_folder)
                if limit.trial_id
                else "",
            ),
        )
        for one in matrix.candidates
        for limit in one.limits
    ]
    return Table(
        caption="Hard limits",
        columns=(
            Column("Candidate", numeric=False),
            Column("Clause", numeric=False),
            Column("Decision", numeric=False),
            Column("What it rests on", numeric=False),
        ),
        rows=tuple(rows),
        note="A clause passes when the unfavourable end of the interval meets it, and fails when "
        "the favourable end misses it.",
    )


def ranking_tables(matrix: DecisionMatrix) -> Iterator[Table]:
    """The order by the weights, and how far each weight may move; none without weights."""
    ranking = matrix.ranking
    if ranking is None:
        return
    weights = ", ".join(f"{metric_title(k)} {number(v)}" for k, v in ranking.weights.items())
    left_out = f" Not ranked: {'; '.join(ranking.left_out)}." if ranking.left_out else ""
    yield Table(
        caption=f"Ranking by the weights: {weights}",
        columns=(
            Column("Candidate", numeric=False),
            Column("Score", f"{ranking.reference} is 1"),
            Column("First", "of the draws"),
            Column("First", "of all weightings"),
        ),
        rows=tuple(
            (
                words(one.candidate),
                numeric(number(one.score), one.score),
                numeric(percent(one.first_probability), one.first_probability),
                numeric(percent(one.first_share), one.first_share),
            )
            for one in ranking.ranked
        ),
        note="Weighted geometric mean of each candidate's advantages over the reference. Of those "
        f"that no hard limit rules out; the teacher is the yardstick.{left_out}",
    )
    yield Table(
        caption="How far a weight may move before another ranks first",
        columns=(
            Column("Metric", numeric=False),
            Column("Weight"),
            Column("From"),
            Column("To"),
            Column("Below it", numeric=False),
            Column("Above it", numeric=False),
        ),
        rows=tuple(
            (
                words(metric_title(one.metric)),
                numeric(number(one.weight), one.weight),
                numeric(number(one.low), one.low),
                numeric("any" if one.high is None else number(one.high), one.high),
                words(one.below),
                words(one.above),
            )
            for one in ranking.ranges
        ),
        note="One weight at a time, the others held.",
    )


def risks_table(matrix: DecisionMatrix, page_folder: Path) -> Table:
    """What whoever signs should know."""
    return Table(
        caption="Risks",
        columns=(Column("Kind", numeric=False), Column("What", numeric=False)),
        rows=tuple(
            (
                words(risk.kind),
                Cell(
                    risk.text,
                    link=report_link(risk.run, trial_anchor(risk.trial_id), page_folder)
                    if risk.trial_id
                    else "",
                ),
            )
            for risk in matrix.risks
        ),
    )


def fact_tables(matrix: DecisionMatrix, page_folder: Path) -> Iterator[Table]:
    """What plans add, a table per heading."""
    for title in dict.fromkeys(fact.heading for fact in matrix.facts):
        yield Table(
            caption=title,
            columns=(Column("", numeric=False), Column("Value", numeric=False)),
            rows=tuple(
                (
                    words(fact.name),
                    Cell(
                        fact.value,
                        link=report_link(fact.run, trial_anchor(fact.trial_id), page_folder)
                        if fact.trial_id
                        else "",
                    ),
                )
                for fact in matrix.facts
                if fact.heading == title
            ),
        )
