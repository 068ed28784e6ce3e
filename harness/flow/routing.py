"""A router's threshold from a stored run: the answers of its models, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import RunFolderError, UsageError
from harness.planning.routing.curve import curve_of, point_at
from harness.planning.routing.guarantee import calibrate
from harness.planning.routing.rows import RoutedRows, confidence_of, split_rows
from harness.quality.collection import read_outcomes
from harness.report.family_results import FamilyResults, families_of
from harness.report.selection import best_of_variant
from harness.runs.folder import StoredRun, read_run, samples_file
from harness.tasks.classification.outcomes import ClassOutcomes
from harness.types import ModelVariant, Role
from harness.types.routing import Route, ServedModel

ROUTE = "route"
"""Name of the document that a router is kept in."""


@dataclass(frozen=True)
class RouteRequest:
    """What a router is to keep, and of which models."""

    keep: float
    """Share of the teacher's accuracy."""
    confidence: float
    student: str = ""
    """A variant's name; empty for the recommended one, or the only one."""
    teacher: str = ""
    """A variant's name; empty for the teacher's first."""
    student_usd_per_million: float | None = None
    teacher_usd_per_million: float | None = None
    seed: int | None = None
    """Seed of the split; None takes the study's."""


def route_run(folder: Path, request: RouteRequest) -> Route:
    """Choose a router's threshold on half of a run's scored rows, and tell it on the other half.

    Raises:
        RunFolderError: no run there, or its samples are missing or of other rows.
        UsageError: no such variant, a task without confidence, or no threshold that is supported.
    """
    run = read_run(folder)
    family, student = chosen_student(run, request.student)
    teacher = chosen_teacher(family, request.teacher)
    rows = read_rows(folder, student.name, teacher.name)
    seed = _seed(run) if request.seed is None else request.seed
    calibration, held_out = split_rows(rows, seed=seed)
    chosen = calibrate(calibration, keep=request.keep, confidence_level=request.confidence)
    (student_ms, student_trial), (teacher_ms, teacher_trial) = (
        _mean_latency(family, one.name) for one in (student, teacher)
    )
    served = (
        ServedModel(student_ms, request.student_usd_per_million),
        ServedModel(teacher_ms, request.teacher_usd_per_million),
    )
    return Route(
        family=family.name,
        student=student.name,
        teacher=teacher.name,
        student_sha256=student.sha256,
        teacher_sha256=teacher.sha256,
        chosen=chosen,
        at=point_at(held_out, chosen.threshold, served, seed=seed),
        curve=curve_of(held_out, served, seed=seed),
        held_out_rows=held_out.size,
        seed=seed,
        served=served,
        trials=(student_trial, teacher_trial),
    )


def read_rows(folder: Path, student: str, teacher: str) -> RoutedRows:
    """How two classifiers of a run answered its scored rows, through the endpoint.

    Raises:
        RunFolderError: a file is missing or damaged, or the two are not of the same rows.
        UsageError: the models are no classifiers, or their scores were not kept.
    """
    own, theirs = (read_outcomes(samples_file(folder, name)) for name in (student, teacher))
    if not isinstance(own, ClassOutcomes) or theirs.kind != ClassOutcomes.kind:
        raise UsageError(
            f"{student} answers a task of kind {own.kind} or without scores of its classes: a "
            "router needs the student's confidence in each answer",
            next_step="route between classifiers (task kind sequence-classification)",
        )
    if own.size != theirs.size:
        raise RunFolderError(
            f"{student} was scored on {own.size} rows and {teacher} on {theirs.size}",
            next_step="score both again, in a new run",
        )
    return RoutedRows(
        np.where(own.unanswered, 0.0, confidence_of(own.logits)), own.correct, theirs.correct
    )


def family_results(run: StoredRun, name: str) -> FamilyResults:
    """A run's family by its name."""
    return next(family for family in families_of(run) if family.name == name)


def chosen_student(run: StoredRun, name: str) -> tuple[FamilyResults, ModelVariant]:
    """The family of a student by name, or of the recommended or only one; and the student.

    Raises:
        UsageError: there is no such student, or no one to choose.
    """
    families = families_of(run)
    students = [
        (family, one) for family in families for one in family.variants if one.role is Role.STUDENT
    ]
    if name:
        chosen = [pair for pair in students if pair[1].name == name]
    else:
        best = {family.recommended.trial.variant for family in families if family.recommended}
        chosen = [pair for pair in students if pair[1].name in best] or students
    if len(chosen) != 1:
        known = ", ".join(one.name for _, one in students) or "none"
        problem = f"the run has no student '{name}': it has {known}"
        if not name and students:
            meant = ", ".join(one.name for _, one in chosen)
            problem = f"more than one student could be meant: {meant}"
        elif not name:
            problem = "the run has no student"
        raise UsageError(problem, next_step="name one with --student")
    return chosen[0]


def chosen_teacher(family: FamilyResults, name: str) -> ModelVariant:
    """A family's teacher by name, or its first.

    Raises:
        UsageError: there is none.
    """
    teachers = [one for one in family.variants if one.role is Role.TEACHER]
    chosen = [one for one in teachers if name in {"", one.name}]
    if not chosen:
        known = ", ".join(one.name for one in teachers) or "none"
        raise UsageError(
            f"the family '{family.name}' has no teacher '{name}': it has {known}",
            next_step="name one with --teacher",
        )
    return chosen[0]


def _mean_latency(family: FamilyResults, variant: str) -> tuple[float | None, str]:
    """At the variant's best trial, and which that is; nothing of an invalid one."""
    best = best_of_variant(family, variant)
    if best is None or not best.valid or best.latency is None:
        return None, ""
    return best.latency.mean_ms, best.trial.trial_id


def _seed(run: StoredRun) -> int:
    return int(run.manifest.get("seeds", {}).get("study", 0))
