"""The tensors that a served model takes: by its forward pass and its tables, not by its tokenizer.

A tokenizer's list of inputs is no word on the model: transformers 5 rebuilds tokenizers by class,
and many of them (ALBERT's, XLNet's, RemBERT's) no longer list the token types that their models
were trained with. Asked for them by name they give them all the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import CheckpointError
from harness.system.libraries import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_TYPED_WITHOUT_TABLE = frozenset({"xlnet", "funnel"})
"""Model types that compare token types rather than look them up, so their configurations count
none."""


@dataclass(frozen=True)
class ModelInputs:
    """What one checkpoint's model takes."""

    names: tuple[str, ...]
    """Inputs of the served model, in order."""
    type_count: int | None = None
    """Rows of its table of token types; None where it has no such table."""
    has_encoder: bool = False
    """Whether an encoder reads its inputs, and a decoder of its own the answer."""

    @property
    def typed(self) -> bool:
        """Whether token types are among them."""
        return "token_type_ids" in self.names

    def check(self, encoded: Mapping[str, Sequence[Sequence[int]]]) -> None:
        """Make sure that the model knows every token type that its tokenizer makes.

        Raises:
            CheckpointError: it does not.
        """
        if not self.typed or self.type_count is None:
            return
        largest = max((max(row, default=0) for row in encoded["token_type_ids"]), default=0)
        if largest >= self.type_count:
            raise CheckpointError(
                f"its tokenizer makes token type {largest}, but the model has "
                f"{self.type_count} types, counted from 0: the tokenizer is another model's"
            )


class InputsOfTask(Protocol):
    """What of a task family says which inputs its models take."""

    typed: bool
    """Whether token types are sent where the model reads them."""
    auto_class: str
    """The class of transformers that loads its models."""
    encoder_decoders: bool
    """Whether an encoder-decoder may be one of them."""


def model_inputs(
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    family: InputsOfTask,
    *,
    trust_remote_code: bool = False,
) -> ModelInputs:
    """Inputs of the served model.

    Token types are among them where the model's forward pass takes them and it has more than one;
    a language model is asked without (they would all be zero, which is the default). A forward
    pass that takes them without its own table (GPT-2's adds the *word* of that number) gets
    them only where the tokenizer says so, as in the library's own plain call.
    """
    names: tuple[str, ...] = ("input_ids", "attention_mask")
    if not family.typed and not family.encoder_decoders:
        return ModelInputs(names)
    config = _config_of(folder, trust_remote_code=trust_remote_code)
    if not family.typed:
        has_encoder = config is not None and bool(config.is_encoder_decoder)
        return ModelInputs(names, has_encoder=has_encoder)
    taken = None if config is None else forward_parameters(config, folder, family)
    announced = "token_type_ids" in tokenizer.model_input_names
    if config is None or taken is None:
        # Nothing tells what the model takes: then the tokenizer's word stands.
        return ModelInputs((*names, "token_type_ids") if announced else names)
    count = getattr(config.get_text_config(), "type_vocab_size", None)
    if not isinstance(count, int):
        count = None
    typed = announced or config.model_type in _TYPED_WITHOUT_TABLE if count is None else count > 1
    if typed and "token_type_ids" in taken:
        names = (*names, "token_type_ids")
    return ModelInputs(names, count)


def forward_parameters(
    config: PretrainedConfig, folder: Path, family: InputsOfTask
) -> frozenset[str] | None:
    """Parameters of the forward pass that transformers would run for a task; None if unknown.

    A checkpoint's own code is read only where its configuration was allowed to be.
    """
    import transformers
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.models.auto.auto_factory import _get_model_class

    name = family.auto_class
    own = (getattr(config, "auto_map", None) or {}).get(name)
    try:
        with quiet():
            model: Any = (
                get_class_from_dynamic_module(own, str(folder), local_files_only=True)
                if own and type(config).__module__.startswith("transformers_modules")
                else _get_model_class(  # type: ignore[no-untyped-call]  # unannotated there
                    config, getattr(transformers, name)._model_mapping
                )
            )
    except (OSError, ValueError, KeyError, ImportError, AttributeError):
        return None
    return frozenset(inspect.signature(model.forward).parameters)


def _config_of(folder: Path, *, trust_remote_code: bool) -> PretrainedConfig | None:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return None
    try:
        with quiet():
            config: PretrainedConfig = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError, KeyError, ImportError):
        return None
    return config
