"""A search that is driven to its end over a made-up system, and what is best there in truth."""

import dataclasses
from itertools import pairwise

from closed_queue import DEMO_MODELS, ServedModel, demo_space, measure, operate

from harness.planning.assessment import QualityJudgement
from harness.planning.decision import decide
from harness.planning.dialogue import Reserved
from harness.planning.search import BisectionSearch
from harness.study.objective import parse_objective
from harness.types import Decision

SLO = parse_objective("p95 < 50 ms, accuracy >= 90% of teacher")
SLOW = ServedModel(500.0, 1.0)


def make_search(kind=BisectionSearch, slo=SLO, space=None, unproven=(), yardsticks=()):
    variants, serving, workloads = space or demo_space()
    reserved = Reserved(frozenset(unproven), frozenset(yardsticks))
    return kind(
        "topics", variants, serving, workloads, slo, confirm_duration_s=4.0, reserved=reserved
    )


def drive(search, system=measure):
    """Run a search to its end; the results in order."""
    results = []
    while (trial := search.ask()) is not None:
        assert search.remaining >= 1
        results.append(system(trial))
        search.tell(results[-1])
    assert search.remaining == 0
    return results


def recommended(results, slo=SLO):
    quality = dict.fromkeys(DEMO_MODELS, QualityJudgement(Decision.PASS, "keeps it"))
    decided = decide("topics", slo, quality, results)
    assert decided.decision is Decision.PASS
    return next(one for one in results if one.trial.trial_id == decided.recommended)


def true_best(space, models, bound_ms=50.0):
    """The most inferences/s that any cell gives under the bound, at any number in flight."""
    variants, serving, workloads = space
    heaviest = max(workload.concurrency for workload in workloads)
    outcomes = [
        operate(models[variant], config, dataclasses.replace(workload, concurrency=in_flight))
        for variant in variants
        for config in serving
        for workload in {(w.protocol, w.client_batch_size): w for w in workloads}.values()
        if workload.client_batch_size <= config.max_batch_size
        for in_flight in range(1, heaviest + 1)
    ]
    return max(rate for rate, latency_ms in outcomes if 1.3 * latency_ms < bound_ms)


def reloads(results):
    """How often another variant or serving configuration had to be loaded."""
    loaded = [(one.trial.variant, one.trial.serving) for one in results]
    return 1 + sum(before != after for before, after in pairwise(loaded))


def verdict_of(results, slo=SLO):
    quality = dict.fromkeys(DEMO_MODELS, QualityJudgement(Decision.PASS, "keeps it"))
    return decide("topics", slo, quality, results)
