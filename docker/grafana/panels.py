"""The few kinds of Grafana panels that the dashboards are made of, and how they are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
"""As provisioning/datasources/prometheus.yml names it."""
SCHEMA_VERSION = 39
"""Grafana 11's; later ones migrate it when they load it."""
COLUMNS = 24
GREEN, ORANGE, RED = "green", "orange", "red"


@dataclass(frozen=True)
class Query:
    """One PromQL query and the legend of its series."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Panel:
    """What is shown, in which unit, and from where on it is bad."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    """Grafana's name: s, percentunit, reqps, bytes, watt, short."""
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    description: str = ""
    bad_from: float | None = None
    """Red from here on; where more is better it stays None."""
    stacked: bool = False
    decimals: int | None = None
    needs_gpu: bool = False
    """Its series exist only where Triton sees a GPU."""


@dataclass(frozen=True)
class Row:
    """A titled group of panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """One file."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    tags: Sequence[str] = ("harness", "triton")
    since: str = "now-15m"
    refresh: str = "5s"
    variables: Sequence[tuple[str, str, str]] = field(default_factory=tuple)
    """Name, label, and the query of its values."""


def document(dashboard: Dashboard) -> dict[str, Any]:
    """What Grafana reads."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": list(dashboard.tags),
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": dashboard.refresh,
        "time": {"from": dashboard.since, "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_variable(*one) for one in dashboard.variables]},
        "annotations": {"list": [_alerts()]},
        "links": [
            {
                "title": "Harness dashboards",
                "type": "dashboards",
                "tags": ["harness"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": _laid_out(dashboard.rows),
    }


def _laid_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Row by row, from left to right; a panel that does not fit begins a new line."""
    placed: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        top, left, tallest = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            placed.append({"id": len(placed) + 1, "gridPos": place, **_panel(panel)})
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "editorMode": "code",
                "range": panel.kind in {"timeseries", "heatmap", "state-timeline"},
                "instant": panel.kind not in {"timeseries", "heatmap", "state-timeline"},
                "format": {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series"),
            }
            for place, query in enumerate(panel.queries)
        ],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    if panel.bad_from is not None:
        steps.append({"color": RED, "value": panel.bad_from})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "noValue": "no data",
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        limit = "off" if panel.bad_from is None else "dashed"
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 2 if not panel.stacked else 1,
            "fillOpacity": 40 if panel.stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": limit},
        }
    return defaults


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    """A series that is the objective's bound, or what was asked for, is a dashed line."""
    if panel.kind != "timeseries":
        return []
    return [
        {
            "matcher": {"id": "byRegexp", "options": pattern},
            "properties": [
                {"id": "color", "value": {"mode": "fixed", "fixedColor": color}},
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
                {"id": "custom.lineWidth", "value": 1},
                {"id": "custom.fillOpacity", "value": 0},
            ],
        }
        for pattern, color in (("/^objective/", RED), ("/^asked/", ORANGE))
    ]


def _options(panel: Panel) -> dict[str, Any]:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            return {
                "reduceOptions": reduced,
                "colorMode": "value",
                "graphMode": "area",
                "textMode": "auto",
            }
        case "bargauge":
            return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "basic"}
        case "heatmap":
            return {
                "calculate": False,
                "yAxis": {"unit": panel.unit},
                "color": {"scheme": "Oranges", "steps": 64},
                "cellGap": 0,
            }
        case "state-timeline":
            return {"showValue": "auto", "mergeValues": True}
        case "table":
            return {"showHeader": True}
        case _:
            return {
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "enable": True,
        "iconColor": RED,
        "datasource": DATASOURCE,
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{variant}} {{model}} {{worker}}",
    }
