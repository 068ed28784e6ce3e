"""The language models: Llama-shaped teacher, its student, and the undistilled control."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, MissingExtraError
from harness.reference.corpus import Split
from harness.reference.data import read_rows, tokenizer_folder
from harness.reference.embeddings import prior_embeddings
from harness.reference.recipes import PROSE_LENGTH, PROSE_VOCABULARY, Recipe
from harness.reference.tokenizer import END
from harness.reference.training import fit

if TYPE_CHECKING:
    import torch

SOFT_SHARE = 0.8
"""Of the loss that comes from the teacher; the rest is the text's."""
ANSWERS = 16
"""Next tokens a position whose probabilities the teacher gives: most of the mass, little space."""
EMBEDDING_DEVIATION = 0.04
SMALLEST_PROBABILITY = 1e-6
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
    recipe: Recipe, data: Path, answers: Path | None, *, seed: int, on_step: Callable[[], None]
) -> tuple[Any, Mapping[str, Any]]:
    """Trains one language model.

    Args:
        recipe: Its size and budget.
        data: The task's data folder.
        answers: Folder of the teacher's next-token answers over the training split; None trains on
            the text alone.
        seed: Of the embeddings' SVD; the caller has seeded torch.
        on_step: Called after every step.

    Returns:
        The model (a `LlamaForCausalLM`) and its record: mean `losses` and the `validation`
        perplexity, which is over windows across paragraphs and so only comparable to itself.

    Raises:
        DataError: the teacher's answers are of another training split.
    """
    train = windows(data, Split.TRAIN)
    model = _new_model(recipe)
    if recipe.prior_embeddings:
        _set_embeddings(model, train, seed)
    soft = None if answers is None else _read_answers(answers, len(train))
    losses = fit(model, recipe, len(train), _loss(model, train, soft), on_step)
    perplexity = round(perplexity_of(model, windows(data, Split.VALIDATION)), 3)
    return model, {"losses": losses, "validation": {"perplexity": perplexity}}


def write_answers(
    checkpoint: Path, data: Path, target: Path, on_share: Callable[[float], None]
) -> None:
    """Stores the teacher's likeliest next tokens over the training split in `target`.

    `tokens` (windows, PROSE_LENGTH - 1, ANSWERS) int16 and their `probabilities`, float16, whose
    sum is less than one by the mass of all other tokens.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    teacher = AutoModelForCausalLM.from_pretrained(checkpoint)
    train = windows(data, Split.TRAIN)
    tokens, probabilities = [], []
    with torch.no_grad():
        for batch in torch.split(train, _INFERENCE_BATCH):
            logits = teacher(input_ids=batch, use_cache=False).logits[:, :-1]
            likeliest = logits.softmax(dim=-1).topk(ANSWERS, dim=-1)
            tokens.append(likeliest.indices.to(torch.int16))
            probabilities.append(likeliest.values.to(torch.float16))
            on_share(len(batch) / len(train))
    answers = {"tokens": torch.cat(tokens), "probabilities": torch.cat(probabilities)}
    save_file(answers, target / "answers.safetensors")


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


def _set_embeddings(model: Any, train: torch.Tensor, seed: int) -> None:
    import torch

    weight = model.get_input_embeddings().weight
    ids = train.reshape(1, -1).numpy()
    embeddings = prior_embeddings(
        ids,
        (ids >= 0).astype(ids.dtype),
        vocabulary=weight.shape[0],
        dimensions=weight.shape[1],
        deviation=EMBEDDING_DEVIATION,
        seed=seed,
    )
    with torch.no_grad():
        weight.copy_(torch.from_numpy(embeddings))


def _read_answers(answers: Path, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    from safetensors.torch import load_file

    tensors = load_file(answers / "answers.safetensors")
    tokens, probabilities = tensors["tokens"], tensors["probabilities"]
    if len(tokens) != rows:
        raise DataError(
            f"{answers}: answers for {len(tokens)} windows, the training split has {rows}",
            next_step=f"delete the folder {answers.parent}; it is made again",
        )
    return tokens, probabilities


def _loss(
    model: Any, train: torch.Tensor, soft: tuple[torch.Tensor, torch.Tensor] | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Next-token cross-entropy with the text, mixed with that of the teacher's answers."""
    from torch.nn import functional

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        ids = train[batch]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        if soft is None:
            return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        log_probabilities = functional.log_softmax(logits, dim=-1)
        hard = -log_probabilities.gather(-1, ids[:, 1:, None]).mean()
        answers = soft[0][batch].long(), soft[1][batch].float()
        return (1 - SOFT_SHARE) * hard + SOFT_SHARE * _taught(log_probabilities, *answers)

    return loss_of


def _taught(
    log_probabilities: torch.Tensor, tokens: torch.Tensor, probabilities: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy with the teacher's likeliest tokens and, as one class more, all the others.

    Without that class the student would learn that nothing else ever comes, and its perplexity
    would suffer for it.
    """
    import torch

    named = log_probabilities.gather(-1, tokens)
    other = (1 - named.exp().sum(dim=-1)).clamp_min(SMALLEST_PROBABILITY)
    other_mass = (1 - probabilities.sum(dim=-1)).clamp_min(0)
    return -((probabilities * named).sum(dim=-1) + other_mass * torch.log(other)).mean()
