"""Runs that are not as they should be: cut short, empty, all rejected, hostile names."""

from __future__ import annotations

from dataclasses import replace

from sample_evidence import scaled
from sample_run import MANIFEST, sample_run

from harness.runs.folder import StoredRun
from harness.types import (
    RESPONSE,
    SERVICE,
    Decision,
    HostMetrics,
    LatencySummary,
    LoadMode,
    Percentile,
    Rejection,
    ServerMetrics,
    TrialResult,
    Verdict,
)

HOSTILE = '<img src=x onerror="document.title=1"></script>|`*'


def interrupted() -> StoredRun:
    """Stopped in the middle of the sweep: no verdict."""
    run = sample_run()
    return replace(
        run,
        trials=run.trials[:17],
        verdicts=(),
        decision=Decision.UNDECIDED,
        interrupted=True,
    )


def nothing_yet() -> StoredRun:
    """Stopped before anything was exported, and a manifest of the bare minimum."""
    return StoredRun({"schema_version": 1}, (), (), (), (), (), Decision.UNDECIDED, True)


def no_trials() -> StoredRun:
    """Scored and stopped before any load."""
    return replace(interrupted(), trials=())


def all_rejected() -> StoredRun:
    """Every variant of the only family fails on quality: no load at all."""
    run = sample_run()
    names = [variant.name for variant in run.variants if variant.family == "topics"]
    rejected = tuple(
        Rejection(name, None, "quality", "accuracy keeps 70.0%, under 90%") for name in names
    )
    verdict = Verdict(
        "topics",
        "p95 < 50 ms, accuracy >= 90% of teacher",
        Decision.FAIL,
        None,
        "No variant keeps 90% of the teacher's accuracy.",
        rejected,
    )
    return replace(_only_topics(run), trials=(), verdicts=(verdict,), decision=Decision.FAIL)


def undecided() -> StoredRun:
    """A family that needs more samples."""
    run = _only_topics(sample_run())
    verdict = replace(
        run.verdicts[0],
        decision=Decision.UNDECIDED,
        recommended=None,
        summary="No configuration is shown to meet the objective.",
        next_step="raise traffic.duration_s to 20",
    )
    return replace(run, verdicts=(verdict,), decision=Decision.UNDECIDED)


def single_variant() -> StoredRun:
    """A teacher alone, recommended for want of a student."""
    run = _only_topics(sample_run())
    name = run.variants[0].name
    trials = tuple(result for result in run.trials if result.trial.variant == name)
    best = next(result for result in trials if result.decision is Decision.PASS)
    verdict = replace(run.verdicts[0], recommended=best.trial.trial_id, rejected=())
    return replace(
        run,
        variants=run.variants[:1],
        scores=tuple(score for score in run.scores if score.variant == name),
        consistency=(),
        trials=trials,
        verdicts=(verdict,),
    )


def no_server_metrics() -> StoredRun:
    """Somebody else's server, which offers no statistics and has the files to itself."""
    run = sample_run()
    trials = tuple(replace(r, server=ServerMetrics(), host=HostMetrics()) for r in run.trials)
    variants = tuple(replace(one, size_bytes=None) for one in run.variants)
    return replace(run, trials=trials, variants=variants)


def nothing_answered() -> StoredRun:
    """No request of any trial succeeded."""
    run = interrupted()
    trials = tuple(_unanswered(result) for result in run.trials)
    return replace(run, trials=trials)


def never_drained() -> StoredRun:
    """A queue that only grew: the percentiles lie among the requests that were dropped."""
    run = sample_run()
    return replace(run, trials=tuple(_never_drained(result) for result in run.trials))


def unbounded() -> StoredRun:
    """Too few requests to bound the percentile from above."""
    run = sample_run()
    return replace(run, trials=tuple(_unbounded(result) for result in run.trials))


def hostile() -> StoredRun:
    """Markup in every name that comes from a study."""
    run = _only_topics(sample_run())
    name = "topics-student-int8"
    trials = tuple(
        replace(
            result,
            trial=replace(result.trial, variant=_hostile(result.trial.variant, name)),
            reason=HOSTILE,
        )
        for result in run.trials
    )
    verdict = replace(run.verdicts[0], summary=HOSTILE, recommended=trials[-1].trial.trial_id)
    manifest = {**run.manifest, "study": {**run.manifest["study"], "name": HOSTILE}}
    return replace(
        run,
        manifest=manifest,
        variants=tuple(replace(v, name=_hostile(v.name, name)) for v in run.variants),
        scores=tuple(replace(s, variant=_hostile(s.variant, name)) for s in run.scores),
        trials=trials,
        verdicts=(verdict,),
    )


def open_loop() -> StoredRun:
    """Requests that fall due at a rate, some dropped, some sent late; one stage a rate."""
    run = _only_topics(sample_run())
    trials = tuple(_at_a_rate(result) for result in run.trials)
    verdict = replace(run.verdicts[0], recommended=trials[-1].trial.trial_id, rejected=())
    series = {
        new.trial.trial_id: run.series[old.trial.trial_id]
        for new, old in zip(trials, run.trials, strict=True)
    }
    return replace(run, trials=trials, verdicts=(verdict,), series=series)


def no_evidence_over_time() -> StoredRun:
    """No series and no cold start was kept."""
    return replace(sample_run(), series={}, cold_starts=())


UNUSUAL = {
    make.__name__: make
    for make in (
        interrupted,
        nothing_yet,
        no_trials,
        all_rejected,
        undecided,
        single_variant,
        no_server_metrics,
        nothing_answered,
        unbounded,
        never_drained,
        hostile,
        open_loop,
        no_evidence_over_time,
    )
}


def _only_topics(run: StoredRun) -> StoredRun:
    study = {**MANIFEST["study"], "families": MANIFEST["study"]["families"][:1]}
    return replace(
        run,
        manifest={**MANIFEST, "study": study},
        variants=tuple(v for v in run.variants if v.family == "topics"),
        scores=tuple(s for s in run.scores if s.family == "topics"),
        trials=tuple(r for r in run.trials if r.trial.family == "topics"),
        verdicts=tuple(v for v in run.verdicts if v.family == "topics"),
    )


def _hostile(name: str, chosen: str) -> str:
    return f"topics-{HOSTILE}" if name == chosen else name


def _unanswered(result: TrialResult) -> TrialResult:
    return replace(
        result,
        requests=0,
        failures=31,
        failures_by_kind={"timeout": 31},
        throughput_requests_per_s=0.0,
        throughput_inferences_per_s=0.0,
        latencies={},
        values_ms={},
        valid=False,
        invalid_reason="no request succeeded",
        decision=Decision.INVALID,
    )


def _unbounded(result: TrialResult) -> TrialResult:
    latency = result.latency
    assert isinstance(latency, LatencySummary)
    wide = {
        n: Percentile(p.value_ms, p.low_ms, 3_600_000.0) for n, p in latency.percentiles.items()
    }
    unbounded = {RESPONSE: replace(latency, percentiles=wide)}
    return replace(result, latencies=unbounded, decision=Decision.UNDECIDED)


def _never_drained(result: TrialResult) -> TrialResult:
    latency = result.latency
    assert isinstance(latency, LatencySummary)
    lost = {name: Percentile(3_600_000.0, 3_600_000.0, 3_600_000.0) for name in latency.percentiles}
    never_drained = {RESPONSE: replace(latency, percentiles=lost)}
    return replace(result, latencies=never_drained, decision=Decision.FAIL)


def _at_a_rate(result: TrialResult) -> TrialResult:
    """The same trial as an open loop that asks for a little more than is answered."""
    rate_per_s = float(round(1.02 * result.throughput_requests_per_s))
    workload = replace(
        result.trial.workload, load_mode=LoadMode.OPEN, rate_per_s=rate_per_s, concurrency=64
    )
    assert result.latency is not None
    return replace(
        result,
        trial=replace(result.trial, workload=workload),
        offered_requests_per_s=0.99 * rate_per_s,
        dropped=7,
        failures=7,
        failures_by_kind={"dropped": 7},
        latencies={**result.latencies, SERVICE: scaled(result.latency, 0.95, 0.8, 0.6, 0.4)},
    )
