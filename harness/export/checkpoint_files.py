"""A checkpoint's files: found on the hub or in a folder, its weights counted and read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.export.configuration import read_config
from harness.study import Model
from harness.system.libraries import plain_reason, quiet, require_extra
from harness.system.storage import storage_errors
from harness.tasks.family import AnyFamily
from harness.tasks.registry import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
            empty = _auto_class(family).from_config(
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

    if getattr(read_config(model, folder), "alibi", False):
        attention = None  # Falcon's plain form adds its bias twice
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        with quiet():
            loaded, report = _auto_class(family).from_pretrained(
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


def _auto_class(family: AnyFamily) -> Any:
    import transformers

    return getattr(transformers, family.auto_class)
