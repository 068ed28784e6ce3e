"""harness schema: the study's JSON Schema."""

from __future__ import annotations

from harness.cli.console import print_json
from harness.study import study_schema


def schema() -> None:
    """Print the study file's JSON Schema, for editors."""
    print_json(study_schema())
