"""What a checkpoint's config.json says: which task it is for, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CheckpointError
from harness.study import Model, Task
from harness.system.libraries import plain_reason, quiet
from harness.tasks.family import AnyFamily
from harness.tasks.registry import FAMILIES, family_of, family_of_checkpoint

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
"""What configurations call the number of positions."""
_POSITIONS_BEHIND_PAD = frozenset(
    {
        *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert"),
        *("data2vec-text", "ibert", "lilt", "layoutlmv3", "longformer", "luke", "markuplm"),
        "mpnet",
    }
)
"""Their first token has the position behind the pad token's id."""


def read_config(model: Model, folder: Path) -> PretrainedConfig:
    """Read a checkpoint's configuration.

    Raises:
        CheckpointError: transformers does not know it, or it brings code that may not run.
    """
    from transformers import AutoConfig

    try:
        with quiet():
            config: PretrainedConfig = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=model.trust_remote_code
            )
    except Exception as error:
        # Configurations check themselves, each with exceptions of its own.
        message = f"its config.json cannot be used: {plain_reason(error)}"
        if "trust_remote_code" in str(error):
            message = "it brings its own Python code, and the study does not say trust_remote_code"
        raise CheckpointError(message) from error
    return config


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part that describes the language model, where text is one of several modalities."""
    try:
        return config.get_text_config()
    except ValueError:  # several parts could be it
        return config


def vocabulary_size(config: PretrainedConfig) -> int | None:
    """Rows of the table of word embeddings; None where the configuration does not tell."""
    size = getattr(text_config(config), "vocab_size", None)
    return size if isinstance(size, int) else None


def config_problems(config: PretrainedConfig, family: AnyFamily | None) -> Iterator[str]:
    """Why a model cannot be judged here, whatever the data.

    Args:
        config: of the checkpoint.
        family: it is used for; None where it was made for none of ours.
    """
    if family is None:
        named = ", ".join(config.architectures or ["none"])
        taken = [f"{one.described} (...{one.architectures[0]})" for one in FAMILIES]
        yield (
            f"config.json names the architecture {named}; it takes "
            f"{', '.join(taken[:-1])} or {taken[-1]}"
        )
    if getattr(config, "is_encoder_decoder", False):
        yield "it is an encoder-decoder, which needs a decoder's inputs that the task has not"
    if family is not None:
        yield from family.problems(config)


def family_for(config: PretrainedConfig, task: Task | None) -> AnyFamily | None:
    """The family that a checkpoint is used in: its task's where it fits, else the one it is of."""
    wanted = None if task is None else family_of(task)
    if wanted is not None and wanted.made_for(config):
        return wanted
    return family_of_checkpoint(config)


def task_problems(config: PretrainedConfig, family: AnyFamily, task: Task) -> Iterator[str]:
    """Why a model does not go with a task."""
    if family.kind != task.kind:
        yield f"it is made for {family.kind}, the task is {task.kind}"
    yield from length_problems(config, task.max_length)


def length_problems(config: PretrainedConfig, length: int) -> Iterator[str]:
    """Whether the model's positions end before the longest padded sample does."""
    positions, held = _positions(config), positions_held(config)
    if positions is None or held is None or held >= length:
        return
    behind = f", {positions - held} of them before its first token's" if held < positions else ""
    yield (
        f"it has {positions} positions{behind}, but the task's max_length is {length}: it can be "
        f"{held} at most"
    )


def positions_held(config: PretrainedConfig) -> int | None:
    """Tokens that a model has positions for; None where it sets no limit."""
    positions = _positions(config)
    if positions is None or config.model_type not in _POSITIONS_BEHIND_PAD:
        return positions
    pad = 1 if config.model_type == "mpnet" else _count(config, "pad_token_id") or 0
    return positions - pad - 1


def _positions(config: PretrainedConfig) -> int | None:
    return next(filter(None, (_count(config, name) for name in _POSITIONS)), None)


def _count(config: PretrainedConfig, name: str) -> int | None:
    """A number of the text model's configuration; None where it has none, or a negative one."""
    value = getattr(text_config(config), name, None)
    return value if isinstance(value, int) and value > 0 else None
