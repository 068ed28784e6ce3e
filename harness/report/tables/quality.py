"""Teacher against students: metrics, lm-eval's tasks, and answers at every batch size."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics import metric_named
from harness.report.family_results import FamilyResults, reference_score
from harness.report.selection import best_of_variant, percentile_of, standing, strongest_teacher
from harness.report.tables.model import (
    Cell,
    Column,
    Table,
    decision_cell,
    lines,
    model_anchor,
    numeric,
    words,
)
from harness.types import BatchConsistency, Decision, QualityScore, Role, TaskEntry
from harness.words.numbers import (
    MISSING,
    count,
    factor,
    heading,
    megabytes,
    metric_span,
    metric_title,
    metric_value,
    millions,
    milliseconds,
    number,
    p_value,
    percent,
    points,
    relative_span,
    relative_value,
    span,
)

_UNSERVED_NOTE = (
    "Baselines are not served: they are reference points for quality only. Controls are served "
    "and scored to judge the distillation itself; neither is ever a candidate. "
    "In small type: 95% intervals."
)


_NOT_SERVED = (Cell(MISSING), Cell(MISSING), words("not served"))


def models_table(family: FamilyResults) -> Table:
    """Quality, size and speed of every variant, with the difference from the teacher's."""
    first, *others = family.metrics or ("",)
    paired = any(_p_values(family, name) for name in family.names)
    columns = [
        Column("Variant", numeric=False),
        *_score_columns(first),
        Column("Best throughput", family.throughput_unit),
        Column(f"{family.latency_title} then", "ms"),
        Column("Decision", "best trial", numeric=False),
        Column("Parameters", "M"),
        Column("Size", "MB"),
        *([Column("McNemar p")] if paired else []),
        *(column for metric in others for column in _score_columns(metric)),
    ]
    rows = [_model_row(family, name, paired=paired) for name in family.names]
    unserved = any(family.role(name) in {Role.BASELINE, Role.CONTROL} for name in family.names)
    return Table(
        caption=f"Models of {family.name}",
        columns=tuple(columns),
        rows=tuple(rows),
        note=_UNSERVED_NOTE if unserved else "",
    )


def _score_columns(metric: str) -> tuple[Column, ...]:
    return (Column(heading(metric)), Column("vs teacher", metric_title(metric))) if metric else ()


def _model_row(family: FamilyResults, name: str, *, paired: bool) -> tuple[Cell, ...]:
    """What the objective asks stands first; other metrics of quality come last."""
    variant = family.variant(name)
    first, *others = ([*_score_cells(family, name, metric)] for metric in family.metrics or ("",))
    speed = _speed_cells(family, name) if variant else _NOT_SERVED
    parameters = variant.parameters if variant else None
    size_bytes = variant.size_bytes if variant else None
    size = (numeric(millions(parameters), parameters), numeric(megabytes(size_bytes), size_bytes))
    known = _p_values(family, name)
    tested = [numeric(p_value(known[0]), known[0]) if known else Cell(MISSING)] if paired else []
    name_cell = Cell(name, detail=str(family.role(name)), anchor=model_anchor(name))
    return (name_cell, *first, *speed, *size, *tested, *(cell for own in others for cell in own))


def _p_values(family: FamilyResults, name: str) -> list[float]:
    """Of a variant's answers to the study's own data; what lm-eval's tasks tell is another's."""
    own = (family.score(name, metric) for metric in family.metrics)
    return [one.p_value for one in own if one is not None and one.p_value is not None]


def _score_cells(family: FamilyResults, name: str, metric: str) -> tuple[Cell, ...]:
    if not metric:
        return ()
    score = family.score(name, metric)
    if score is None:
        return Cell(MISSING), Cell(MISSING)
    interval = metric_span(metric, score.low, score.high)
    value = numeric(metric_value(metric, score.value), score.value, interval)
    if score is reference_score(family, metric):
        return value, words("reference")
    relative = score.relative_to_teacher
    detail = lines(_relative_span(score), _delta(family, score))
    return value, numeric(relative_value(metric, relative), relative, detail)


def _relative_span(score: QualityScore) -> str:
    return relative_span(score.metric, score.relative_low, score.relative_high)


def _delta(family: FamilyResults, score: QualityScore) -> str:
    teacher = reference_score(family, score.metric)
    if teacher is None or not metric_named(score.metric).unit.is_share:
        return ""
    return points(score.value - teacher.value)


def _speed_cells(family: FamilyResults, name: str) -> tuple[Cell, ...]:
    best = best_of_variant(family, name)
    if best is None:
        return Cell(MISSING), Cell(MISSING), _no_trial_cell(family, name)
    teacher = strongest_teacher(family)
    rate = best.throughput_inferences_per_s
    ratio = ""
    if teacher and teacher.throughput_inferences_per_s and teacher is not best:
        ratio = f"{factor(rate / teacher.throughput_inferences_per_s)} teacher"
    latency = percentile_of(best, family.percentile)
    value = latency.value_ms if latency else None
    interval = span(milliseconds(latency.low_ms), milliseconds(latency.high_ms)) if latency else ""
    return (
        numeric(number(rate), rate, ratio),
        numeric(milliseconds(value), value, interval),
        _left_out_cell(family, name) or decision_cell(standing(family, best)[0]),
    )


def _left_out_cell(family: FamilyResults, name: str) -> Cell | None:
    """What stands in a decision's place, as on the terminal; None where the variant is there."""
    failed = next((one for one in family.failed if one.name == name), None)
    return None if failed is None else Cell("Left out", failed.cause, tone="fail", symbol="✕")


def _no_trial_cell(family: FamilyResults, name: str) -> Cell:
    """Why a variant has no best trial."""
    if (left_out := _left_out_cell(family, name)) is not None:
        return left_out
    rejections = family.verdict.rejected if family.verdict else ()
    if any(r.variant == name and r.cause == "quality" for r in rejections):
        return decision_cell(Decision.FAIL, "on quality")
    return words("no valid trial" if family.trials_of(name) else "not load-tested")


def consistency_table(family: FamilyResults, checks: Sequence[BatchConsistency]) -> Table | None:
    """Whether batch size changed predictions, and how many; None where it was not checked."""
    names = [variant.name for variant in family.variants]
    own = [check for check in checks if check.variant in names]
    sizes = sorted({check.batch_size for check in own})
    if not own:
        return None
    found = {(check.variant, check.batch_size): check for check in own}
    rows = [
        (words(name), *(_consistency_cell(found.get((name, size))) for size in sizes))
        for name in names
        if any(check.variant == name for check in own)
    ]
    return Table(
        caption="Same answers at every batch size?",
        columns=(
            Column("Variant", numeric=False),
            *(Column(f"Batch {size}", numeric=False) for size in sizes),
        ),
        rows=tuple(rows),
        note="Predictions of the same samples, against batch 1; in small type, the largest "
        "absolute difference of an output.",
    )


def _consistency_cell(check: BatchConsistency | None) -> Cell:
    if check is None:
        return Cell(MISSING)
    difference = check.max_abs_difference
    # Of a server that tells texts alone there are no numbers to compare.
    alike = "" if check.changed_predictions else "identical outputs"
    detail = f"differs by at most {number(difference)}" if difference else alike
    samples = count(check.samples)
    if check.changed_predictions == 0:
        others = 1 - 0.025 ** (1 / max(1, check.samples))  # exact upper bound of none of this many
        detail += f"; of other samples at most {percent(others)} change (95%)"
        return Cell(f"all {samples} the same", detail=detail, tone="pass", symbol="✓")
    changed = f"{count(check.changed_predictions)} of {samples} changed"
    return Cell(changed, detail=detail, tone="undecided", symbol="≠")


def task_table(family: FamilyResults) -> Table | None:
    """A row per task and metric, a column per variant; None where no task was asked."""
    metrics = family.task_metrics
    if not metrics:
        return None
    names = [variant.name for variant in family.variants]
    return Table(
        caption="lm-evaluation-harness",
        columns=(Column("Task/metric", numeric=False), *(Column(name) for name in names)),
        rows=tuple(
            (words(metric), *(_cell(family, name, metric) for name in names)) for metric in metrics
        ),
        note="Scored through the endpoint. In small type: 95% intervals, then the value over the "
        "teacher's, on the same documents."
        + "".join(f" {one}." for one in known_before(family.tasks)),
    )


def known_before(tasks: Sequence[TaskEntry]) -> tuple[str, ...]:
    """What was not asked again, in words, a task and variant each; nothing where all was."""
    return tuple(
        f"{one.variant}, {one.task}: {one.from_cache} of {one.from_cache + one.asked} answers were "
        "known from an earlier run of the same model"
        for one in tasks
        if one.from_cache
    )


def _cell(family: FamilyResults, name: str, metric: str) -> Cell:
    score = family.score(name, metric)
    if score is None:
        return Cell(MISSING)
    relative = ""
    if score.relative_to_teacher is not None and name != family.names[0]:
        relative = f"{relative_value(metric, score.relative_to_teacher)} of teacher"
    detail = lines(metric_span(metric, score.low, score.high), relative)
    return numeric(metric_value(metric, score.value), score.value, detail)
