"""What manifest.json holds: what was measured, on what, from which source."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.journal import SCHEMA_VERSION
from harness.machine import describe_machine, source_revision
from harness.pipeline.preparation import PreparedFamily
from harness.runs import read_manifest, study_digest
from harness.serving.environment import ServerEnvironment
from harness.storage import utc_now
from harness.study import Study


def new_manifest(study: Study) -> dict[str, Any]:
    """The manifest of a run that has not prepared anything yet."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created_utc": utc_now(),
        "resumed_utc": [],
        "study": study.model_dump(mode="json"),
        "command": shlex.join(["harness", *sys.argv[1:]]),
        "study_digest": study_digest(study),
        "seeds": {"study": study.seed},
        "environment": describe_machine(),
        "source_revision": source_revision(),
        "artefacts": {},
        "data": {},
    }


def describe_run(
    study: Study,
    path: Path,
    families: Sequence[PreparedFamily],
    environment: ServerEnvironment,
) -> dict[str, Any]:
    """The manifest with artefacts and data; a resumed run keeps when it began."""
    earlier = read_manifest(path)
    resumed = [utc_now()] if earlier["artefacts"] else []
    manifest = new_manifest(study)
    return {
        **manifest,
        "created_utc": earlier["created_utc"],
        "resumed_utc": [*earlier["resumed_utc"], *resumed],
        "environment": manifest["environment"] | {"server_environment": environment.digest},
        "artefacts": {
            variant.name: {"sha256": variant.sha256, "size_bytes": variant.size_bytes}
            for family in families
            for variant in family.variants
        },
        "data": {family.family.name: _data(family) for family in families},
    }


def _data(family: PreparedFamily) -> dict[str, Any]:
    dataset = family.datasets[family.teacher.name]
    return {
        "digest": dataset.digest,
        "samples": dataset.size,
        "truncated": dataset.truncated,
        "padding_share": dataset.padding_share,
    }
