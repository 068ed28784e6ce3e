"""The ensembles of a family that asks for them, and whether its tokenizer travels into them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError
from harness.serving.ensemble import TEXT, TEXT_PAIR, Ensemble, TextTokenizer, make_ensemble
from harness.study import ENSEMBLE_SUFFIX, Family, Study, Task
from harness.tasks.encoding import EncodedDataset
from harness.tasks.registry import family_of
from harness.tasks.samples import Samples
from harness.tasks.tokenizers import PROBE_TEXTS, load_tokenizer, open_bare, with_special_tokens
from harness.types import ModelVariant, Trial, TrialResult

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ENSEMBLE_STAGE = "ensemble"
"""Stage of the trial that measures a winner's ensemble."""


@dataclass(frozen=True)
class PreparedEnsemble:
    """An ensemble in the model repository, and the texts to send it."""

    ensemble: Ensemble
    texts: tuple[Mapping[str, NDArray[np.object_]], ...]
    """Texts by input name, shape (n, 1): the samples of each group of the data, in its order."""


def prepare_ensemble(
    family: Family,
    variant: ModelVariant,
    samples: Samples,
    dataset: EncodedDataset,
    folder: Path,
    *,
    trust_remote_code: bool,
) -> PreparedEnsemble:
    """Describe a variant's ensemble with its checkpoint's tokenizer.

    Args:
        family: whose task it does.
        variant: the model alone.
        samples: the study's rows.
        dataset: the same as the model alone takes them.
        folder: of the checkpoint.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        DataError: nobody names the classes, or two have one name.
        CheckpointError: inside the server its tokenizer would make other tokens.
    """
    tokenizer = checked_tokenizer(
        family, samples, dataset, folder, trust_remote_code=trust_remote_code
    )
    task_family = family_of(family.task)
    answer = task_family.text_answer(family.task, dataset, variant.outputs)
    ensemble = make_ensemble(variant, tokenizer, answer)
    texts = task_family.asked_texts(family.task, samples, folder)
    return PreparedEnsemble(ensemble, text_groups(texts, samples.pairs, dataset))


def checked_tokenizer(
    family: Family,
    samples: Samples,
    dataset: EncodedDataset,
    folder: Path,
    *,
    trust_remote_code: bool,
) -> TextTokenizer:
    """What an ensemble's first part would run, if the ensemble can answer rightly at all.

    Raises:
        DataError: nobody names the classes, or two have one name.
        CheckpointError: inside the server its tokenizer would make other tokens.
    """
    answer = family_of(family.task).text_answer(family.task, dataset, ())
    tokenizer = travelling_tokenizer(
        family.task,
        folder,
        is_pair=samples.pairs is not None,
        tells_words=answer.takes_places,
        trust_remote_code=trust_remote_code,
    )
    names = list(dataset.groups[-1].inputs)
    check_travel(tokenizer, samples, folder, names, trust_remote_code=trust_remote_code)
    return tokenizer


def text_groups(
    texts: Sequence[str], pairs: Sequence[str] | None, dataset: EncodedDataset
) -> tuple[Mapping[str, NDArray[np.object_]], ...]:
    """Texts (and second texts) as they are sent, grouped as they are when encoded.

    Bytes as Python's objects: numpy's fixed-width bytes lose the zero bytes at a text's end.
    """
    columns = {TEXT: texts} | ({TEXT_PAIR: pairs} if pairs else {})
    arrays = {
        name: np.array([one.encode() for one in column], object) for name, column in columns.items()
    }
    return tuple(
        {name: array[group.rows][:, None] for name, array in arrays.items()}
        for group in dataset.groups
    )


def is_ensemble(study: Study, variant: str) -> bool:
    """Whether a name is that of an ensemble rather than of a variant."""
    return variant.endswith(ENSEMBLE_SUFFIX) and study.family_of(variant).ensemble


def ensemble_trial(result: TrialResult, ensemble: Ensemble) -> Trial:
    """The same load on the ensemble, as long as the model alone was measured at most."""
    trial = result.trial
    return dataclasses.replace(trial, variant=ensemble.variant.name, stage=ENSEMBLE_STAGE, repeat=0)


ROWS = 256
"""How many of the study's own rows are compared, at even distances."""
_SHOWN_TOKENS = 12
_ADVICE = (
    "leave `ensemble` out of the family: the model itself is served and measured without it; or "
    "save the tokenizer so that its tokenizer.json alone makes its tokens"
)
_Row = tuple[str, str | None]


def travelling_tokenizer(
    task: Task,
    folder: Path,
    *,
    is_pair: bool,
    tells_words: bool,
    trust_remote_code: bool,
) -> TextTokenizer:
    """The tokenizer of a checkpoint with all that decides its tokens.

    Args:
        task: says how long a text may be.
        folder: the checkpoint.
        is_pair: whether a row has two texts.
        tells_words: whether it says of each token whether it begins a word.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: there is none, or a part of it is written in Python and cannot travel.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    try:
        definition = backend.to_str()
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} cannot be put into an ensemble: {error}",
            next_step=_ADVICE,
        ) from error
    return TextTokenizer(
        definition=definition,
        is_pair=is_pair,
        max_length=family_of(task).longest_text(task, folder),
        buckets=task.buckets,
        pad_token_id=int(tokenizer.pad_token_id),
        pad_token_type_id=int(tokenizer.pad_token_type_id),
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=bool(tokenizer.split_special_tokens),
        unk_token_id=tokenizer.unk_token_id if tells_words else None,
    )


def check_travel(
    travelling: TextTokenizer,
    samples: Samples,
    folder: Path,
    names: Sequence[str],
    *,
    trust_remote_code: bool,
) -> None:
    """Refuse an ensemble whose tokens would be other ones than its checkpoint's.

    Args:
        travelling: what the server would run.
        samples: the study's rows.
        folder: of the checkpoint.
        names: inputs of the served model.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: with the first text that comes out differently.
    """
    from harness.serving.ensemble_models.text_tensors import TextTensors

    bare = open_bare(folder, trust_remote_code=trust_remote_code)
    served = TextTensors(travelling.definition, **travelling.settings)
    for text, pair in _rows(travelling, samples, bare):
        wanted = _as_the_library(bare, text, pair, travelling.max_length, names)
        if not wanted.get("input_ids"):
            continue  # nothing to ask a model; the server refuses it too
        (row,) = served.encode([text], None if pair is None else [pair])
        got = {
            "input_ids": row.ids,
            "attention_mask": row.attention_mask,
            "token_type_ids": row.type_ids,
        }
        for name in names:
            if list(wanted[name]) != list(got[name]):
                raise CheckpointError(
                    f"the ensemble of {folder} would be served with other tokens than its own: "
                    f"{name} of {_named(text, pair)} are {_start(got[name])} inside the server "
                    f"and {_start(wanted[name])} by {type(bare).__name__}",
                    next_step=_ADVICE,
                )


def _rows(
    travelling: TextTokenizer, samples: Samples, tokenizer: PreTrainedTokenizerBase
) -> Iterator[_Row]:
    """The study's rows, and texts that tell one setting from another."""
    size = len(samples.texts)
    for row in np.unique(np.linspace(0, size - 1, min(size, ROWS)).astype(int)).tolist():
        yield samples.texts[row], samples.pairs[row] if samples.pairs else None
    # More characters than tokens can be: cut, on whichever side.
    longest = max(samples.texts, key=len)
    long = " ".join([longest, *(str(number) for number in range(travelling.max_length)), longest])
    texts = [*PROBE_TEXTS, *with_special_tokens(tokenizer), long]
    if not travelling.is_pair:
        yield from ((text, None) for text in texts)
        return
    for text in texts:
        yield from ((text, "a b"), ("a b", text), (text, text))
    yield long, f"{longest} {long}"


def _as_the_library(
    bare: PreTrainedTokenizerBase,
    text: str,
    pair: str | None,
    max_length: int,
    names: Sequence[str],
) -> dict[str, Any]:
    """One row as the checkpoint's own library makes it; nothing where it refuses to."""
    try:
        return dict(
            bare(
                text,
                pair,
                truncation=True,
                max_length=max_length,
                return_attention_mask=True,
                return_token_type_ids="token_type_ids" in names,
            )
        )
    except Exception:  # noqa: BLE001  (the tokenizers package raises nothing narrower)
        return {}


def _named(text: str, pair: str | None) -> str:
    return repr(text[:60]) if pair is None else f"{text[:40]!r} with {pair[:40]!r}"


def _start(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN_TOKENS])
    return f"[{shown}{', ...' if len(values) > _SHOWN_TOKENS else ''}] ({len(values)})"
