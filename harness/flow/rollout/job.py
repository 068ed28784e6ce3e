"""A rollout, look by look: send, count, decide, write down, and set the student's share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.errors import RunFolderError, UsageError
from harness.flow.options import RunSettings
from harness.flow.rollout.traffic import ClientSplit, RouterSplit, RowTraffic, SplitsTraffic
from harness.flow.routing import chosen_student, chosen_teacher
from harness.flow.served_pair import PairAtWork, serve_pair, study_of
from harness.planning.rollout.asked import OwnCounters, agreement_guardrail, guardrails_of
from harness.planning.rollout.outcomes import (
    NO_CLASS,
    LookOutcomes,
    ModelOutcomes,
    expected_shares,
    tally,
)
from harness.planning.rollout.sizing import planned_requests
from harness.planning.rollout.stages import begin, check_plan, look
from harness.quality.collection import read_outcomes
from harness.report.family_results import FamilyResults
from harness.report.rollout.words import sizes_words
from harness.runs.documents import (
    documents_of,
    read_document,
    rewrite_document,
    write_document,
)
from harness.runs.folder import RunFolder, read_run, samples_file
from harness.serving.endpoint import TritonClient
from harness.serving.router import make_split, write_split
from harness.system.storage import utc_now
from harness.tasks.classification.outcomes import ClassOutcomes
from harness.telemetry.prometheus.client import Prometheus, QueryFailure
from harness.types import ModelVariant, Progress, ServiceLevelObjective
from harness.types.rollout import (
    Guardrail,
    PlannedSize,
    RollbackCheck,
    RolloutMode,
    RolloutPlan,
    RolloutRecord,
    RolloutStage,
    RolloutStatus,
    RolloutTraffic,
    Tally,
)
from harness.words.numbers import asked_percent

ROLLOUT = "rollout"
"""Name of the document that a rollout is kept in."""
CHECKED = 50
"""Requests that are sent after a rollback, to see who answers them."""


@dataclass(frozen=True)
class RolloutRequest:
    """What a rollout is asked to do."""

    traffic: RolloutTraffic
    stages: tuple[RolloutStage, ...]
    mode: RolloutMode
    error: float
    most_looks: int
    """Looks of this call, after which it ends undecided; it may be gone on with."""
    slo: ServiceLevelObjective | None = None
    """Objective of the guardrails; None takes the family's own."""
    agreement: float | None = None
    """Least share of answers that are the teacher's; None: not asked for."""
    own: tuple[tuple[Guardrail, OwnCounters], ...] = ()
    student: str = ""
    """A variant's name; empty for the recommended one, or the only one."""
    teacher: str = ""


def roll_out(
    folder: Path, request: RolloutRequest, settings: RunSettings, *, resume: bool
) -> tuple[RolloutRecord, Path]:
    """Begin a rollout on a run's models, or go on with its latest; the record and its path.

    Everything is refused that can be before the server starts. After every look the record is
    written, so that a rollout that is killed goes on from there; the server ends with the process.

    Raises:
        RunFolderError: no run of the embedded server, or no rollout to go on with.
        UsageError: no such models, guardrails that contradict each other, another plan.
        ServerError: the server died, or does not load the models.
    """
    run = read_run(folder)
    study = study_of(run, folder)
    if resume:
        request = _of_the_latest(folder, request)
    results, student = chosen_student(run, request.student)
    teacher = chosen_teacher(results, request.teacher)
    plan, notes = _plan(request, results, student, teacher)
    check_plan(plan)
    if request.own and settings.prometheus is None:
        raise UsageError(
            "--own counts requests by a Prometheus, and none is named",
            next_step="add --prometheus http://HOST:9090",
        )
    fresh = RolloutRecord(
        family=results.name,
        student_sha256=student.sha256,
        teacher_sha256=teacher.sha256,
        traffic=request.traffic,
        planned=tuple(_planned(folder, plan)),
        notes=notes,
        state=begin(plan),
    )
    with RunFolder.resume(folder, study):
        record, path = _resumed(folder, fresh) if resume else (fresh, None)
        path = path or write_document(folder, ROLLOUT, fresh)
        with _traffic(folder, results, record, settings) as traffic:
            record = _Rollout(record, path, traffic, request, settings).run()
    return record, path


def _plan(
    request: RolloutRequest, results: FamilyResults, student: ModelVariant, teacher: ModelVariant
) -> tuple[RolloutPlan, tuple[str, ...]]:
    slo = request.slo or results.objective
    found, notes = guardrails_of(slo, request.mode) if slo else ((), ())
    agreement = (agreement_guardrail(request.agreement),) if request.agreement is not None else ()
    plan = RolloutPlan(
        student=student.name,
        teacher=teacher.name,
        guardrails=(*found, *agreement, *(one for one, _ in request.own)),
        stages=request.stages,
        mode=request.mode,
        error=request.error,
    )
    return plan, notes


def _planned(folder: Path, plan: RolloutPlan) -> Iterator[PlannedSize]:
    """What the offline scores say of each guardrail, at the first stage."""
    offline = _offline(folder, plan)
    for one in plan.guardrails:
        expected = expected_shares(one, offline)
        if expected is None:
            yield PlannedSize(one.name, None, "the stored answers say nothing of it")
            continue
        try:
            size = planned_requests(
                one, expected, share=min(plan.stages[0].share, 0.99), error=plan.error
            )
        except UsageError as error:
            yield PlannedSize(one.name, None, str(error))
        else:
            yield PlannedSize(one.name, size)


def _offline(folder: Path, plan: RolloutPlan) -> LookOutcomes:
    """Both models' stored answers to the scored rows, as the requests that they would be.

    Raises:
        UsageError: they are no classifiers' with scores.
    """
    student, teacher = (
        read_outcomes(samples_file(folder, name)) for name in (plan.student, plan.teacher)
    )
    if not isinstance(student, ClassOutcomes) or not isinstance(teacher, ClassOutcomes):
        raise UsageError(
            f"{plan.student} answers a task of kind {student.kind}: a rollout compares classes",
            next_step="roll out a classifier (task kind sequence-classification)",
        )
    every = np.ones(student.size, dtype=bool)
    # Only what is right, wrong or alike counts here: the teacher's classes in the student's order.
    names = list(student.label_names)
    order = [names.index(name) for name in teacher.label_names] or list(
        range(teacher.logits.shape[1])
    )
    theirs = np.append(order, NO_CLASS)[teacher.predictions]
    labels = np.where(student.correct, student.predictions, np.where(teacher.correct, theirs, -2))
    no_time = np.zeros(student.size)
    return LookOutcomes(
        ModelOutcomes(every, student.unanswered, no_time, student.predictions),
        ModelOutcomes(every, teacher.unanswered, no_time, theirs),
        labels,
    )


def _of_the_latest(folder: Path, request: RolloutRequest) -> RolloutRequest:
    """The request, its models those of the latest rollout where it names none."""
    plan = _latest(folder).plan
    return replace(
        request, student=request.student or plan.student, teacher=request.teacher or plan.teacher
    )


def _latest(folder: Path) -> RolloutRecord:
    """The latest rollout of a run folder.

    Raises:
        RunFolderError: there is none.
    """
    found = read_document(folder, ROLLOUT, RolloutRecord)
    if found is None:
        raise RunFolderError(
            f"{folder} has no rollout to go on with", next_step="begin one without --resume"
        )
    return found


def _resumed(folder: Path, fresh: RolloutRecord) -> tuple[RolloutRecord, Path]:
    """The latest rollout, if it is this one and has not ended.

    Raises:
        RunFolderError: there is none.
        UsageError: it is of another plan, or has ended.
    """
    found = _latest(folder)
    same = (found.plan, found.traffic, found.student_sha256, found.teacher_sha256) == (
        fresh.plan,
        fresh.traffic,
        fresh.student_sha256,
        fresh.teacher_sha256,
    )
    if not same:
        raise UsageError(
            f"the latest rollout in {folder} has another plan or other models, and its error holds "
            "for those alone",
            next_step="give the options that it was begun with, or begin anew without --resume",
        )
    if found.state.status is not RolloutStatus.RUNNING:
        raise UsageError(
            f"the latest rollout in {folder} has ended: {found.state.status}",
            next_step="begin anew without --resume",
        )
    known = documents_of(folder, ROLLOUT)
    return found, known[max(known)]


@contextmanager
def _traffic(
    folder: Path, results: FamilyResults, record: RolloutRecord, settings: RunSettings
) -> Iterator[RowTraffic]:
    """Triton with both models loaded, and what sends requests to them."""
    plan, salt = record.plan, f"{record.student_sha256[:12]}-{record.traffic.seed}"
    with (
        serve_pair(folder, results, plan.student, plan.teacher, settings) as work,
        TritonClient(work.served.site.server.endpoint) as client,
    ):
        split: SplitsTraffic = ClientSplit(client, work.pair, plan.mode, salt)
        if record.traffic.through_router:
            model = make_split(work.pair, mode=plan.mode, salt=salt)
            write_split(model, record.state.share)
            split = RouterSplit(client, model)
        work.pair.load(client)
        yield _CheckedTraffic(split, work, record)


class _CheckedTraffic(RowTraffic):
    """Traffic that ends with the server's own error where the server died."""

    def __init__(self, split: SplitsTraffic, work: PairAtWork, record: RolloutRecord) -> None:
        super().__init__(split, work.dataset, work.pair, record.traffic)
        self._server = work.served.site.server

    def send(self, look: int, requests: int | None = None) -> tuple[LookOutcomes, int]:
        """Send a look's requests; a server that died is no failure of the student's."""
        found = super().send(look, requests)
        self._server.check()
        return found


class _Rollout:
    """A rollout's loop: measure, look at the evidence, promote, hold or roll back."""

    def __init__(
        self,
        record: RolloutRecord,
        path: Path,
        traffic: RowTraffic,
        request: RolloutRequest,
        settings: RunSettings,
    ) -> None:
        self._record = record
        self._path = path
        self._traffic = traffic
        self._request = request
        self._settings = settings
        self._last = record.state.looks + request.most_looks

    def run(self) -> RolloutRecord:
        """Take looks until the student has taken over, was rolled back, or there were enough."""
        share = self._record.state.share
        self._traffic.set_share(share)
        if not self._record.state.looks:
            planned = "; ".join(sizes_words(self._record))
            self._settings.progress(Progress("rollout", 0, self._last, planned))
        for _ in range(self._request.most_looks):
            if self._record.state.status is not RolloutStatus.RUNNING:
                break
            self._look()
            if self._record.state.share != share:
                share = self._record.state.share
                self._traffic.set_share(share)
        if self._record.state.status is RolloutStatus.ROLLED_BACK:
            self._check_rollback()
        return self._record

    def _look(self) -> None:
        """Send, count, decide; nothing of a look that is cut short is written down."""
        number = self._record.state.looks + 1
        counters = [counters for _, counters in self._request.own]
        before = _read(self._settings.prometheus, counters)
        found, _ = self._traffic.send(number)
        observed = {
            one.name: tally(one, found)
            for one in self._record.plan.judged(self._record.state.stage)
            if one.name not in before
        }
        if counters:
            time.sleep(self._record.traffic.pause_s)
            now = _read(self._settings.prometheus, counters)
            observed |= _increases(before, now)
        state = look(self._record.state, number, observed)
        assert state.last is not None  # noqa: S101  (a look was taken)
        self._record = replace(
            self._record,
            state=state,
            looks=(*self._record.looks, state.last),
            looked_utc=(*self._record.looked_utc, utc_now()),
        )
        rewrite_document(self._path, self._record)
        stage = self._record.plan.stages[state.last.stage]
        note = (
            f"{asked_percent(stage.share)} of the traffic: {state.last.step}, {state.last.reason}"
        )
        self._settings.progress(Progress("rollout", number, self._last, note))

    def _check_rollback(self) -> None:
        """Whether the student still answers anything."""
        number = self._record.state.looks + 1
        _, by_student = self._traffic.send(number, CHECKED)
        self._record = replace(self._record, rollback=RollbackCheck(CHECKED, by_student))
        rewrite_document(self._path, self._record)


Readings = Mapping[str, tuple[float, float] | None]
"""By guardrail, the counters of bad and of all requests; None where one is silent."""


def _read(prometheus: Prometheus | None, counters: Sequence[OwnCounters]) -> Readings:
    found: dict[str, tuple[float, float] | None] = {}
    for one in counters:
        try:
            assert prometheus is not None  # noqa: S101  (checked before the server starts)
            bad, all_ = prometheus.value(one.bad), prometheus.value(one.all)
        except QueryFailure:
            bad = all_ = None
        found[one.guardrail] = None if bad is None or all_ is None else (bad, all_)
    return found


def _increases(before: Readings, now: Readings) -> dict[str, Tally]:
    """The increase of each guardrail's counters; none for a counter that was reset in between."""
    found = {}
    for name, reading in now.items():
        earlier = before[name]
        if earlier is None or reading is None:
            continue
        bad, all_ = (round(later - sooner) for later, sooner in zip(reading, earlier, strict=True))
        if 0 <= bad <= all_:
            found[name] = Tally(student_bad=bad, student_total=all_)
    return found
