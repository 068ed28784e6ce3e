"""A teacher and its draft as one model to serve: both decoders in one folder.

    <teacher>-speculative/1/model.onnx, generation.json, tokenizer.json   the teacher's
    <teacher>-speculative/1/draft/model.onnx, generation.json             the draft's
    <teacher>-speculative/1/draft/speculation.json                        tokens in a step
    <teacher>-speculative/tokenizer/                                      the teacher's

Nothing is exported anew: the files are those of the two variants, which were checked.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from harness.errors import CheckpointError
from harness.export.convert import artefact_files
from harness.export.folders import (
    ArtefactManifest,
    digest_files,
    read_manifest,
    repository_lock,
    staged_folder,
    write_manifest,
)
from harness.export.source import ONNX_FILE
from harness.types import ModelVariant
from harness.types.generation import (
    DRAFT_FOLDER,
    SETTINGS_FILE,
    SPECULATION_FILE,
    TOKENIZER_FILE,
    GeneratorSettings,
)


def make_speculative(
    name: str, teacher: ModelVariant, draft: ModelVariant, *, tokens: int, repository: Path
) -> ModelVariant:
    """Put a teacher and its draft into one folder of the repository, unless it is there.

    Args:
        name: of the model that is served.
        teacher: in single precision, exported.
        draft: exported.
        tokens: that the draft proposes in a step.
        repository: where both lie.

    Raises:
        CheckpointError: the draft has other tokens than the teacher, or another context.
        StorageError: the repository cannot be written.
    """
    _check(teacher, draft)
    folder = repository / name
    recipe = {"teacher": teacher.sha256, "draft": draft.sha256, "tokens": tokens}
    with repository_lock(repository):
        manifest = read_manifest(folder)
        if manifest is None or manifest.recipe != recipe or not _is_whole(folder, manifest):
            manifest = _made(folder, teacher, draft, recipe)
    return dataclasses.replace(
        teacher,
        name=name,
        sha256=manifest.sha256,
        path=folder,
        parameters=manifest.parameters,
        size_bytes=manifest.size_bytes,
        drafted_by=draft.name,
    )


def _check(teacher: ModelVariant, draft: ModelVariant) -> None:
    own, theirs = (
        GeneratorSettings.from_json((one.path / "1" / SETTINGS_FILE).read_text("utf-8"))
        for one in (draft, teacher)
    )
    tokens = [(one.path / "1" / TOKENIZER_FILE).read_bytes() for one in (draft, teacher)]
    if tokens[0] != tokens[1] or own.vocabulary != theirs.vocabulary:
        raise CheckpointError(
            f"{draft.name} has another tokenizer than {teacher.name}: a draft proposes the "
            "teacher's own tokens",
            next_step="take a student with the teacher's tokenizer, or leave speculation out",
        )
    if theirs.has_encoder or own.has_encoder:
        raise CheckpointError(
            f"{teacher.name} reads its prompts with an encoder, and a draft is only for models "
            "that have none",
            next_step="leave speculation out",
        )
    if own.context != theirs.context:
        raise CheckpointError(
            f"{draft.name} has a context of {own.context} tokens and {teacher.name} one of "
            f"{theirs.context}: a draft reads all that its teacher reads",
            next_step="set the task's max_length",
        )


def _files(folder: Path) -> list[Path]:
    """The files that decide what is answered and how fast."""
    version, draft = folder / "1", folder / "1" / DRAFT_FOLDER
    graphs = [*artefact_files(version / ONNX_FILE), *artefact_files(draft / ONNX_FILE)]
    settings = [version / SETTINGS_FILE, version / TOKENIZER_FILE, draft / SETTINGS_FILE]
    return [*graphs, *settings, draft / SPECULATION_FILE]


def _is_whole(folder: Path, manifest: ArtefactManifest) -> bool:
    files = _files(folder)
    return all(one.is_file() for one in files) and digest_files(files) == manifest.sha256


def _made(
    target: Path, teacher: ModelVariant, draft: ModelVariant, recipe: dict[str, object]
) -> ArtefactManifest:
    with staged_folder(target) as folder:
        version = folder / "1"
        for variant, place in ((teacher, version), (draft, version / DRAFT_FOLDER)):
            place.mkdir()
            graph = artefact_files(variant.path / "1" / ONNX_FILE)
            for file in (*graph, variant.path / "1" / SETTINGS_FILE):
                shutil.copyfile(file, place / file.name)
        shutil.copyfile(teacher.path / "1" / TOKENIZER_FILE, version / TOKENIZER_FILE)
        told = json.dumps({"draft": draft.name, "tokens": recipe["tokens"]})
        (version / DRAFT_FOLDER / SPECULATION_FILE).write_text(told, encoding="utf-8")
        shutil.copytree(teacher.path / "tokenizer", folder / "tokenizer")
        manifest = ArtefactManifest(
            variant=target.name,
            source=teacher.source,
            recipe=recipe,
            sha256=digest_files(_files(folder)),
            size_bytes=(teacher.size_bytes or 0) + (draft.size_bytes or 0),
            parameters=teacher.parameters + draft.parameters,
            inputs=teacher.inputs,
            outputs=teacher.outputs,
            parity=dict(teacher.parity),
            warmup={},
        )
        write_manifest(folder, manifest)
    return manifest
