"""A scaling policy for real: embedded replicas that come and go under a load, on this machine.

The trace is squeezed into the length asked for. The same scaler as in the simulation reads the
replicas' own counters and orders replicas; how long they take to start is measured. After every
decision the state is written, so that a run that was killed goes on from there. The replicas end
with this process, however it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import stats

from harness.errors import GeneratorError, RunFolderError
from harness.export.convert import artefact_files
from harness.export.folders import digest_files
from harness.export.variants import FILES
from harness.flow.autoscaling import AUTOSCALE, AutoscaleQuestion, autoscale_run, checked
from harness.hdr import highest_value_us, integers, total
from harness.load.generators.driver import SLICE_S
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.payloads import REPOSITORY_FILE
from harness.load.transports.address import parse_target
from harness.planning.autoscaling.candidates import UTILIZATIONS
from harness.planning.autoscaling.rules import FleetReading
from harness.planning.autoscaling.scaler import HorizontalScaler
from harness.report.build import build_report
from harness.runs.documents import documents_of, read_document, rewrite_document, write_document
from harness.runs.folder import StoredRun, read_run
from harness.serving.embedded.environment import ServerEnvironment, ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.replicas.balancer import Balancer
from harness.serving.replicas.replica_set import ReplicaSet, RunningReplica
from harness.serving.repository import config_override
from harness.system.storage import replace_text
from harness.telemetry.fleet import FleetHistory, ReplicaCounters
from harness.telemetry.triton import scrape
from harness.types import (
    LoadMode,
    ModelVariant,
    Progress,
    ServingConfig,
    TimeSlice,
    TraceUnit,
    WireProtocol,
    Workload,
)
from harness.types.autoscaling import (
    AutoscalePlan,
    FixedRule,
    LiveOutcome,
    LiveState,
    LiveStep,
    Policy,
    RateTrace,
    ScalingCourse,
)
from harness.types.estimates import Interval
from harness.types.workloads import ArrivalKind, ArrivalProcess
from harness.words.numbers import asked_percent, whole

LIVE = "autoscale-live"
"""Name of the document that a live run's state is kept in."""
MOST_IN_FLIGHT = 512
_TAIL_S = 1.0
_SHORTEST_S = 5.0


def squeezed(trace: RateTrace, length_s: float) -> RateTrace:
    """The same rates in another length of time."""
    return replace(
        trace,
        step_s=length_s / len(trace.rates_per_s),
        notes=(*trace.notes, f"{whole(trace.duration_s)} s squeezed into {whole(length_s)} s"),
    )


def scale_live(
    folder: Path,
    question: AutoscaleQuestion,
    length_s: float,
    repository: Path,
    progress: Callable[[Progress], None],
) -> tuple[AutoscalePlan, Path]:
    """Simulate on the squeezed trace, then run the chosen policy on real replicas.

    Returns:
        What was simulated with what was measured, and the path of its document.

    Raises:
        RunFolderError: no run, or artefacts that are not the run's.
        UsageError: a question that cannot be answered.
        ServerError: a replica does not come up, or died.
        GeneratorError: the load generator failed.
    """
    run = read_run(folder)
    asked = replace(question, trace=squeezed(question.trace, length_s))
    candidate, _, _ = checked(run, asked)
    variant = _variant(run, folder, candidate.variant, repository)
    environment = ensure_server_environment(progress)
    launch = _Launch(environment, variant, candidate.serving, folder / "logs")
    progress(Progress("starting a replica", 0, 1, variant.name))
    if not question.start_is_given:
        began_s = time.monotonic()
        with launch(0):
            start_s = time.monotonic() - began_s
        terms = replace(asked.terms, start_s=start_s)
        asked = replace(asked, terms=terms, start_is_given=True)
    plan = autoscale_run(run, asked, progress)
    state = LiveState(plan, _policy_of(plan), length_s)
    path = write_document(folder, LIVE, state)
    return _go_on(run, folder, state, path, launch, progress)


def resume_live(
    folder: Path, repository: Path, progress: Callable[[Progress], None]
) -> tuple[AutoscalePlan, Path]:
    """Go on with the newest live run of a folder.

    Raises:
        RunFolderError: there is none that is not finished; or as `scale_live`.
        ServerError: a replica does not come up, or died.
        GeneratorError: the load generator failed.
    """
    run = read_run(folder)
    state = read_document(folder, LIVE, LiveState)
    if state is None or state.finished:
        raise RunFolderError(
            f"{folder} has no live run that was interrupted",
            next_step="begin one: harness autoscale RUN --trace ... --live 3min",
        )
    variant = _variant(run, folder, state.plan.variant, repository)
    environment = ensure_server_environment(progress)
    launch = _Launch(environment, variant, state.plan.serving, folder / "logs")
    state = replace(state, resumed=state.resumed + 1)
    known = documents_of(folder, LIVE)
    path = known[max(known)]
    rewrite_document(path, state)
    return _go_on(run, folder, state, path, launch, progress)


def _variant(run: StoredRun, folder: Path, name: str, repository: Path) -> ModelVariant:
    """The variant, of which the very artefact that was measured lies in its repository.

    Raises:
        RunFolderError: it does not.
    """
    found = next((one for one in run.variants if one.name == name), None)
    if found is not None and (repository / name).is_dir():
        found = replace(found, path=repository / name)
    if found is None or not found.path.is_dir() or not _payloads(folder, found).is_file():
        raise RunFolderError(
            f"the model {name} of {folder} is not in its repository any more",
            next_step="name its folder: --repository DIR; or run the study again",
        )
    if digest_files(artefact_files(found.path / "1" / FILES[found.format])) != found.sha256:
        raise RunFolderError(
            f"{name} in {found.path} is another file than {folder} measured",
            next_step="run the study again",
        )
    return found


def _policy_of(plan: AutoscalePlan) -> Policy:
    """The chosen policy; where that is a fixed number, or none, the one of 70% utilization."""
    usual = f"utilization {asked_percent(UTILIZATIONS[3])}"
    by_name = {one.policy.name: one.policy for one in plan.outcomes}
    chosen = by_name.get(plan.chosen or usual, by_name[usual])
    return by_name[usual] if isinstance(chosen.rules[0], FixedRule) else chosen


def _payloads(folder: Path, variant: ModelVariant) -> Path:
    """What the run sent to a variant, which its known answers name; else the repository's own."""
    answers = sorted((folder / "payloads").glob(f"*-{variant.sha256[:12]}-*.answers.npz"))
    sent = [one.with_name(f"{one.name.split('-')[0]}.npz") for one in answers]
    return next((one for one in sent if one.is_file()), variant.path / REPOSITORY_FILE)


@dataclass(frozen=True)
class _Launch:
    """Brings up one replica: its own Triton, with the model loaded as it was measured."""

    environment: ServerEnvironment
    variant: ModelVariant
    serving: ServingConfig
    logs: Path

    @contextmanager
    def __call__(self, number: int) -> Iterator[RunningReplica]:
        server = EmbeddedTriton(
            self.environment,
            self.variant.path.parent,
            log_file=self.logs / f"replica-{number}.log",
        )
        with server:
            with TritonClient(server.endpoint) as client:
                override = config_override(self.variant, self.serving)
                client.load(self.variant.served_name, override)
            yield RunningReplica(server.endpoint.http, server.endpoint.metrics)


def arrivals_of(trace: RateTrace, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Poisson arrivals at a trace's rates, in seconds from its start; by the seed."""
    generator = np.random.default_rng([seed, 67])
    counts = generator.poisson(np.array(trace.rates_per_s) * trace.step_s)
    starts = np.repeat(np.arange(len(counts)) * trace.step_s, counts)
    return np.sort(starts + generator.uniform(0, trace.step_s, len(starts)))


def _go_on(
    run: StoredRun,
    folder: Path,
    state: LiveState,
    path: Path,
    launch: _Launch,
    progress: Callable[[Progress], None],
) -> tuple[AutoscalePlan, Path]:
    plan = state.plan
    done_s = state.steps[-1].counted_s if state.steps else 0.0
    times_s = arrivals_of(plan.trace, plan.seed)
    left_s = times_s[times_s >= done_s]
    begins_s = float(left_s[0]) if len(left_s) else done_s
    begins = state.steps[-1].ordered if state.steps else _begin_with(plan)
    with Balancer() as balancer, ReplicaSet(launch, balancer) as replicas:
        replicas.resize(begins)
        replicas.wait_for(begins)
        session = _Session(state, path, replicas, begins_s, progress)
        if len(left_s) > 1 and left_s[-1] - left_s[0] > _SHORTEST_S:
            _drive(folder, launch.variant, left_s, balancer.address, session)
        state = session.finished()
    outcome = outcome_of(state)
    found = replace(plan, live=outcome)
    written = write_document(folder, AUTOSCALE, found)
    for name, text in found.manifests.items():
        replace_text(written.with_suffix(f".{name}"), text)
    build_report(run, folder)
    return found, written


def _begin_with(plan: AutoscalePlan) -> int:
    """As many as the simulation begins with: the first step at 70% utilization."""
    limits = plan.terms.limits
    needed = plan.trace.rates_per_s[0] / (0.7 * plan.saturation_per_s)
    return int(min(limits.max_replicas, max(limits.min_replicas, np.ceil(needed))))


def _drive(
    folder: Path,
    variant: ModelVariant,
    times_s: np.ndarray[tuple[int], np.dtype[np.float64]],
    address: str,
    session: _Session,
) -> None:
    """Send the arrivals to the balancer while the session scales."""
    file = folder / "logs" / "live-arrivals.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, "timestamp_s\n" + "".join(f"{at:.6f}\n" for at in times_s))
    workload = Workload(
        WireProtocol.HTTP,
        1,
        MOST_IN_FLIGHT,
        duration_s=float(times_s[-1] - times_s[0]) - _TAIL_S,
        warmup_s=0.0,
        min_duration_s=SLICE_S,
        seed=session.state.plan.seed,
        load_mode=LoadMode.OPEN,
        arrivals=ArrivalProcess(ArrivalKind.TRACE, trace=file, trace_unit=TraceUnit.S),
    )
    job = LoadJob(variant.served_name, _payloads(folder, variant), variant.outputs, workload)
    target = parse_target(address)
    with LoadGenerators(http=target, grpc=target, workers=1, log_dir=folder / "logs") as generators:
        try:
            result = generators.run(job, session, check=session.check)
        finally:
            session.stop()
    session.count_rest(result.slices)


@dataclass
class _Session:
    """A load that is watched, and the replicas that are scaled under it."""

    state: LiveState
    path: Path
    replicas: ReplicaSet
    offset_s: float
    """When, in the trace, this session's first request falls due: its load's slice 0 begins."""
    progress: Callable[[Progress], None]
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _error: BaseException | None = None
    _began_s: float = 0.0
    _seen: int = 0
    """Slices of the window that are counted."""

    def __post_init__(self) -> None:
        last = self.state.steps[-1] if self.state.steps else LiveStep(0.0, 0, 0, 0, 0, 0)
        self._requests, self._in_time, self._failed = last.requests, last.in_time, last.failed
        self._before = self._requests, self._in_time, self._failed
        self._known_starts = self.state.start_times_s

    def steady(self, _slices: Sequence[TimeSlice]) -> bool:
        """Never asked: without a warm-up the window opens with the load, and everything counts."""
        return True

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        """Count what is new; the load ends with the trace alone."""
        for one in window[self._seen :]:
            self._count(one)
        self._seen = len(window)
        return False

    def on_window_start(self) -> None:
        """Begin to scale."""
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._scale, name="scaler", daemon=True)
        self._thread.start()

    def on_window_end(self) -> None:
        """The trace is over."""

    def check(self) -> None:
        """Raise what a replica or the scaler ended with."""
        self.replicas.check()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End scaling, and wait until it has."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def count_rest(self, slices: Sequence[TimeSlice]) -> None:
        """Count the whole load anew, now that every request has ended."""
        self._requests, self._in_time, self._failed = self._before
        self._seen = len(slices)
        for one in slices:
            self._count(one)
        self._record(self.offset_s + time.monotonic() - self._began_s)

    def finished(self) -> LiveState:
        """The state, written as one that is not gone on with."""
        self.state = replace(self.state, finished=True)
        rewrite_document(self.path, self.state)
        return self.state

    def _count(self, one: TimeSlice) -> None:
        answered, failed = total(one.ok.response), sum(one.failures.values()) + one.dropped
        buckets = integers(one.ok.response.buckets)
        within = highest_value_us(buckets) <= 1e3 * self.state.plan.bound_ms
        self._in_time += int(integers(one.ok.response.counts)[within].sum())
        self._requests += answered + failed
        self._failed += failed

    def _scale(self) -> None:
        plan = self.state.plan
        terms, model = plan.terms, plan.variant
        scaler = HorizontalScaler(self.state.policy, terms.limits)
        history = FleetHistory(terms.window_s)
        next_decision_s = terms.sync_s
        try:
            while not self._ended.wait(terms.scrape_s):
                now_s = time.monotonic() - self._began_s
                history.add(now_s, self._scraped(model))
                if now_s >= next_decision_s:
                    next_decision_s += terms.sync_s
                    self._decide(scaler, history, now_s)
        except BaseException as error:  # noqa: BLE001  (raised by `check`, in the caller's thread)
            self._error = error

    def _scraped(self, model: str) -> dict[str, ReplicaCounters]:
        pages = {one.address: scrape(one.metrics) for one in self.replicas.running}
        return {name: ReplicaCounters.of_page(page, model) for name, page in pages.items() if page}

    def _decide(self, scaler: HorizontalScaler, history: FleetHistory, now_s: float) -> None:
        seen = history.rates()
        at_s = self.offset_s + now_s
        reading = FleetReading(
            time_s=at_s,
            replicas=self.replicas.ordered,
            ready=len(self.replicas.running),
            completed_per_s=seen.completed_per_s,
            waiting=seen.waiting,
            executing=seen.executing,
            queue_ms=seen.queue_ms,
        )
        self.replicas.resize(scaler.decide(reading))
        self._record(at_s)
        length = self.state.length_s
        self.progress(
            Progress("scaling", min(round(at_s), round(length)), round(length),
                     f"{len(self.replicas.running)} of {self.replicas.ordered} replicas")
        )  # fmt: skip

    def _record(self, at_s: float) -> None:
        step = LiveStep(
            at_s,
            self.replicas.ordered,
            len(self.replicas.running),
            self._requests,
            self._in_time,
            self._failed,
            self.offset_s + self._seen * SLICE_S,
        )
        self.state = replace(
            self.state,
            steps=(*self.state.steps, step),
            start_times_s=(*self._known_starts, *self.replicas.start_times_s),
        )
        rewrite_document(self.path, self.state)


def outcome_of(state: LiveState) -> LiveOutcome:
    """What was measured, beside what was simulated of the same policy.

    Raises:
        GeneratorError: nothing was sent.
    """
    plan, steps = state.plan, state.steps
    if not steps or not steps[-1].requests:
        raise GeneratorError("the live run sent nothing", next_step="make it longer: --live 3min")
    last = steps[-1]
    predicted = next(one for one in plan.outcomes if one.policy.name == state.policy.name)
    share = stats.binomtest(last.in_time, last.requests).proportion_ci(plan.confidence)
    starts = state.start_times_s or (0.0,)
    ordered = [one.ordered for one in steps]
    return LiveOutcome(
        policy=state.policy.name,
        length_s=state.length_s,
        requests=last.requests,
        failed=last.failed,
        attained=Interval(last.in_time / last.requests, float(share.low), float(share.high)),
        predicted=predicted.attained,
        replica_hours=_replica_hours(steps),
        predicted_replica_hours=predicted.replica_hours,
        scalings=sum(one != other for one, other in pairwise(ordered)),
        predicted_scalings=predicted.scalings,
        most_replicas=max(ordered),
        predicted_most=predicted.most_replicas,
        start_s=Interval(sum(starts) / len(starts), min(starts), max(starts)),
        course=_course(state),
        resumed=state.resumed,
    )


def _replica_hours(steps: Sequence[LiveStep]) -> float:
    """Of all that were ordered; each number holds from its decision to the next."""
    held = [steps[0].ordered * steps[0].at_s]
    # A resumed run begins where requests were counted up to, a little before its last decision.
    held += [
        sooner.ordered * max(0.0, later.at_s - sooner.at_s) for sooner, later in pairwise(steps)
    ]
    return sum(held) / 3600


def _course(state: LiveState) -> ScalingCourse:
    """From decision to decision; requests count where their outcome became known."""
    steps, stretch_s = state.steps, state.plan.terms.sync_s
    starts = (LiveStep(0.0, steps[0].ordered, steps[0].ready, 0, 0, 0), *steps)
    came = [later.requests - sooner.requests for sooner, later in pairwise(starts)]
    inside = [later.in_time - sooner.in_time for sooner, later in pairwise(starts)]
    return ScalingCourse(
        stretch_s=stretch_s,
        demand_per_s=tuple(one / stretch_s for one in came),
        ordered=tuple(float(one.ordered) for one in starts[:-1]),
        ready=tuple(float(one.ready) for one in starts[:-1]),
        attained=tuple(
            right / count if count else -1.0 for right, count in zip(inside, came, strict=True)
        ),
    )
