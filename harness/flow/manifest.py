"""What manifest.json holds: what was measured, on what, from which source."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import RunFolderError
from harness.flow.preparation import PreparedFamily
from harness.runs.folder import RunFolder, read_manifest, study_digest
from harness.runs.journal import SCHEMA_VERSION
from harness.study import Study
from harness.system.machine import describe_machine, source_revision
from harness.system.storage import utc_now

HEADER_OPTION = "--header"


def new_manifest(study: Study) -> dict[str, Any]:
    """The manifest of a run that has not prepared anything yet."""
    return {
        **bare_manifest(study.name, study.seed),
        "study": study.model_dump(mode="json"),
        "study_digest": study_digest(study),
    }


def bare_manifest(name: str, seed: int) -> dict[str, Any]:
    """The manifest of a run without a study: one trial of a model on an external server."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created_utc": utc_now(),
        "resumed_utc": [],
        "study": {"name": name, "families": []},
        "command": command_line(sys.argv[1:]),
        "study_digest": "",
        "seeds": {"study": seed},
        "environment": describe_machine(),
        "source_revision": source_revision(),
        "artefacts": {},
        "data": {},
    }


def command_line(arguments: Sequence[str]) -> str:
    """How the harness was called, without the values of headers."""
    return shlex.join(["harness", *without_secrets(arguments)])


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """Arguments without the values of headers: those are secrets."""
    told = []
    rest = iter(arguments)
    for argument in rest:
        option, joined, header = argument.partition("=")
        if option != HEADER_OPTION:
            told.append(argument)
            continue
        name = (header if joined else next(rest, "")).partition(":")[0]
        told += [option, f"{name}: ..."]
    return told


def describe_run(
    study: Study,
    path: Path,
    families: Sequence[PreparedFamily],
    server: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The manifest with artefacts and data; a resumed run keeps when it began.

    `server` is what to say of it: a part `environment` of ours, a part `server` of anybody else's.
    """
    earlier = read_manifest(path)
    data = {family.family.name: _data(family) for family in families}
    _check_data(path, earlier["data"], data)
    resumed = [utc_now()] if earlier["artefacts"] else []
    manifest = new_manifest(study)
    return {
        **manifest,
        "created_utc": earlier["created_utc"],
        "resumed_utc": [*earlier["resumed_utc"], *resumed],
        **server,
        "environment": manifest["environment"] | dict(server.get("environment", {})),
        "artefacts": {
            variant.name: {"sha256": variant.sha256, "size_bytes": variant.size_bytes}
            for family in families
            for variant in family.variants
        },
        "data": data,
    }


_MACHINE = {
    "instance": "instance type",
    "cpu": "processor",
    "usable_cores": "usable cores",
    "gpus": "GPUs",
}
"""What of an environment can change any latency, with its name in a sentence."""


HERE = "do this on that machine, or run the study on this one first: harness run STUDY"
"""What to do where a finished run is to be measured further on another machine."""


def check_machine(
    folder: RunFolder, next_step: str = "go on there, or start a new run without --resume"
) -> None:
    """What was timed on one machine is not gone on with on another.

    A run that timed nothing yet may move. What its manifest does not tell is not compared.

    Args:
        folder: the run's.
        next_step: what to do on another machine.

    Raises:
        RunFolderError: processor, usable cores, GPUs or instance type have changed since.
    """
    journal = folder.journal
    if not any(
        (journal.trials, journal.cold_starts, journal.card, journal.served, journal.overheads)
    ):
        return
    before, now = read_manifest(folder.path).get("environment") or {}, describe_machine()
    changed = [
        f"{words} {_told(before[key])} then, {_told(now[key])} now"
        for key, words in _MACHINE.items()
        if key in before
        and before[key] != now[key]
        # Firmware may keep its instance type to itself.
        and (key != "instance" or (before[key] and now[key]))
    ]
    if changed:
        raise RunFolderError(
            f"{folder.path} was measured on another machine: {'; '.join(changed)}",
            next_step=next_step,
        )


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value) or "unknown"


def _check_data(path: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Scores and trials of other rows are not gone on with.

    Raises:
        RunFolderError: the rows, or what a tokenizer makes of them, have changed since.
    """
    for name in earlier.keys() & now.keys():
        before, own = earlier[name].get("encoded", {}), now[name]["encoded"]
        changed = [variant for variant in own if before.get(variant, own[variant]) != own[variant]]
        if changed:
            raise RunFolderError(
                f"{path} was measured on other data: the rows of family {name} have changed since, "
                f"or what the tokenizer of {', '.join(changed)} makes of them",
                next_step="start a new run without --resume",
            )


def _data(family: PreparedFamily) -> dict[str, Any]:
    """The rows, as the first variant has them: the teacher's, where the whole family is there."""
    dataset = next(iter(family.datasets.values()))
    return {
        "digest": dataset.digest,
        "encoded": {name: one.digest for name, one in family.datasets.items()},
        "samples": dataset.samples,
        "windows": dataset.size,
        "truncated": dataset.truncated,
        "windowed": dataset.windowed,
        "padding_share": dataset.padding_share,
        "tokenizers": {
            one.model.name: one.tokenizer_note
            for one in family.opened.values()
            if one.tokenizer_note
        },
    }
