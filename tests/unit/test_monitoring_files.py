"""Dashboards, rules and provisioning: their structure; promtool's verdict on the rules."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
GRAFANA, RULES = DOCKER / "grafana", DOCKER / "prometheus" / "rules"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
UNITS = {"s", "short", "percentunit", "reqps", "bytes", "watt"}
KINDS = {"row", "timeseries", "stat", "bargauge", "heatmap", "table", "state-timeline"}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_dashboards_are_what_the_script_makes_of_them() -> None:
    script = (
        "import make_dashboards as made, pathlib\n"
        "for name, one in made.DASHBOARDS.items():\n"
        "    assert (made.FOLDER / f'{name}.json').read_text() == made.text_of(one), name\n"
        "print(len(made.DASHBOARDS))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=GRAFANA, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) == len(DASHBOARDS) == 3


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_the_form_that_grafana_reads(path: Path) -> None:
    dashboard = read(path)
    assert dashboard["schemaVersion"] >= 36
    assert re.fullmatch(r"[a-z0-9-]{1,40}", dashboard["uid"])
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        assert panel["type"] in KINDS
        assert panel["title"].strip()
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": uid}
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == uid
            assert target["expr"].strip()
            assert target["legendFormat"]
    for variable in dashboard["templating"]["list"]:
        assert variable["datasource"]["uid"] == uid
        assert f"${variable['name']}" in path.read_text(), "a variable that nothing uses"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_lies_over_another_or_beyond_the_edge(path: Path) -> None:
    places = [panel["gridPos"] for panel in read(path)["panels"]]
    for one in places:
        assert one["x"] >= 0
        assert one["x"] + one["w"] <= 24
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, other)


def test_dashboards_have_names_of_their_own() -> None:
    uids = [read(path)["uid"] for path in DASHBOARDS]
    assert len(set(uids)) == len(uids)


def test_the_provider_reads_the_folder_of_the_dashboards() -> None:
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/harness.yml").read_text())
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool on this machine (Debian: prometheus)")
    return found


def test_promtool_takes_the_rules(promtool: str) -> None:
    files = [str(path) for path in RULES.glob("*.yml")]
    answer = subprocess.run(
        [promtool, "check", "rules", *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_alert_fires_where_it_should_and_nowhere_else(promtool: str) -> None:
    tests = [str(path) for path in (RULES / "tests").glob("*.yml")]
    answer = subprocess.run(
        [promtool, "test", "rules", *tests], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_alert_is_tested_both_ways() -> None:
    rules = [
        rule
        for path in RULES.glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    fires, rests = set(), set()
    for path in (RULES / "tests").glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for one in case["alert_rule_test"]:
                (fires if one["exp_alerts"] else rests).add(one["alertname"])
    assert {rule["alert"] for rule in rules if "alert" in rule} == fires == rests & fires


def test_a_rule_that_would_not_fire_fails_promtools_test(promtool: str, tmp_path: Path) -> None:
    """The tests can fail: a bound ten times as high lets a burning objective pass."""
    (tmp_path / "tests").mkdir()
    rules = (RULES / "harness.yml").read_text()
    assert "rate5m > 6" in rules
    (tmp_path / "harness.yml").write_text(rules.replace("rate5m > 6", "rate5m > 60"))
    shutil.copy(RULES / "tests" / "harness.yml", tmp_path / "tests")
    answer = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "tests" / "harness.yml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode != 0
