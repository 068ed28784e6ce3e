"""The page as one self-contained HTML file: no network, plotly.js inline once."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from harness.report.page import Page


def render_html(page: Page) -> str:
    """The report as HTML; everything that comes from the study is escaped."""
    return render_page("report.html.j2", page, plots=bool(page.plots))


def render_page(template: str, page: object, *, plots: bool) -> str:
    """Any page of the harness by its template; `plots` says whether plotly has to come along."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    folder = files("harness.report") / "templates"
    return environment.get_template(template).render(
        page=page,
        css=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs() if plots else "",
    )
