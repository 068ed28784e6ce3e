"""A scaling policy for real: embedded replicas that come and go under a load, on this machine.

The trace is squeezed into the length asked for. The same scaler as in the simulation reads the
replicas' own counters, and the balancer's of what has not reached them, and orders replicas. What
one and two of them carry here, and how long one takes to start beside another that is loaded, is
measured before, and simulated with. After every
decision the state is written, so that a run that was killed goes on from there. The replicas end
with this process, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.errors import RunFolderError, UsageError
from harness.export.convert import artefact_files
from harness.export.folders import digest_files
from harness.export.variants import FILES
from harness.flow.autoscaling import AUTOSCALE, AutoscaleQuestion, autoscale_run, checked
from harness.flow.live_machine import measure_machine, unresting
from harness.flow.live_session import LiveSession
from harness.load.generators.driver import SLICE_S
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.payloads import REPOSITORY_FILE
from harness.load.transports.address import parse_target
from harness.planning.autoscaling.candidates import UTILIZATIONS
from harness.planning.autoscaling.outcome import outcome_of
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
from harness.tasks.registry import family_of
from harness.types import (
    LoadMode,
    ModelVariant,
    Progress,
    ServingConfig,
    TraceUnit,
    WireProtocol,
    Workload,
)
from harness.types.autoscaling import (
    AutoscalePlan,
    FixedRule,
    LiveState,
    Policy,
    RateTrace,
)
from harness.types.workloads import ArrivalKind, ArrivalProcess
from harness.words.numbers import asked_percent, whole

LIVE = "autoscale-live"
"""Name of the document that a live run's state is kept in."""
MOST_IN_FLIGHT = 512
BATCHES_EACH, MOST_MEASURED = 2, 128
"""While the machine is measured: largest batches in flight at each of two replicas, and at most so
many requests."""
_TAIL_S = 1.0
_SHORTEST_S = 5.0


def squeezed(trace: RateTrace, length_s: float) -> RateTrace:
    """The trace with the same rates, in another length of time."""
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
    candidate, *_ = checked(run, asked)
    variant = _variant(run, folder, candidate.variant, repository)
    if family_of(variant.task).writes:
        raise UsageError(
            f"{variant.name} writes, and live replicas are driven with requests that are answered "
            "at once",
            next_step="leave out --live: the simulation takes such a run",
        )
    environment = ensure_server_environment(progress)
    launch = _Launch(environment, variant, candidate.serving, folder / "logs")
    if not question.own_machines:
        progress(Progress("measuring this machine", 0, 1, "one replica, then two"))
        load = _unresting(folder, variant, candidate.serving)
        machine, start_s = measure_machine(launch, load, folder / "logs")
        asked = replace(asked, terms=replace(asked.terms, machine=machine))
    elif not question.start_is_given:
        progress(Progress("starting a replica", 0, 1, variant.name))
        start_s = _start_s(launch)
    if not question.start_is_given:
        terms = replace(asked.terms, start_s=start_s)
        asked = replace(asked, terms=terms, start_is_given=True)
    plan = autoscale_run(run, asked, progress)
    state = LiveState(plan, _policy_of(plan), length_s)
    path = write_document(folder, LIVE, state)
    return _go_on(run, folder, state, path, launch, progress)


def _start_s(launch: _Launch) -> float:
    """Until a replica serves, with nothing else to do for this machine."""
    began_s = time.monotonic()
    with launch(0):
        return time.monotonic() - began_s


def _unresting(folder: Path, variant: ModelVariant, serving: ServingConfig) -> LoadJob:
    """A load with always enough in flight for two replicas."""
    in_flight = min(MOST_MEASURED, 2 * BATCHES_EACH * max(1, serving.max_batch_size))
    payloads = _payloads(folder, variant)
    return LoadJob(variant.served_name, payloads, variant.outputs, unresting(in_flight))


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
    if state.steps and state.steps[0].at_s > 0:
        raise RunFolderError(
            f"the live run that was interrupted in {folder} does not say with how many replicas it "
            "began: an earlier version of harness wrote it",
            next_step="begin it anew: harness autoscale RUN --trace ... --live 3min",
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
    answers = sorted((folder / "payloads").glob(f"*-{variant.hex_digest[:12]}-*.answers.npz"))
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
            yield RunningReplica(server.endpoint.http, server.endpoint.metrics, server.check)


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
        session = LiveSession(state, path, replicas, lambda: balancer.in_flight, begins_s, progress)
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
    """How many replicas the simulation begins with: the first step's demand at 70%."""
    limits = plan.terms.limits
    needed = plan.trace.rates_per_s[0] / (0.7 * plan.saturation_per_s)
    return int(min(limits.max_replicas, max(limits.min_replicas, np.ceil(needed))))


def _drive(
    folder: Path,
    variant: ModelVariant,
    times_s: np.ndarray[tuple[int], np.dtype[np.float64]],
    address: str,
    session: LiveSession,
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
    session.check()
    session.count_rest(result.slices)
