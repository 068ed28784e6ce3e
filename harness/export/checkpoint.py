"""Checkpoints: a Hugging Face model in a folder or on the hub, opened without running its code.

Weights are read from safetensors only: the older formats are Python pickles, which run code when
they are read. Code that a checkpoint brings runs only when the study says `trust_remote_code`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CheckpointError
from harness.export.checkpoint_files import (
    CODE_FILES,
    SMALL_FILES,
    WEIGHT_FILES,
    config_problems,
    count_parameters,
    download,
    family_for,
    read_config,
    task_problems,
)
from harness.study import Model, Task
from harness.system.libraries import require_extra
from harness.tasks.family import AnyFamily
from harness.tasks.tokenizers import VOCABULARY_FILES, has_tokenizer

_ADAPTER = "adapter_config.json"
"""Of the package peft: transformers adds the adapter where that is installed, and only there."""
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "*.ckpt")


@dataclass(frozen=True)
class CheckpointPreview:
    """What a checkpoint's small files say; enough to check a study against."""

    name: str
    """As the study names it."""
    folder: Path
    family: AnyFamily
    """That it is used in."""
    label_names: tuple[str, ...] | None
    """Class names in the order of the outputs; None where it has none."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with its weights on this machine."""

    name: str
    """As the study names it."""
    folder: Path
    digest: str
    """SHA-256 over configuration, weights and tokenizer: what the artefact depends on."""
    parameters: int
    """Number of trained weights; shared ones count once."""
    label_names: tuple[str, ...] | None
    """Class names in the order of the outputs; None where it has none."""


def inspect_checkpoint(
    model: Model, folder: Path | None, *, task: Task | None = None, weights: bool = True
) -> CheckpointPreview:
    """Check a checkpoint by its configuration, tokenizer and file names; weights stay unread.

    Args:
        model: the study's section.
        folder: where a `reference:` model lies; None for the user's own.
        task: what it is to be used for, checked too when given.
        weights: whether a folder must hold them; they may be on somebody's server.

    Raises:
        CheckpointError: with every problem found.
        MissingExtraError: transformers is not installed.
    """
    require_extra("transformers")
    place = folder or _locate(model, SMALL_FILES)
    problems = list(
        _file_problems(place, local=weights and (folder is not None or _is_local(model)))
    )
    family, label_names = None, None
    try:
        config = read_config(model, place)
    except CheckpointError as error:
        problems += [str(error)] if (place / "config.json").is_file() else []
    else:
        family = family_for(config, task)
        problems += config_problems(config, family)
        problems += task_problems(config, family, task) if task and family else []
        label_names = family.label_names(config) if family else None
    if problems or family is None:
        raise _refusal(model, problems)
    return CheckpointPreview(model.checkpoint, place, family, label_names)


def open_checkpoint(
    model: Model, *, folder: Path | None, task: Task | None = None, weights: bool = True
) -> Checkpoint:
    """Find a checkpoint, fetch what is not on this machine, and check it.

    Args:
        model: the study's section.
        folder: where a `reference:` model lies; None for the user's own.
        task: what it is to be used for, checked too when given.
        weights: false: they are on somebody's server, and are neither needed nor fetched.

    Raises:
        CheckpointError: with every problem found, and the next step.
        MissingExtraError: transformers or torch is not installed.
    """
    require_extra("torch", "transformers", "safetensors")
    preview = inspect_checkpoint(model, folder, task=task, weights=weights)
    place = folder or _locate(model, (*SMALL_FILES, *(WEIGHT_FILES if weights else ())))
    problems = list(_file_problems(place, local=weights))
    if problems:
        raise _refusal(model, problems)
    return Checkpoint(
        name=model.checkpoint,
        folder=place,
        digest=_digest(place, with_code=model.trust_remote_code),
        parameters=count_parameters(model, place, preview.family),
        label_names=preview.label_names,
    )


def _is_local(model: Model) -> bool:
    return Path(model.checkpoint).is_dir()


def _locate(model: Model, patterns: tuple[str, ...]) -> Path:
    if _is_local(model):
        return Path(model.checkpoint)
    code = CODE_FILES if model.trust_remote_code else ()
    return download(model.checkpoint, model.revision, (*patterns, *code))


def _refusal(model: Model, problems: list[str]) -> CheckpointError:
    listed = problems[0] if len(problems) == 1 else "".join(f"\n  - {one}" for one in problems)
    return CheckpointError(f"checkpoint {model.checkpoint}: {listed}", next_step=_advice(problems))


def _file_problems(folder: Path, *, local: bool) -> Iterator[str]:
    """What is missing in a folder; `local` False: its weights have not been fetched."""
    if not (folder / "config.json").is_file():
        yield f"{folder} has no config.json"
    if not has_tokenizer(folder):
        yield f"{folder} has no tokenizer (none of {', '.join(VOCABULARY_FILES)})"
    if (folder / _ADAPTER).is_file():
        yield f"it has an adapter ({_ADAPTER}), which would be ignored silently"
    if not local or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        yield f"the weights are only there as {', '.join(pickles)}: pickles, which can run code"
    else:
        yield f"{folder} has no weights in safetensors (model.safetensors)"


def _advice(problems: list[str]) -> str:
    text = " ".join(problems)
    if _ADAPTER in text:
        return (
            "merge it into its model where peft is installed: merge_and_unload(), then "
            "save_pretrained to a new folder, and name that; or take the file away"
        )
    if "safetensors" in text or "pickles" in text:
        return (
            "if it has pickles only and you trust its author, convert it: load it with "
            "transformers' from_pretrained, save_pretrained to a folder, and name that folder"
        )
    if "no tokenizer" in text:
        return "save the tokenizer beside the model: tokenizer.save_pretrained(FOLDER)"
    if "trust_remote_code" in text:
        return "if you have read that code and trust it, set trust_remote_code: true on the model"
    return ""


def _digest(folder: Path, *, with_code: bool) -> str:
    """Over the files that decide what is exported, by name; training logs and READMEs do not."""
    patterns = (*SMALL_FILES, "*.safetensors", *(CODE_FILES if with_code else ()))
    files = {
        file.relative_to(folder).as_posix(): file
        for pattern in patterns
        for file in folder.glob(pattern)
    }
    digests = {}
    for name, file in sorted(files.items()):
        with file.open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
