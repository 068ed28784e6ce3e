"""The classifiers: BERT-shaped teacher and the students that learn from its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, MissingExtraError
from harness.reference.corpus import Split, read_rows, tokenizer_folder
from harness.reference.recipes import TOPICS_LENGTH, TOPICS_VOCABULARY, Recipe
from harness.reference.training import fit
from harness.reference.vocabulary import set_embeddings

if TYPE_CHECKING:
    import torch

TEMPERATURE = 2.0
SOFT_SHARE = 0.9
"""Share of the loss that comes from the teacher; the rest is the labels'."""
TOKEN_DROP = 0.15
"""Share of tokens hidden in a training row: dropout's work at a tenth of its cost on a CPU."""
EMBEDDING_DEVIATION = 0.05
_INFERENCE_BATCH = 128


@dataclass(frozen=True)
class EncodedRows:
    """One split of the data as tensors."""

    token_ids: torch.Tensor
    """(rows, TOPICS_LENGTH) token ids."""
    mask: torch.Tensor
    """(rows, TOPICS_LENGTH) 1 for real tokens."""
    labels: torch.Tensor
    """(rows,) class indexes."""


def label_names(data: Path) -> list[str]:
    """The classes in the order of their numbers."""
    return sorted({row["label"] for row in read_rows(data, Split.TRAIN)})


def encode_rows(data: Path, split: Split) -> EncodedRows:
    """Tokenises one split, padded and cut to `TOPICS_LENGTH`."""
    import torch
    from transformers import AutoTokenizer

    rows = read_rows(data, split)
    names = label_names(data)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(data))
    encoded = tokenizer(
        [row["text"] for row in rows],
        padding="max_length",
        truncation=True,
        max_length=TOPICS_LENGTH,
        return_tensors="pt",
    )
    labels = torch.tensor([names.index(row["label"]) for row in rows])
    return EncodedRows(encoded["input_ids"], encoded["attention_mask"], labels)


def train_classifier(
    recipe: Recipe, data: Path, answers: Path | None, *, seed: int, on_step: Callable[[], None]
) -> tuple[Any, Mapping[str, Any]]:
    """Trains one classifier.

    Args:
        recipe: Its size and budget.
        data: The task's data folder.
        answers: Folder of the teacher's logits over the training split; None trains on labels.
        seed: Of the embeddings' SVD; the caller has seeded torch.
        on_step: Called after every step.

    Returns:
        The model (a `BertForSequenceClassification`) and its record: mean `losses` and the
        `validation` accuracy.

    Raises:
        DataError: the teacher's answers are of another training split.
    """
    train = encode_rows(data, Split.TRAIN)
    model = _new_model(recipe, label_names(data))
    ids, mask = train.token_ids.numpy(), train.mask.numpy()
    set_embeddings(model, ids, mask, deviation=EMBEDDING_DEVIATION, seed=seed)
    soft = None if answers is None else _read_answers(answers, len(train.labels))
    losses = fit(model, recipe, len(train.labels), _loss(model, train, soft), on_step)
    validation = encode_rows(data, Split.VALIDATION)
    hits = logits_of(model, validation).argmax(dim=1) == validation.labels
    accuracy = round(hits.double().mean().item(), 4)
    return model, {"losses": losses, "validation": {"accuracy": accuracy}}


def write_answers(
    checkpoint: Path, data: Path, target: Path, on_share: Callable[[float], None]
) -> None:
    """Stores the teacher's logits (rows, classes) over the training split in `target`."""
    from safetensors.torch import save_file
    from transformers import AutoModelForSequenceClassification

    teacher = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    logits = logits_of(teacher, encode_rows(data, Split.TRAIN), on_share)
    save_file({"logits": logits}, target / "answers.safetensors")


def logits_of(
    model: Any, rows: EncodedRows, on_share: Callable[[float], None] | None = None
) -> torch.Tensor:
    """Logits (rows, classes); `on_share` hears of the share of rows done by each batch."""
    import torch

    model.eval()
    parts = []
    with torch.no_grad():
        for ids, mask in zip(
            torch.split(rows.token_ids, _INFERENCE_BATCH),
            torch.split(rows.mask, _INFERENCE_BATCH),
            strict=True,
        ):
            parts.append(model(input_ids=ids, attention_mask=mask).logits)
            if on_share is not None:
                on_share(len(ids) / len(rows.token_ids))
    return torch.cat(parts)


def _new_model(recipe: Recipe, names: list[str]) -> Any:
    try:
        from transformers import BertConfig, BertForSequenceClassification
    except ImportError as error:
        raise MissingExtraError("transformers", "export") from error
    config = BertConfig(
        vocab_size=TOPICS_VOCABULARY,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=4 * recipe.hidden,
        max_position_embeddings=TOPICS_LENGTH,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    return BertForSequenceClassification(config)


def _read_answers(answers: Path, rows: int) -> torch.Tensor:
    from safetensors.torch import load_file

    logits = load_file(answers / "answers.safetensors")["logits"]
    if len(logits) != rows:
        raise DataError(
            f"{answers}: answers for {len(logits)} rows, the training split has {rows}",
            next_step=f"delete the folder {answers.parent}; it is made again",
        )
    return logits


def _loss(
    model: Any, train: EncodedRows, soft: torch.Tensor | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Cross-entropy, or its mix with the teacher's softened distribution.

    Hinton, Vinyals and Dean, 'Distilling the knowledge in a neural network' (2015), section 2: the
    factor TEMPERATURE**2 keeps both parts' gradients on one scale.
    """
    import torch
    from torch.nn import functional

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        mask = train.mask[batch]
        kept = (torch.rand(mask.shape) >= TOKEN_DROP).long()
        kept[:, 0] = 1  # [CLS] is what the head reads
        logits = model(input_ids=train.token_ids[batch], attention_mask=mask * kept).logits
        hard = functional.cross_entropy(logits, train.labels[batch])
        if soft is None:
            return hard
        divergence = functional.kl_div(
            functional.log_softmax(logits / TEMPERATURE, dim=-1),
            functional.log_softmax(soft[batch] / TEMPERATURE, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - SOFT_SHARE) * hard + SOFT_SHARE * TEMPERATURE**2 * divergence

    return loss_of
