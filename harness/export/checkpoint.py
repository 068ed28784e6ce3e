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
from types import SimpleNamespace
from typing import TYPE_CHECKING

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
from harness.export.generation.checkpoint_rules import read_generation_config, unserved
from harness.study import Model, Task
from harness.system.libraries import require_extra
from harness.tasks.family import AnyFamily
from harness.tasks.generation.rows import TextGeneration
from harness.tasks.registry import family_of
from harness.tasks.tokenizers import VOCABULARY_FILES, has_tokenizer
from harness.words.numbers import count

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ADAPTER = "adapter_config.json"
"""Error text of the package peft: transformers adds the adapter only where peft is installed."""
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "*.ckpt")


@dataclass(frozen=True)
class CheckpointPreview:
    """What a checkpoint's small files say; enough to check a study against."""

    name: str
    """The name that the study gives it."""
    folder: Path
    family: AnyFamily
    """The family that it is used in."""
    label_names: tuple[str, ...] | None
    """Class names in the order of the outputs; None where it has none."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with its weights on this machine."""

    name: str
    """The name that the study gives it."""
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
        problems += _answer_problems(config, place, family, task)
        label_names = family.label_names(config) if family else None
    if problems or family is None:
        raise _refusal(model, problems)
    return CheckpointPreview(model.checkpoint, place, family, label_names)


def glance_at_checkpoint(
    model: Model, task: Task, *, weights: bool = True
) -> CheckpointPreview | None:
    """What a folder's own files say, read without transformers, which takes seconds to import.

    Args:
        model: the study's section.
        task: what it is to be used for.
        weights: whether they have to be there.

    Returns:
        None where only the library can tell: a hub name, code of the checkpoint's own, or classes
        that config.json leaves to transformers' defaults.

    Raises:
        CheckpointError: a file is missing, or config.json cannot be read.
    """
    if not _is_local(model) or model.trust_remote_code:
        return None
    folder = Path(model.checkpoint)
    problems = list(_file_problems(folder, local=weights))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        config = None  # told by then
    except ValueError as error:
        problems.append(f"its config.json is not JSON: {error}")
    if problems:
        raise _refusal(model, problems)
    family = family_of(task)
    try:
        said = SimpleNamespace(**{**config, "name_or_path": str(folder)})
        if not family.made_for(said):  # type: ignore[arg-type]
            return None
        names = {int(place): name for place, name in (config.get("id2label") or {}).items()}
        whole = len(names) == config.get("num_labels", len(names))
    except (AttributeError, TypeError, ValueError):
        return None  # the library says what it makes of it
    label_names = family.label_names(SimpleNamespace(id2label=names))  # type: ignore[arg-type]
    if not whole or label_names == ():
        return None
    return CheckpointPreview(model.checkpoint, folder, family, label_names)


def _answer_problems(
    config: PretrainedConfig, folder: Path, family: AnyFamily | None, task: Task | None
) -> list[str]:
    """What the answers of a model that writes would need and is not served."""
    if family is None or not family.writes:
        return []
    # Without a task nobody has said yet what is compared.
    num_beams = task.num_beams if isinstance(task, TextGeneration) else 1
    asked = read_generation_config(folder, config)
    return [*unserved(asked, num_beams, has_encoder=config.is_encoder_decoder)]


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
    listed = f" {problems[0]}" if len(problems) == 1 else "\n  - ".join(["", *problems])
    return CheckpointError(f"checkpoint {model.checkpoint}:{listed}", next_step=_advice(problems))


def _file_problems(folder: Path, *, local: bool) -> Iterator[str]:
    """What is missing in a folder; `local` False: its weights have not been fetched."""
    if not (folder / "config.json").is_file():
        yield f"{folder} has no config.json"
    if not has_tokenizer(folder):
        yield f"{folder} has no tokenizer (none of {', '.join(VOCABULARY_FILES)})"
    if (folder / _ADAPTER).is_file():
        yield f"it has an adapter ({_ADAPTER}), which would be ignored silently"
    if not local:
        return
    weights = sorted(folder.glob("*.safetensors"))
    if weights:
        yield from filter(None, map(_cut_short, weights))
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        yield f"the weights are only there as {', '.join(pickles)}: pickles, which can run code"
    else:
        yield f"{folder} has no weights in safetensors (model.safetensors)"


def _cut_short(weights: Path) -> str:
    """Why a file of weights is not whole, by the sizes that it begins with; empty where it is."""
    held = weights.stat().st_size
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begins = file.read(min(length, held))
    if b"git-lfs.github.com" in begins[:200]:
        return f"{weights.name} is a Git LFS pointer, and not the weights themselves"
    try:
        tensors = {name: one for name, one in json.loads(begins).items() if name != "__metadata__"}
        needed = 8 + length + max((one["data_offsets"][1] for one in tensors.values()), default=0)
    except (AttributeError, LookupError, TypeError, ValueError):
        return f"{weights.name} ({count(held)} bytes) does not begin as safetensors do"
    return (
        ""
        if held >= needed
        else f"{weights.name} is cut short: {count(held)} of {count(needed)} bytes"
    )


_CONVERT = (
    "if it has pickles only and you trust its author, convert it: load it with transformers' "
    "from_pretrained, save_pretrained to a folder, and name that folder"
)
_STEPS = {
    _ADAPTER: "merge it into its model where peft is installed: merge_and_unload(), then "
    "save_pretrained to a new folder, and name that; or take the file away",
    "Git LFS": "fetch them where the checkpoint was cloned: git lfs pull",
    "is cut short": "copy or download the checkpoint again",
    "does not begin as": "copy or download the checkpoint again",
    "safetensors": _CONVERT,
    "pickles": _CONVERT,
    "no tokenizer": "save the tokenizer beside the model: tokenizer.save_pretrained(FOLDER)",
    "trust_remote_code": "if you have read that code and trust it, set trust_remote_code: true on "
    "the model",
}
"""What to do about a problem, by words of it; the first that is found counts."""


def _advice(problems: list[str]) -> str:
    text = " ".join(problems)
    return next((step for words, step in _STEPS.items() if words in text), "")


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
