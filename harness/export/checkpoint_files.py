"""A checkpoint's files: found on the hub or in a folder, and what its config.json says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.study import Model, Task
from harness.system.libraries import plain_reason, quiet, require_extra
from harness.system.storage import storage_errors
from harness.tasks.family import AnyFamily
from harness.tasks.generation.encoder_decoders import ENCODER_DECODERS, RELATIVE
from harness.tasks.registry import FAMILIES, family_of, family_of_checkpoint

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    *(name for family in FAMILIES for name in family.checkpoint_files),
)
WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
CODE_FILES = ("*.py",)


def download(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Folder with the named files of a hub model; what the cache has is not fetched again.

    Raises:
        CheckpointError: no such model or revision, no permission, or no network and no copy.
        StorageError: the cache cannot be written.
        MissingExtraError: huggingface_hub is not installed.
    """
    require_extra("huggingface_hub")
    from huggingface_hub import constants

    with storage_errors(Path(constants.HF_HUB_CACHE)):
        return _download(name, revision, patterns)


def _download(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        # "*/*": a fnmatch star also takes slashes, and sub-folders hold other formats.
        flat, nested = ([one for one in patterns if ("/" in one) is deep] for deep in (False, True))
        folder = snapshot_download(
            name, revision=revision, allow_patterns=flat, ignore_patterns=["*/*"]
        )
        if nested:
            snapshot_download(name, revision=revision, allow_patterns=nested)
    except HFValidationError as error:
        raise CheckpointError(
            f"'{name}' is neither a folder nor a hub name (owner/name)",
            next_step="local folders begin with ./ or / in a study",
        ) from error
    except GatedRepoError as error:
        raise CheckpointError(
            f"hub model {name} is gated",
            next_step=f"accept its terms at huggingface.co/{name}, then: hf auth login",
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(
            f"hub model {name}, revision {revision or 'main'}: {_first_line(error)}",
            next_step="check the name and the revision on huggingface.co",
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"hub model {name}: the Hugging Face hub cannot be reached and the local cache has "
            f"no copy",
            next_step=f"where there is a network: hf download {name} --local-dir FOLDER; "
            f"then name the folder as the checkpoint",
        ) from error
    return Path(folder)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))


def count_parameters(model: Model, folder: Path, family: AnyFamily) -> int:
    """Count on a model without memory: the file also stores buffers, and shared weights once."""
    import torch

    config = read_config(model, folder)
    try:
        with quiet(), torch.device("meta"):
            empty = _auto_class(family, config).from_config(
                config, trust_remote_code=model.trust_remote_code
            )
    except Exception as error:
        # A configuration that lacks what its model reads fails as Python does: in any way.
        raise CheckpointError(
            f"checkpoint {model.checkpoint}: transformers cannot build it: {plain_reason(error)}"
        ) from error
    return sum(weight.numel() for weight in empty.parameters())


def load_model(
    model: Model, folder: Path, family: AnyFamily, *, attention: str | None = "eager"
) -> PreTrainedModel:
    """Read the weights, in single precision and ready for inference.

    Args:
        model: the study's section.
        folder: where the checkpoint lies.
        family: whose task it is asked to do.
        attention: the form of its attention. The plain ('eager') one exports to fewer operators
            than the fused one, and ONNX Runtime runs them a little faster; None leaves the choice
            to the library.

    Raises:
        CheckpointError: the weights cannot be read, are of other sizes than the configuration
            says, or the task's head is not among them.
    """
    import torch

    config = read_config(model, folder)
    if getattr(config, "alibi", False):
        attention = None  # Falcon's plain form adds its bias twice
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        with quiet():
            loaded, report = _auto_class(family, config).from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, with the sizes
                **chosen,
            )
    except Exception as error:
        # safetensors, torch and the model's own code have no common base of exceptions.
        raise CheckpointError(
            f"checkpoint {model.checkpoint}: the weights cannot be read: {plain_reason(error)}"
        ) from error
    other_sizes = sorted(report["mismatched_keys"])
    if other_sizes:
        name, held, built = other_sizes[0]
        raise CheckpointError(
            f"checkpoint {model.checkpoint}: its config.json does not match its weights: {name} "
            f"has the shape {list(held)}, and {list(built)} by config.json",
            next_step="look at the number of classes (id2label), of tokens and of positions there",
        )
    missing = sorted(
        name for name in report["missing_keys"] if not name.startswith(family.unused_weights)
    )
    if missing:
        raise CheckpointError(
            f"checkpoint {model.checkpoint} has no weights for {', '.join(missing[:4])}"
            f"{' and more' if len(missing) > 4 else ''}: it was not trained for {family.kind}",  # noqa: PLR2004
            next_step="fine-tune it for the task first, or name the checkpoint that was",
        )
    return loaded.eval()  # type: ignore[no-any-return]


def _auto_class(family: AnyFamily, config: PretrainedConfig) -> Any:
    import transformers

    return getattr(transformers, family.class_for(config))


_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
"""What configurations call the number of positions."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""What they call the tokens that a token sees, where that is not all before it."""
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
    takes_it = family is not None and family.encoder_decoders
    if getattr(config, "is_encoder_decoder", False) and not takes_it:
        yield (
            f"it is an encoder-decoder of type {config.model_type}: those of type "
            f"{', '.join(ENCODER_DECODERS)} are taken, for the task generation"
        )
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
    if config.model_type in RELATIVE:
        return None  # T5's `n_positions` was the length it was trained with
    return next(filter(None, (_count(config, name) for name in _POSITIONS)), None)


def windows_of(config: PretrainedConfig) -> list[int]:
    """Tokens that a token of some layers sees at most, where the configuration has such a limit."""
    return [window for window in map(partial(_count, config), _WINDOWS) if window is not None]


def _count(config: PretrainedConfig, name: str) -> int | None:
    """A number of the text model's configuration; None where it has none, or a negative one."""
    value = getattr(text_config(config), name, None)
    return value if isinstance(value, int) and value > 0 else None
