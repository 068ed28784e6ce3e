"""A stored run priced: the newest plan's replicas and the tokens of its requests taken along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from harness.errors import UsageError
from harness.planning.cost.catalogue import Catalogue
from harness.planning.cost.costs import CostQuestion, costs_of
from harness.report.build import build_report
from harness.runs.documents import read_document, write_document
from harness.runs.folder import StoredRun, read_run
from harness.study.clauses import asked_for
from harness.study.objective import parse_objective
from harness.types import Decision, ServiceLevelObjective
from harness.types.capacity import CapacityPlan, Headroom
from harness.types.costs import CostReport
from harness.types.estimates import Demand

COST = "cost"
"""Name of the document that costs are kept in."""
_MASK = "/attention_mask"


def price_run(
    folder: Path, demand: Demand | None, catalogue: Catalogue, question: CostQuestion
) -> tuple[CostReport, Path]:
    """Price a run, keep its costs in its folder, and write its report anew.

    Args:
        folder: a run folder.
        demand: the traffic; None: that of the newest plan, if there is one.
        catalogue: prices.
        question: the rest; replicas and tokens are added here.

    Returns:
        The costs, and the path of their document.

    Raises:
        RunFolderError: no run, or one that cannot be read.
        UsageError: a question that cannot be answered, or a run of which nothing can be priced.
        StorageError: the document or the report cannot be written.
    """
    run = read_run(folder)
    plan = read_document(folder, "plan", CapacityPlan)
    if demand is None and plan is not None and question.slo is None:
        demand = plan.demand
    asked = replace(
        question,
        tokens=tokens_of(run, folder),
        replicas=planned_replicas(plan, demand, run, question.slo) if plan and demand else {},
    )
    found = costs_of(run, demand, catalogue, asked)
    _check_any(found)
    path = write_document(folder, COST, found)
    build_report(run, folder)
    return found, path


def planned_replicas(
    plan: CapacityPlan, demand: Demand, run: StoredRun, slo: ServiceLevelObjective | None
) -> dict[str, Headroom]:
    """By variant, the fewest replicas that a stored plan gives for this very demand and objective.

    Only replicas that are sure to meet the objective at the peak count.

    Args:
        plan: the newest.
        demand: what is priced.
        run: whose families have the objectives.
        slo: in place of those; None: theirs.
    """
    same = (demand.rate_per_s, demand.peak_factor, demand.batch_mix) == (
        plan.demand.rate_per_s,
        plan.demand.peak_factor,
        plan.demand.batch_mix,
    )
    found: dict[str, Headroom] = {}
    for one in plan.deployments if same else ():
        objective = slo or run.objectives.get(one.family)
        planned_for = parse_objective(one.objective, judged=False)
        if objective is None or asked_for(objective) != asked_for(planned_for):
            continue
        if one.replicas is None or one.decision is not Decision.PASS:
            continue
        best = found.get(one.variant)
        if best is None or one.replicas.recommended < best.recommended:
            found[one.variant] = one.replicas
    return found


def tokens_of(run: StoredRun, folder: Path) -> dict[str, float]:
    """By variant, the mean number of tokens per row that was sent, without padding.

    A variant whose requests were not kept, have no attention mask, or were drawn by a mix of
    lengths is left out.
    """
    mixed = {one.trial.variant for one in run.trials if one.trial.workload.length_mix}
    found: dict[str, float] = {}
    for variant in run.variants:
        answers = sorted((folder / "payloads").glob(f"*-{variant.hex_digest[:12]}-*.answers.npz"))
        pools = {path.name.partition("-")[0] for path in answers}
        if len(pools) == 1 and variant.name not in mixed:
            tokens = _tokens_per_row(folder / "payloads" / f"{pools.pop()}.npz")
            if tokens:
                found[variant.name] = tokens
    return found


def _tokens_per_row(pool: Path) -> float | None:
    try:
        with np.load(pool, allow_pickle=False) as arrays:
            masks = [arrays[name] for name in arrays.files if name.endswith(_MASK)]
    except (OSError, ValueError, BadZipFile):
        return None
    rows = sum(len(mask) for mask in masks)
    return float(sum(mask.sum() for mask in masks)) / rows if rows else None


def _check_any(found: CostReport) -> None:
    if found.costs:
        return
    reasons = [
        f"  - {one.variant}{f' on {one.instance}' if one.instance else ''}: {one.reason}"
        for one in found.unpriced
    ]
    if not reasons:
        raise UsageError(
            "the run has no variant to price", next_step="name a run of a study: harness run STUDY"
        )
    raise UsageError(
        "nothing of this run can be priced\n" + "\n".join(reasons),
        next_step=found.unpriced[0].next_step,
    )
