"""What a sentence-transformers folder says of the way from token vectors to one of the text.

    modules.json                        the modules, in order
    1_Pooling/config.json               which token vectors become the text's
    2_Dense/config.json, model.safetensors   a linear layer with an activation
    2_Normalize                         to length 1
    sentence_bert_config.json           longest text in tokens (else tokenizer_config.json and
                                        config.json say it)
    config_sentence_transformers.json   prompts that are put before a text, and the similarity

Whatever else a folder names (a bag of words, a router, an adapter, a module of its own) is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import CheckpointError

MODULES = "modules.json"
_LENGTHS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Older releases named the file after the architecture; the first that is there counts."""
FILES = (
    MODULES,
    *_LENGTHS,
    "config_sentence_transformers.json",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "*_Dense/model.safetensors",
)
"""Files of such a checkpoint, beside what every checkpoint has."""

Pooling = Literal["mean", "cls", "max", "last"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "max", "last")
Similarity = Literal["cosine", "dot"]

_NAMES = {"lasttoken": "last"}
"""sentence-transformers' names of poolings, where ours are others."""
_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
_LIBRARY = "sentence_transformers."
_ARGUMENTS = tuple(
    f"{of}_{kind}"
    for of in ("model", "config", "tokenizer", "processor")
    for kind in ("args", "kwargs")
)
"""What the folder has sentence-transformers pass to transformers, beside the lengths."""
_HARMLESS = frozenset(
    {"add_pooling_layer", "attn_implementation", "cache_dir", "device_map", "dtype", "padding_side",
     "torch_dtype", "trust_remote_code", "use_cache", "use_safetensors"}
)  # fmt: skip
"""Arguments that change no vector: single precision and right padding are imposed here."""


_WAYS = ("query_length", "document_length", "query_expansion")
"""What releases from 6 on may say of how the transformer is asked, beside `processing_kwargs`: a
length of queries' and of documents' own."""
_PLAIN_TASK = "feature-extraction"
_PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
"""And what they say of a transformer that gives a vector for each token of a text."""


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer behind the pooling."""

    weights: Path
    """safetensors with `linear.weight`, and `linear.bias` where it has one."""
    activation: str
    """Name of a class of torch.nn."""


@dataclass(frozen=True)
class EmbeddingModules:
    """The way from token vectors to the text's vector."""

    pooling: Pooling
    dense: tuple[DenseLayer, ...] = ()
    normalised: bool = False
    """Whether vectors have length 1 in the end."""
    max_length: int | None = None
    """Longest text in tokens; None where no file of the folder says."""
    lower_case: bool = False
    """Whether texts are to be lowered before they are tokenised."""
    similarity: Similarity = "cosine"
    """The similarity that ranks texts."""
    query_prompt: str = ""
    """Put before a query."""
    document_prompt: str = ""
    """Put before a document."""
    prompt: str = ""
    """Put before any other text."""


def has_modules(folder: Path) -> bool:
    """Whether a folder is one that sentence-transformers saved."""
    return (folder / MODULES).is_file()


def read_modules(
    folder: Path, *, pooling: Pooling | None = None, normalised: bool | None = None
) -> EmbeddingModules:
    """Read a checkpoint's modules.

    Args:
        folder: the checkpoint.
        pooling: of a checkpoint without `modules.json`: the study's word.
        normalised: likewise.

    Raises:
        CheckpointError: a module that is not known here, or no word on the pooling.
    """
    if not has_modules(folder):
        return _by_the_study(folder, pooling, normalised=normalised)
    kinds: list[str] = []
    dense: list[DenseLayer] = []
    found_pooling: Pooling | None = None
    normalises = False
    for module in sorted(_json(folder / MODULES), key=lambda one: int(one["idx"])):
        kind = str(module["type"]).rpartition(".")[2]
        if not str(module["type"]).startswith(_LIBRARY):
            raise _refusal(folder, f"its module {len(kinds)} is code of its own, {module['type']}")
        place = folder / str(module.get("path", ""))
        kinds.append(kind)
        if kind == "Transformer" and len(kinds) == 1:
            _check_transformer(folder, module)
        elif kind == "Pooling" and found_pooling is None and not dense:
            found_pooling = _pooling(folder, place)
        elif kind == "Dense" and found_pooling is not None:
            if normalises:
                raise _refusal(folder, "it has a Dense layer behind Normalize")
            dense.append(_dense(folder, place))
        elif kind == "Normalize" and found_pooling is not None:
            normalises = True
        else:
            raise _refusal(folder, f"its module {len(kinds) - 1} is {kind}")
    if found_pooling is None:
        raise _refusal(folder, f"its modules are {', '.join(kinds)}, without Pooling")
    return _with_settings(
        folder, EmbeddingModules(found_pooling, tuple(dense), normalised=normalises)
    )


def _by_the_study(
    folder: Path, pooling: Pooling | None, *, normalised: bool | None
) -> EmbeddingModules:
    if pooling is None:
        raise CheckpointError(
            f"{folder} has no {MODULES}, so nothing says how token vectors become the text's",
            next_step=f"set the task's 'pooling' to one of {', '.join(POOLINGS)} (and "
            "'normalised'), as the model was trained",
        )
    return _with_settings(folder, EmbeddingModules(pooling, normalised=bool(normalised)))


def _check_transformer(folder: Path, module: Mapping[str, Any]) -> None:
    if module.get("path"):
        raise CheckpointError(
            f"{folder}: its transformer is in the subfolder {module['path']}",
            next_step="save it with a recent sentence-transformers, which puts the transformer "
            "beside modules.json",
        )


def _pooling(folder: Path, place: Path) -> Pooling:
    settings = _json(place / "config.json")
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [name for key, name in _OLD_NAMES.items() if settings.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    names = [_NAMES.get(mode, mode) for mode in modes]
    if len(names) != 1 or names[0] not in POOLINGS:
        raise _refusal(folder, f"it pools by {' and '.join(names)}")
    if settings.get("include_prompt") is False:
        raise _refusal(folder, "it leaves a prompt's tokens out of the pooling")
    name: Pooling = names[0]
    return name


def _dense(folder: Path, place: Path) -> DenseLayer:
    settings = _json(place / "config.json")
    package, _, activation = str(settings.get("activation_function", "torch.Tanh")).rpartition(".")
    plain = settings.get("module_input_name", "sentence_embedding") == "sentence_embedding"
    known = activation in _ACTIVATIONS and package.partition(".")[0] == "torch"
    if not known or settings.get("use_residual") or not plain:
        raise _refusal(folder, f"its Dense layer has {activation} and settings of its own")
    weights = place / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(
            f"{place} has no model.safetensors: its weights are a pickle, which can run code",
            next_step="if you trust its author, save the model again with a recent "
            "sentence-transformers",
        )
    return DenseLayer(weights, activation)


def _with_settings(folder: Path, modules: EmbeddingModules) -> EmbeddingModules:
    """The modules with the folder's lengths, prompts and similarity."""
    written = (folder / name for name in _LENGTHS)
    sentence: Mapping[str, Any] = next((_json(one) for one in written if one.is_file()), {})
    settings = _json(folder / "config_sentence_transformers.json", default={})
    _check_arguments(folder, sentence)
    similarity = str(settings.get("similarity_fn_name") or "cosine")
    if similarity not in {"cosine", "dot"}:
        raise _refusal(folder, f"its similarity is {similarity}")
    most = sentence.get("max_seq_length")
    query, document, plain = _prompts(folder, settings)
    return EmbeddingModules(
        modules.pooling,
        modules.dense,
        normalised=modules.normalised,
        max_length=int(most) if most else _longest_by_default(folder),
        lower_case=bool(sentence.get("do_lower_case")),
        similarity="dot" if similarity == "dot" else "cosine",
        query_prompt=query,
        document_prompt=document,
        prompt=plain,
    )


def _prompts(folder: Path, settings: Mapping[str, Any]) -> tuple[str, str, str]:
    """What stands before a query, a document and any other text.

    A query and a document never take the default prompt, as in `encode_query` and
    `encode_document`; one that is there and empty is none.
    """
    prompts = {str(name): str(text or "") for name, text in (settings.get("prompts") or {}).items()}
    default = settings.get("default_prompt_name")
    if default and default not in {*prompts, "query", "document"}:
        raise CheckpointError(
            f"{folder}: its default_prompt_name is '{default}', and its prompts are "
            f"{', '.join(prompts) or 'none'}",
            next_step="correct its config_sentence_transformers.json",
        )
    document = next((prompts[one] for one in _OF_DOCUMENTS if one in prompts), "")
    return prompts.get("query", ""), document, prompts.get(default, "") if default else ""


_OF_DOCUMENTS = ("document", "passage", "corpus")


def unshared_prompt(folder: Path) -> str:
    """The name of a documents' prompt that sentence-transformers itself leaves out; else empty.

    Its `encode_document` is to look for `document`, `passage` and `corpus`, in this order, and as
    of 6.2 always finds a `document`, which is empty where the folder has none.
    """
    settings = _json(folder / "config_sentence_transformers.json", default={})
    prompts = settings.get("prompts") or {}
    named = next((one for one in _OF_DOCUMENTS if one in prompts), "document")
    return named if named != "document" and prompts[named] else ""


def _longest_by_default(folder: Path) -> int | None:
    """What sentence-transformers truncates at where nothing says `max_seq_length`."""
    written = _json(folder / "tokenizer_config.json", default={}).get("model_max_length")
    positions = _json(folder / "config.json", default={}).get("max_position_embeddings")
    known = [int(one) for one in (written, positions) if one and one > 0]
    return min(known) if known else None


def _check_arguments(folder: Path, sentence: Mapping[str, Any]) -> None:
    """Refuse arguments to transformers that are not followed here, and ways to ask it."""
    given = {name for one in _ARGUMENTS for name in sentence.get(one) or {}}
    if strange := sorted(given - _HARMLESS):
        raise _refusal(folder, f"it opens its transformer with {', '.join(strange)}")
    asked = [name for name in _WAYS if sentence.get(name)]
    if any((sentence.get("processing_kwargs") or {}).values()):
        asked.append("processing_kwargs")
    if (sentence.get("transformer_task") or _PLAIN_TASK) != _PLAIN_TASK:
        asked.append(f"transformer_task {sentence['transformer_task']}")
    if (modalities := sentence.get("modality_config")) is not None:
        text = modalities.get("text")
        if any((text or {}).get(name) != value for name, value in _PLAIN_TEXT.items()):
            asked.append(f"modality_config {json.dumps(text)} of texts")
    if asked:
        raise _refusal(folder, f"it asks its transformer with {', '.join(asked)}")


def _refusal(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: {why}; what is served here is a transformer with one pooling "
        f"({', '.join(POOLINGS)}), Dense layers and Normalize",
        next_step="take a checkpoint of that form",
    )


def _json(path: Path, *, default: Any = None) -> Any:
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
