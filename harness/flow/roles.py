"""What a student that writes is worth beside its teacher: as its draft, and in front of it.

First, while nothing is timed: the model with the draft writes every prompt, which must give the
teacher's own texts; the draft is asked along these texts which of their tokens it would have
written; both decoders' runs are timed in turn; and the student is asked how probable its own texts
are to it, by which a cascade would choose. After the verdict teacher, student and the teacher with
its draft are driven in turn, each in the same closed loops.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import ServerError, UsageError
from harness.flow.options import RunSettings
from harness.flow.preparation import PreparedFamily
from harness.flow.scoring import SCORING_BATCH, outcomes_path
from harness.flow.serving import Served, check_after_failure
from harness.flow.spaces import serving_configs, streams_of
from harness.flow.trial import TrialRunner
from harness.planning.routing.curve import EVERYTHING, point_at
from harness.planning.routing.guarantee import THRESHOLDS, calibrate
from harness.planning.routing.rows import FEWEST_ROWS, RoutedRows, split_places
from harness.quality.collection import read_outcomes
from harness.quality.speculation.acceptance import Matches, acceptance_bounds, run_bounds
from harness.quality.speculation.measure import draft_matches, own_confidences
from harness.quality.speculation.speed import predicted_speedup
from harness.quality.writing import collect_texts
from harness.runs.folder import RunFolder
from harness.statistics.intervals import Bounds
from harness.study import Study
from harness.tasks.generation.outcomes import WrittenOutcomes
from harness.tasks.generation.rows import PromptDataset
from harness.tasks.generation.statistics import LOSS_METRIC, answered_by_both, compared
from harness.types import (
    ROLES,
    ArrivalProcess,
    LoadMode,
    ModelVariant,
    Progress,
    ServingConfig,
    Trial,
    Workload,
)
from harness.types.estimates import Interval
from harness.types.generation import DRAFT_FOLDER, SETTINGS_FILE, GeneratorSettings
from harness.types.roles import Cascade, StepCosts, StudentRoles
from harness.types.routing import ServedModel

_T = TypeVar("_T")
KEEP = 0.95
"""Share of the teacher's own texts that a cascade is to keep."""
CONFIDENCE = 0.95
ROUNDS = 2
"""Times that each model is driven, in turn."""
COST_ROUNDS = 25
"""Runs of each kind that a decoder's cost is the median of."""


def score_roles(
    study: Study,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    settings: RunSettings,
) -> None:
    """Score what the journal does not hold yet; a model that is not served is warned of.

    Raises:
        ServerError: the server died.
    """
    variant = prepared.speculative
    if variant is None or served.site.streams is None:
        return
    known = folder.journal.roles.get(prepared.family.name)
    if known is not None and known.sha256 == variant.sha256:
        return
    if {variant.drafted_by, variant.name} & folder.journal.failed.keys():
        settings.warn(f"{variant.name} is not measured: its draft is left out")
        return
    try:
        folder.journal.add(_scored(study, prepared, variant, served, folder, settings))
    except ServerError as error:
        check_after_failure(served.site.server)
        settings.warn(f"{variant.name} is not measured: {error}")


def measure_roles(
    study: Study,
    families: Sequence[PreparedFamily],
    runner: TrialRunner,
    folder: RunFolder,
    settings: RunSettings,
) -> None:
    """Drive teacher, draft and the model with both in turn, where the journal lacks it.

    Raises:
        ServerError: the server died.
    """
    for prepared in families:
        if prepared.family.name not in folder.journal.roles:
            continue
        trials = list(role_trials(study, prepared))
        for done, trial in enumerate(trials):
            stage = f"roles in {prepared.family.name}"
            settings.progress(Progress(stage, done, len(trials), trial.trial_id))
            runner.settle(trial, study.objective_of(prepared.family))


def role_trials(study: Study, prepared: PreparedFamily) -> Iterator[Trial]:
    """One stream, and as many as the study's largest closed loop, of each model, round by round."""
    variant, traffic = prepared.speculative, study.traffic_of(prepared.family)
    if variant is None:
        return
    plain = Workload(
        protocol=traffic.protocols[0],
        client_batch_size=1,
        concurrency=1,
        duration_s=traffic.duration_s,
        warmup_s=traffic.warmup_s,
        seed=study.seed,
        load_mode=LoadMode.CLOSED,
        arrivals=ArrivalProcess(),
        generation=streams_of(prepared.family),
        # An objective that is decided early would end the comparison early.
        min_duration_s=traffic.duration_s,
    )
    for number in range(ROUNDS):
        for name in (prepared.teacher.name, variant.name, variant.drafted_by):
            for in_flight in sorted({1, max(traffic.concurrencies)}):
                workload = dataclasses.replace(plain, concurrency=in_flight)
                serving = serving_configs(study.serving_of(prepared.family))[0]
                yield Trial(name, prepared.family.name, serving, workload, ROLES, number)


def _scored(
    study: Study,
    prepared: PreparedFamily,
    variant: ModelVariant,
    served: Served,
    folder: RunFolder,
    settings: RunSettings,
) -> StudentRoles:
    draft = next(one for one in prepared.variants if one.name == variant.drafted_by)
    teacher, student = (_written(folder, one.name) for one in (prepared.teacher, draft))
    dataset, asked = prepared.datasets[draft.name], prepared.family.speculation
    assert isinstance(dataset, PromptDataset)  # noqa: S101  (a study with a draft writes)
    assert asked is not None  # noqa: S101
    streams = served.site.streams
    assert streams is not None  # noqa: S101  (asked before)
    serving = ServingConfig(max_batch_size=SCORING_BATCH)
    own = _while_loaded(
        served,
        variant,
        serving,
        lambda: collect_texts(variant, dataset, streams, progress=settings.progress),
    )
    matches, confidences = _while_loaded(
        served,
        draft,
        serving,
        lambda: (
            draft_matches(draft, dataset, teacher, streams),
            own_confidences(draft, dataset, student, streams),
        ),
    )
    same = _same_texts(own, teacher)
    written = [row for row, text in enumerate(teacher.tokens) if len(text)]
    groups = None if teacher.groups is None else teacher.groups[written]
    acceptance, a_run = _as_draft(matches, asked.tokens, study.seed, groups)
    costs = step_costs(variant, asked.tokens, threads=_threads(study, prepared))
    cascade, why_not = _cascade(teacher, student, confidences, study.seed)
    return StudentRoles(
        family=prepared.family.name,
        teacher=prepared.teacher.name,
        student=draft.name,
        speculative=variant.name,
        sha256=variant.sha256,
        draft_tokens=asked.tokens,
        texts=len(same),
        same_texts=int(same.sum()),
        acceptance=acceptance,
        tokens_per_run=a_run,
        costs=costs,
        predicted_speedup=predicted_speedup(a_run.value, asked.tokens, costs),
        cascade=cascade,
        no_cascade=why_not,
    )


def _written(folder: RunFolder, name: str) -> WrittenOutcomes:
    outcomes = read_outcomes(outcomes_path(folder, name))
    assert isinstance(outcomes, WrittenOutcomes)  # noqa: S101  (of a model that writes)
    return outcomes


def _while_loaded(
    served: Served, variant: ModelVariant, serving: ServingConfig, ask: Callable[[], _T]
) -> _T:
    served.load(variant, serving)
    try:
        return ask()
    finally:
        served.unload(variant)


def _threads(study: Study, prepared: PreparedFamily) -> int:
    return serving_configs(study.serving_of(prepared.family))[0].intra_op_threads


def _same_texts(own: WrittenOutcomes, teacher: WrittenOutcomes) -> NDArray[np.bool_]:
    """Whether each text is the teacher's, of the prompts that both answered."""
    both = answered_by_both(own, teacher)
    return np.asarray(compared(own, teacher).same[both])


def _as_draft(
    matches: Sequence[Matches],
    draft_tokens: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> tuple[Interval, Interval]:
    """Acceptance, and tokens of a run, behind each text's first token: the prompt's run gives it.

    Args:
        matches: of each text.
        draft_tokens: proposed in a step.
        seed: of the intervals' weights.
        groups: texts that belong together, (texts,).

    Raises:
        ServerError: no text has a second token.
    """
    longer = [place for place, one in enumerate(matches) if len(one) > 1]
    if not longer:
        raise ServerError("the teacher wrote no text of two tokens, which a draft could go on with")
    behind = [matches[place][1:] for place in longer]
    units = None if groups is None else groups[longer]
    value, found = acceptance_bounds(behind, seed=seed, groups=units)
    tokens, of_runs = run_bounds(behind, draft_tokens, seed=seed, groups=units)
    most = draft_tokens + 1.0
    return _interval(value, found, (0.0, 1.0)), _interval(tokens, of_runs, (1.0, most))


def _interval(value: float, found: Bounds, limits: tuple[float, float]) -> Interval:
    """A value with its interval; texts of one document alone tell none but what it may be at all.

    Args:
        value: of all texts.
        found: its bounds, which may be none.
        limits: the least and the most that it can be.
    """
    low, high = found.low, found.high
    return Interval(value, limits[0] if low is None else low, limits[1] if high is None else high)


def step_costs(
    variant: ModelVariant, draft_tokens: int, *, threads: int, rounds: int = COST_ROUNDS
) -> StepCosts:
    """Time both decoders in this process, one row each, in turn, behind half a context.

    Args:
        variant: a model with its draft, exported.
        draft_tokens: proposed in a step.
        threads: of ONNX Runtime.
        rounds: runs of each kind, of which the median counts.
    """
    from harness.serving.generation.decoder import SlotDecoder

    def opened(folder: str) -> SlotDecoder:
        place = variant.path / "1" / folder
        settings = GeneratorSettings.from_json((place / SETTINGS_FILE).read_text("utf-8"))
        return SlotDecoder(place / "model.onnx", settings, slots=1, threads=threads)

    teacher, draft = opened(""), opened(DRAFT_FOLDER)
    seen = max(1, min(teacher.context // 2, teacher.context - draft_tokens - 1))
    prompt, several = np.zeros(seen, np.int64), np.zeros(draft_tokens + 1, np.int64)
    runs: tuple[Callable[[], object], ...] = (
        lambda: teacher.write([0], [seen]),
        lambda: teacher.read_all(0, [several], [seen]),
        lambda: draft.write([0], [seen]),
    )
    for decoder in (teacher, draft):
        decoder.read(0, [prompt], [0])
    times = np.array([[_timed_ms(one) for one in runs] for _ in range(rounds + 2)])[2:]
    return StepCosts(*map(float, np.median(times, axis=0)))


def _timed_ms(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1e3


def _cascade(
    teacher: WrittenOutcomes,
    student: WrittenOutcomes,
    confidences: NDArray[np.float64],
    seed: int,
) -> tuple[Cascade | None, str]:
    """The student first, by the router's own statistics; or why there is no such estimate.

    An answer is right where it is the teacher's own text, so what is kept is a share of these.
    Prompts that one of the two did not answer are left out.
    """
    answered = np.flatnonzero(answered_by_both(student, teacher))
    size = len(answered)
    if size < FEWEST_ROWS:
        return None, (
            f"{size} prompts are too few to choose a threshold on one half and to see on the "
            f"other what it does; at least {FEWEST_ROWS} are needed"
        )
    same = _same_texts(student, teacher)
    rows = RoutedRows(confidences[answered], same, np.ones(size, np.bool_))
    calibration, held_out = split_places(size, seed=seed)
    threshold, guaranteed = _chosen(rows.of(calibration))
    nothing = ServedModel()
    told = rows.of(held_out)
    return Cascade(
        at=point_at(told, threshold, (nothing, nothing), seed=seed),
        keep=KEEP,
        guaranteed=guaranteed,
        calibration_prompts=len(calibration),
        held_out_prompts=len(held_out),
        rouge_kept=_rouge_kept(teacher, student, told.deferred(threshold), answered[held_out]),
    ), ""


def _chosen(rows: RoutedRows) -> tuple[float, bool]:
    """The boldest threshold with a guarantee; else the boldest that keeps enough of these rows."""
    try:
        return calibrate(rows, keep=KEEP, confidence_level=CONFIDENCE).threshold, True
    except UsageError:
        kept = [one for one in THRESHOLDS if rows.right(one).mean() >= KEEP]
        return min(kept, default=EVERYTHING), False


def _rouge_kept(
    teacher: WrittenOutcomes,
    student: WrittenOutcomes,
    deferred: NDArray[np.bool_],
    rows: NDArray[np.int64],
) -> float | None:
    if LOSS_METRIC not in teacher.rouge:
        return None
    theirs, own = (one.rouge[LOSS_METRIC][rows] for one in (teacher, student))
    if not theirs.mean():
        return None
    return float(np.where(deferred, theirs, own).mean() / theirs.mean())
