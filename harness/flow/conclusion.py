"""What may follow a run that is over: a plan for a demand, and the page that is signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.flow.plan import PlanQuestion, plan_capacity
from harness.flow.review.decisions import review_runs
from harness.flow.review.page import DecisionFiles, write_decision
from harness.types import Progress
from harness.types.capacity import CapacityPlan


@dataclass(frozen=True)
class Conclusion:
    """A run's plan and decision, as they were written into its folder."""

    plan: CapacityPlan | None
    plan_file: Path | None
    why_no_plan: str
    """Why there is no plan; empty where there is one."""
    decision: DecisionFiles


def conclude_run(
    folder: Path, question: PlanQuestion, progress: Callable[[Progress], None]
) -> Conclusion:
    """Do what `harness plan` and then `harness decide` do, so that the page holds the plan.

    A run whose trials allow no plan (all invalid, on a busy machine) still has its page.

    Args:
        folder: of a run whose results are written.
        question: what the plan is asked.
        progress: gets every step.

    Raises:
        RunFolderError: the folder is no run, or nothing was measured.
        StorageError: the documents cannot be written.
    """
    plan, plan_file, why = None, None, ""
    try:
        plan, plan_file = plan_capacity(folder, question, progress)
    except UsageError as error:
        why = str(error)
    progress(Progress("decision page", 0, 1, ""))
    decision = write_decision(review_runs([folder]), folder)
    progress(Progress("decision page", 1, 1, ""))
    return Conclusion(plan, plan_file, why, decision)
