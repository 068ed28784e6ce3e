"""The language models: Llama-shaped teacher, its student, and the undistilled control."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import MissingExtraError
from harness.reference.corpus import Split, read_rows, tokenizer_folder
from harness.reference.recipes import PROSE_LENGTH, PROSE_VOCABULARY, Recipe
from harness.reference.training import fit
from harness.reference.vocabulary import END, set_embeddings

if TYPE_CHECKING:
    import torch

SOFT_SHARE = 0.8
"""Share of the loss that comes from the teacher; the rest is the text's."""
EMBEDDING_DEVIATION = 0.04
_INFERENCE_BATCH = 32


def windows(data: Path, split: Split) -> torch.Tensor:
    """The split's paragraphs, joined by the end token and cut to (windows, PROSE_LENGTH) ids.

    The rest that does not fill a window is left out.
    """
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(data))
    end = tokenizer.convert_tokens_to_ids(END)
    texts = [row["text"] for row in read_rows(data, split)]
    encoded = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    ids = [number for paragraph in encoded for number in (*paragraph, end)]
    count = len(ids) // PROSE_LENGTH
    return torch.tensor(ids[: count * PROSE_LENGTH]).view(count, PROSE_LENGTH)


def train_language_model(
    recipe: Recipe, data: Path, teacher: Path | None, *, seed: int, on_step: Callable[[], None]
) -> tuple[Any, Mapping[str, Any]]:
    """Trains one language model.

    Args:
        recipe: Its size and budget.
        data: The task's data folder.
        teacher: Checkpoint to learn from; None trains on the text alone.
        seed: Of the embeddings' SVD; the caller has seeded torch.
        on_step: Called after every step.

    Returns:
        The model (a `LlamaForCausalLM`) and its record: mean `losses` and the `validation`
        perplexity, which is over windows across paragraphs and so only comparable to itself.
    """
    from transformers import AutoModelForCausalLM

    train = windows(data, Split.TRAIN)
    model = _new_model(recipe)
    text = train.reshape(1, -1).numpy()
    set_embeddings(model, text, np.ones_like(text), deviation=EMBEDDING_DEVIATION, seed=seed)
    guide = None if teacher is None else AutoModelForCausalLM.from_pretrained(teacher)
    losses = fit(model, recipe, len(train), _loss(model, train, guide), on_step)
    perplexity = round(perplexity_of(model, windows(data, Split.VALIDATION)), 3)
    return model, {"losses": losses, "validation": {"perplexity": perplexity}}


def perplexity_of(model: Any, token_ids: torch.Tensor) -> float:
    """Exponential of the mean negative log-likelihood a token, without each window's first."""
    import torch
    from torch.nn import functional

    model.eval()
    total = 0.0
    with torch.no_grad():
        for batch in torch.split(token_ids, _INFERENCE_BATCH):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
            total += functional.cross_entropy(
                logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"
            ).item()
    return math.exp(total / token_ids[:, 1:].numel())


def _new_model(recipe: Recipe) -> Any:
    """Rotary positions and tied embeddings: per step it learns faster than GPT-2's shape."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise MissingExtraError("transformers", "export") from error
    config = LlamaConfig(
        vocab_size=PROSE_VOCABULARY,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=_gated_size(recipe.hidden),
        max_position_embeddings=PROSE_LENGTH,
        initializer_range=EMBEDDING_DEVIATION,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def _gated_size(hidden: int) -> int:
    """8/3 of the hidden size, so that three matrices weigh what two of 4x do; a multiple of 16."""
    return int(8 * hidden / 3) // 16 * 16


def _loss(
    model: Any, train: torch.Tensor, teacher: Any | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Next-token cross-entropy with the text, or with a mix of the text and the teacher's word.

    The mix is one distribution a position, SOFT_SHARE of it the teacher's, so that distilling costs
    one softmax more and the teacher's forward pass.
    """
    import torch
    from torch.nn import functional

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        ids = train[batch]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        following = ids[:, 1:].flatten()
        if teacher is None:
            return functional.cross_entropy(logits, following)
        with torch.no_grad():
            taught = teacher(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            target = taught.softmax(dim=-1).mul_(SOFT_SHARE)
            rest = torch.full((len(following), 1), 1 - SOFT_SHARE)
            target.scatter_add_(1, following[:, None], rest)
        return functional.cross_entropy(logits, target)

    return loss_of
