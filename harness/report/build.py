"""The stage's one entry: a stored run in, `report.html` and `report.md` out."""

from __future__ import annotations

from pathlib import Path

from harness.report.card.page import build_card
from harness.report.markdown import render_markdown
from harness.report.page import Documents, page_of, render_html
from harness.runs.documents import read_document
from harness.runs.folder import StoredRun
from harness.system.storage import replace_text
from harness.types.autoscaling import AutoscalePlan
from harness.types.capacity import CapacityPlan
from harness.types.costs import CostReport
from harness.types.offline import OfflinePlan
from harness.types.rollout import RolloutRecord
from harness.types.routing import Route


def build_report(run: StoredRun, folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.md into a folder, replacing older ones.

    Where models were measured in process, the report card too: card.html, card.md, card.csv.
    A report is derived from the run and may be written again at any time; unfinished runs give
    one too.

    Returns:
        The paths of the HTML and of the Markdown file.

    Raises:
        RunFolderError: the folder has a plan, costs, policies, a job, a router or a rollout that
            cannot be read.
        StorageError: they cannot be written.
    """
    documents = Documents(
        plan=read_document(folder, "plan", CapacityPlan),
        costs=read_document(folder, "cost", CostReport),
        scaling=read_document(folder, "autoscale", AutoscalePlan),
        offline=read_document(folder, "batch", OfflinePlan),
        route=read_document(folder, "route", Route),
        rollout=read_document(folder, "rollout", RolloutRecord),
    )
    page = page_of(run, documents)
    html, markdown = folder / "report.html", folder / "report.md"
    replace_text(html, render_html(page))
    replace_text(markdown, render_markdown(page))
    if run.card:
        build_card(run, folder)
    return html, markdown
