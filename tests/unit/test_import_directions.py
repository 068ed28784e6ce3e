"""Holds the two lines of docs/design.md: who may import whom, and what stays out of the harness."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2] / "harness"
STAGES = {
    "analysis", "export", "load", "planning", "profiling", "quality", "reference", "report",
    "serving", "telemetry", "tracking",
}  # fmt: skip
GROUND = {
    "errors", "hdr", "metrics", "statistics", "study", "system", "tasks", "types", "words",
}  # fmt: skip
ALLOWED = {
    "types": {"errors", "hdr"},
    "hdr": {"types"},
    "errors": set(),
    "metrics": {"errors", "hdr", "types"},
    "words": {"hdr", "metrics", "types"},
    "system": {"errors"},
    # What every task family counts with: no task, no file, no server.
    "statistics": {"errors", "metrics"},
    # Families bring their own sections: a study lies above them.
    "tasks": {"errors", "metrics", "statistics", "system", "types", "words"},
    "study": {"errors", "metrics", "system", "tasks", "types", "words"},
    "runs": {"errors", "metrics", "study", "system", "types"},
    **dict.fromkeys(STAGES, GROUND),
    "report": GROUND | {"runs"},
    "tracking": GROUND | {"runs"},
    "flow": STAGES | GROUND | {"runs"},
}


def modules() -> list[Path]:
    # Run by Triton, in its own environment.
    served = {"backends", "ensemble_models", "router_models"}
    return sorted(path for path in HARNESS.rglob("*.py") if not served & set(path.parts))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    first = path.relative_to(HARNESS).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(HARNESS)))
def test_a_module_imports_only_what_lies_below_it(path):
    own = room(path)
    if own in {"cli", "__main__", "__init__"}:
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("harness.")}
    forbidden = used - ALLOWED[own] - {own}
    assert not forbidden, f"{path.name} of {own} must not import {sorted(forbidden)}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(HARNESS)))
def test_the_harness_never_imports_locust_or_gevent(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"locust", "gevent"}


@pytest.mark.parametrize("folder", ["locustfiles", "benchmarks"])
def test_files_that_go_on_the_path_hide_no_package(folder):
    """A `triton.py` there was once what torch found when it looked for the package `triton`."""
    optional = {"triton", "flash_attn", "wandb", "mlflow"}  # looked for, and often not installed
    packages = set(packages_distributions()) | sys.stdlib_module_names | optional
    own = {path.stem for path in (HARNESS.parent / folder).glob("*.py")}
    assert not own & packages


def test_a_report_rebuilds_without_the_training_and_serving_stack():
    """On a laptop with the base install alone, from a run folder."""
    code = (
        "import sys, harness.report.build, harness.analysis.percentiles, harness.planning.search;"
        "heavy = {'torch', 'transformers', 'tritonclient', 'locust', 'gevent', 'grpc'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("modules", ["page", "page, serving_watch, verdict"])
def test_locust_starts_without_what_takes_longest_to_import(modules):
    """Neither to generate load nor to judge it."""
    code = (
        f"from harness_locust import {modules}; import sys;"
        "print({'scipy.stats', 'scipy.optimize', 'pandas'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(HARNESS.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "set()"


def test_no_modules_import_each_other():
    """Directly or over others; imports for types alone count too."""
    names = {
        path: ".".join(path.relative_to(HARNESS.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        )
        for path in modules()
    }
    known = set(names.values())
    graph = {
        name: {
            next(one for one in (full, full.rpartition(".")[0]) if one in known)
            for full in imported(path)
            if full.startswith("harness") and {full, full.rpartition(".")[0]} & known
        }
        - {name}
        for path, name in names.items()
    }
    TopologicalSorter(graph).prepare()  # raises a CycleError that shows the circle


def test_a_class_name_means_one_thing():
    """Private ones apart; Triton itself wants `TritonPythonModel` in each of its Python models."""
    places: dict[str, list[str]] = {}
    for path in [*modules(), *(HARNESS.parent / "harness_locust").glob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
