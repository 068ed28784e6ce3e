"""harness export: fill the model repository."""

from __future__ import annotations

from harness.cli.console import ProgressDisplay, print_json, print_line
from harness.cli.options import DEFAULT_REPOSITORY, AsJson, Repository, StudyFile
from harness.pipeline.machinery import Machinery
from harness.pipeline.run import export_study
from harness.report.numbers import megabytes
from harness.study_file import load_study


def export(
    study_file: StudyFile,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Export every variant of a study with its config.pbtxt, ready for any Triton."""
    study = load_study(study_file)
    with ProgressDisplay() as progress:
        families = export_study(study, Machinery(repository, progress=progress))
    variants = [variant for family in families for variant in family.variants]
    if as_json:
        print_json([{"variant": v.name, "path": v.path, "sha256": v.sha256} for v in variants])
        return
    for variant in variants:
        size = f"{megabytes(variant.size_bytes)} MB"
        print_line(f"{variant.path}  {size}  sha256 {variant.sha256[:12]}")
