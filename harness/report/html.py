"""The page as one self-contained HTML file: no network, plotly.js inside, compressed."""

from __future__ import annotations

import gzip
from base64 import b64encode
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.errors import EnvironmentFailure
from harness.report.page import Page

_TEMPLATES = files("harness.report") / "templates"


def render_html(page: Page) -> str:
    """The report as HTML; everything that comes from the study is escaped."""
    return render_page("report.html.j2", page, plots=bool(page.plots))


def render_page(template: str, page: object, *, plots: bool) -> str:
    """Any page of the harness.

    Args:
        template: its template's name.
        page: what the template shows, under the name `page`.
        plots: whether the page has plots, so that plotly.js has to come along.
    """
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(template).render(
        page=page,
        css=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(_TEMPLATES / "report.js").read_text(encoding="utf-8"),
        plotly=b64encode(compressed_plotly()).decode() if plots else "",
    )


def compressed_plotly() -> bytes:
    """plotly.js as gzip: the bundle of the installation, else the one of an installed `plotly`.

    Raises:
        EnvironmentFailure: there is neither, as in a checkout that was never installed.
    """
    own = _TEMPLATES / "plotly.min.js.gz"
    if own.is_file():
        return own.read_bytes()
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise EnvironmentFailure(
            "plotly.js, which draws the report's plots, is not in this installation",
            next_step="install the harness again: pip install -e . (it fetches plotly.js)",
        )
    full = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return gzip.compress(full.read_bytes(), compresslevel=9, mtime=0)
