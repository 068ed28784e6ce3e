"""Files of a checkpoint on the Hugging Face hub, or in its local cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import CheckpointError
from harness.storage import storage_errors
from harness.tasks.extras import require_extra

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
        folder = snapshot_download(
            name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
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
