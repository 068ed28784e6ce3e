"""A student's three roles, as tables that page, Markdown and terminal show alike."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.family_results import FamilyResults
from harness.report.roles.values import RoleFigures, RoleTrials, role_figures, role_trials
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types.estimates import Interval
from harness.types.roles import StudentRoles
from harness.words.numbers import (
    MISSING,
    count,
    factor,
    milliseconds,
    number,
    percent,
    span,
    threshold,
)


@dataclass(frozen=True)
class RolesSection:
    """What is shown of a student's roles, in order."""

    summary: str
    roles: Table
    draft: Table
    notes: tuple[str, ...]


def roles_section(family: FamilyResults) -> RolesSection | None:
    """Choose and word the roles; None where the study has no draft."""
    roles = family.roles
    if roles is None:
        return None
    trials = role_trials(family)
    return RolesSection(
        summary=_summary(roles, trials),
        roles=_roles_table(family, roles, trials),
        draft=_draft_table(roles, trials),
        notes=tuple(_notes(roles, trials)),
    )


def _summary(roles: StudentRoles, trials: RoleTrials) -> str:
    same = (
        f"all {count(roles.texts)} texts are the teacher's own, token for token"
        if roles.same_texts == roles.texts
        else f"{count(roles.texts - roles.same_texts)} of {count(roles.texts)} texts are not the "
        "teacher's own"
    )
    measured = trials.speedups(roles, 1)
    found = (
        f"the measured one {factor(sum(measured) / len(measured))}"
        if measured
        else "which no valid closed loop of one stream measured"
    )
    return (
        f"With {roles.student} as the draft of {roles.teacher} {same}; the predicted speed-up is "
        f"{factor(roles.predicted_speedup)}, {found}."
    )


def _roles_table(family: FamilyResults, roles: StudentRoles, trials: RoleTrials) -> Table:
    most = f"{count(trials.most)} in flight"
    return Table(
        caption="The student's three roles",
        columns=(
            Column("Role", numeric=False),
            Column("The teacher's own texts"),
            Column("ROUGE-L of the teacher's"),
            Column("Response, 1 in flight", "ms"),
            Column("Per token, 1 in flight", "ms"),
            Column(f"Written, {most}", "tokens/s"),
            Column("Server's time", "s per 1,000 answers"),
        ),
        rows=tuple(_role_row(one) for one in role_figures(family, roles, trials)),
        note="Means of closed loops in which the models took turns. The first stage of a cascade "
        "is an estimate: the student answers, and where its own text is too improbable to it the "
        "teacher answers after it, by both models' stored texts and by what each took alone. The "
        f"server's time is that with {most}: its price per hour makes the cost.",
    )


def _role_row(one: RoleFigures) -> tuple[Cell, ...]:
    estimate = "estimate" if one.is_estimate else ""
    return (
        words(one.role, one.who),
        _number(percent(one.own_texts), one.own_texts, estimate),
        _number(percent(one.rouge_kept), one.rouge_kept, estimate),
        _number(milliseconds(one.response_ms), one.response_ms, estimate),
        _number(milliseconds(one.per_token_ms), one.per_token_ms, estimate),
        _number(number(one.tokens_per_s), one.tokens_per_s, estimate),
        _number(number(one.machine_s), one.machine_s, estimate),
    )


def _number(text: str, value: float | None, detail: str) -> Cell:
    return _unknown() if value is None else numeric(text, value, detail)


def _unknown() -> Cell:
    return words(MISSING)


def _draft_table(roles: StudentRoles, trials: RoleTrials) -> Table:
    costs, unit = roles.costs, roles.costs.teacher_ms
    rows = [
        ("Tokens proposed in a step", count(roles.draft_tokens), ""),
        ("Accepted", percent(roles.acceptance.value), _span(roles.acceptance, percent)),
        (
            "Tokens that a run of the teacher adds",
            number(roles.tokens_per_run.value),
            _span(roles.tokens_per_run, number),
        ),
        (
            "Cost of a drafted token, of a token of the teacher's",
            percent(costs.draft_ms / unit),
            f"{milliseconds(costs.draft_ms)} ms",
        ),
        (
            "Cost of checking a draft, of a token of the teacher's",
            percent(costs.verification_ms / unit),
            f"{milliseconds(costs.verification_ms)} ms",
        ),
        ("Predicted speed-up", factor(roles.predicted_speedup), ""),
    ]
    for in_flight in sorted({1, trials.most}) if trials.results else ():
        found = trials.speedups(roles, in_flight)
        by_round = ", ".join(map(factor, found))
        value = factor(sum(found) / len(found)) if found else MISSING
        rows.append((f"Measured speed-up, {count(in_flight)} in flight", value, by_round))
    return Table(
        caption="The student as the teacher's draft",
        columns=(Column("", numeric=False), Column("Value"), Column("95% interval; detail")),
        rows=tuple((words(title), words(value), words(detail)) for title, value, detail in rows),
        note="Accepted: share of the places of the teacher's texts in which the draft would have "
        "written the same. Costs are medians of runs of one row, in turn, outside the server. "
        "Speed-ups are times per token behind the first, of the teacher alone over those with the "
        "draft; the measured ones by round.",
    )


def _span(found: Interval, word: object) -> str:
    assert callable(word)  # noqa: S101
    return span(word(found.low), word(found.high))


def _notes(roles: StudentRoles, trials: RoleTrials) -> list[str]:
    notes = []
    found = roles.cascade
    if found is None:
        notes.append(f"No cascade: {roles.no_cascade}.")
    else:
        sure = (
            "which these prompts support with 95% confidence"
            if found.guaranteed
            else "without a guarantee, because these prompts are too few for one"
        )
        below = "every prompt" if found.at.threshold > 1 else (
            f"prompts below a confidence of {threshold(found.at.threshold)}"
        )  # fmt: skip
        notes.append(
            f"Cascade: {below}, {percent(found.at.routed.value)} of the "
            f"{count(found.held_out_prompts)} held out, go to the teacher as well. The threshold "
            f"was chosen on {count(found.calibration_prompts)} others to keep "
            f"{percent(found.keep)} of the teacher's own texts, {sure}."
        )
    if trials.invalid:
        first = trials.invalid[0]
        notes.append(
            f"{count(len(trials.invalid))} of the {count(len(trials.results))} closed loops are "
            f"invalid and left out here; the first: {first.invalid_reason}"
        )
    return notes
