"""harness export: fill the model repository."""

from __future__ import annotations

from harness.cli.console import ProgressDisplay, print_json, print_line, say, warn
from harness.cli.options import DEFAULT_REPOSITORY, AsJson, Repository, StudyFile, read_study
from harness.errors import EXIT_OK
from harness.words.numbers import megabytes


def export(
    study_file: StudyFile,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> int:
    """Export every variant of a study with its config.pbtxt, ready for any Triton.

    Variants that cannot be exported are printed with the reason; the others are exported all the
    same. The exit code is that of the first failure.
    """
    study = read_study(study_file)
    from harness.flow.options import RunSettings
    from harness.flow.run import export_study

    with ProgressDisplay() as progress:
        families = export_study(study, RunSettings(repository, progress=progress, warn=warn))
    variants = [variant for family in families for variant in family.variants]
    failures = {name: error for family in families for name, error in family.failures.items()}
    if as_json:
        made = [{"variant": v.name, "path": v.path, "sha256": v.sha256} for v in variants]
        lacking = [{"variant": name, "failed": str(one)} for name, one in failures.items()]
        print_json([*made, *lacking])
    else:
        for variant in variants:
            size = f"{megabytes(variant.size_bytes)} MB"
            print_line(f"{variant.path}  {size}  sha256 {variant.sha256[:12]}")
    for name, error in failures.items():
        say(f"error: {name} cannot be exported: {error}")
        if error.next_step:
            say(f"next: {error.next_step}")
    return next((one.exit_code for one in failures.values()), EXIT_OK)
