"""What a checkpoint's config.json says: which task it is for, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.study import Model, Task
from harness.system.extras import quiet
from harness.system.reasons import plain_reason
from harness.types import TaskKind

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_CLASSIFIER = "ForSequenceClassification"
_QUESTION_ANSWERER = "ForQuestionAnswering"
_LANGUAGE_MODEL = ("ForCausalLM", "LMHeadModel")
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


def kind_of(config: PretrainedConfig) -> TaskKind | None:
    """The task that a checkpoint was saved for; None for any other than ours."""
    architecture = (config.architectures or [""])[0]
    if architecture.endswith(_CLASSIFIER):
        return TaskKind.SEQUENCE_CLASSIFICATION
    if architecture.endswith(_QUESTION_ANSWERER):
        return TaskKind.QUESTION_ANSWERING
    if architecture.endswith(_LANGUAGE_MODEL):
        return TaskKind.CAUSAL_LM
    return None


def config_problems(config: PretrainedConfig, kind: TaskKind | None) -> Iterator[str]:
    """Why a model cannot be judged here, whatever the data."""
    if kind is None:
        named = ", ".join(config.architectures or ["none"])
        yield (
            f"config.json names the architecture {named}; it takes a sequence classifier "
            f"(...ForSequenceClassification), an extractive question answerer "
            f"(...ForQuestionAnswering) or a causal language model (...ForCausalLM)"
        )
    if getattr(config, "is_encoder_decoder", False):
        yield "it is an encoder-decoder, which needs a decoder's inputs that the task has not"
    if kind is not TaskKind.SEQUENCE_CLASSIFICATION:
        return
    if (config.num_labels or 0) < 2:  # noqa: PLR2004  (one output is a regression)
        yield "it has one output: a regression, not a classifier"
    numbers = sorted(config.id2label or ())
    if numbers != list(range(len(numbers))):
        yield (
            f"its id2label numbers the classes {', '.join(map(str, numbers[:8]))}, and outputs are "
            "counted from 0: which output is which class is not certain"
        )
    if config.problem_type == "multi_label_classification":
        yield "it gives several labels a text; the task has one"
    if config.problem_type == "regression":
        yield "it was trained for a regression, not as a classifier"


def task_problems(config: PretrainedConfig, kind: TaskKind, task: Task) -> Iterator[str]:
    """Why a model does not go with a task."""
    if kind is not task.kind:
        yield f"it is made for {kind}, the task is {task.kind}"
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


def label_names_of(config: Any, kind: TaskKind | None) -> tuple[str, ...] | None:
    """Class names in the order of the outputs; None where it has none."""
    if kind is not TaskKind.SEQUENCE_CLASSIFICATION:
        return None
    return tuple(str(config.id2label[index]) for index in sorted(config.id2label))
