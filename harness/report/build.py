"""The stage's one entry: a stored run in, `report.html` and `report.md` out."""

from __future__ import annotations

from pathlib import Path

from harness.report.card.page import build_card
from harness.report.markdown import render_markdown
from harness.report.page import page_of, render_html
from harness.runs.documents import read_document
from harness.runs.folder import StoredRun
from harness.system.storage import replace_text
from harness.types.autoscaling import AutoscalePlan
from harness.types.capacity import CapacityPlan
from harness.types.costs import CostReport


def build_report(run: StoredRun, folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.md into a folder, replacing older ones.

    Where models were measured in process, the report card too: card.html, card.md, card.csv.
    A report is derived from the run and may be written again at any time; unfinished runs give
    one too.

    Returns:
        The paths of the HTML and of the Markdown file.

    Raises:
        RunFolderError: the folder has a plan, costs or policies that cannot be read.
        StorageError: they cannot be written.
    """
    page = page_of(
        run,
        read_document(folder, "plan", CapacityPlan),
        read_document(folder, "cost", CostReport),
        read_document(folder, "autoscale", AutoscalePlan),
    )
    html, markdown = folder / "report.html", folder / "report.md"
    replace_text(html, render_html(page))
    replace_text(markdown, render_markdown(page))
    if run.card:
        build_card(run, folder)
    return html, markdown
