"""What the bare library answers: the third side of the parity gate.

The artefact and the checkpoint it is compared with both go through a wrapper and an encoding of
ours; what those two do wrong, they do wrong alike. So at every export a few samples are asked of
the checkpoint as its own library runs it: its tokenizer's call on one text, no padding, no tensor
and no setting of ours, a model loaded for this alone. Only single precision is imposed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError
from harness.export.checkpoint import Checkpoint
from harness.export.checkpoint_files import load_model, read_config
from harness.study import Model, Task
from harness.system.libraries import plain_reason, quiet
from harness.tasks.encoding import EncodedDataset
from harness.tasks.loading import encode
from harness.tasks.model_inputs import forward_parameters, model_inputs
from harness.tasks.registry import family_of
from harness.tasks.samples import Samples
from harness.tasks.tokenizers import open_bare
from harness.words.numbers import number

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 6
"""Samples asked, from the shortest to the longest; a text that fills max_length comes on top."""
_CHARACTERS_A_TOKEN = 16
"""More than any text has: so many characters fill a row."""
_STILL = 1e-4
"""Share of a log probability below which a change is rounding."""


@dataclass(frozen=True)
class CheckedRows:
    """The samples that the library is asked."""

    samples: Samples
    names: tuple[str, ...]
    """For messages, aligned with the samples."""
    digest: str


@dataclass(frozen=True)
class LibraryAnswer:
    """One sample: what is sent of it, and what the bare library answers to it."""

    name: str
    inputs: Mapping[str, NDArray[np.int64]]
    """As sent, padded to its bucket, (length,) by name."""
    values: NDArray[np.float32]
    """Logits (labels,); of an extractive answer those of start and end, (2, tokens); of a language
    model the log probability of each token but the first, (tokens - 1,)."""

    @property
    def tokens(self) -> int:
        """Number of real tokens, without padding."""
        return int(self.inputs["attention_mask"].sum())


def choose_rows(task: Task, samples: Samples, encoded: EncodedDataset) -> CheckedRows:
    """Samples of different lengths, and one that is made to be as long as the task allows."""
    lengths = _lengths(samples, encoded)
    order = np.argsort(lengths, kind="stable")
    wanted = np.linspace(0, len(order) - 1, min(ROWS, len(order))).astype(int)
    rows = [int(row) for row in order[wanted]]
    texts = [samples.texts[row] for row in rows]
    pairs = None if samples.pairs is None else [samples.pairs[row] for row in rows]
    text, pair = family_of(task).filled(
        texts, pairs, lambda several: _filling(several, task.max_length)
    )
    texts.append(text)
    if pairs is not None:
        pairs.append(pair or "")
    names = [f"sample {samples.rows[row]} ({samples.texts[row][:40]!r})" for row in rows]
    content = json.dumps([texts, pairs], ensure_ascii=False).encode()
    return CheckedRows(
        Samples(
            texts=tuple(texts),
            pairs=None if pairs is None else tuple(pairs),
            digest="",
            rows=tuple(range(len(texts))),
            seed=samples.seed,
        ),
        (*names, f"a text that fills max_length {task.max_length}"),
        hashlib.sha256(content).hexdigest(),
    )


def ask_library(
    model: Model, checkpoint: Checkpoint, task: Task, rows: CheckedRows
) -> tuple[LibraryAnswer, ...]:
    """Ask the bare checkpoint each sample alone.

    Raises:
        CheckpointError: the library itself cannot run it on a text; what is sent of a sample is
            not what its tokenizer makes of it; its answers are no numbers; or a language model sees
            what it is to predict.
    """
    # The longest first: BigBird leaves its sparse attention for good at the first short row.
    sent = sorted(_sent(model, checkpoint, task, rows).items(), key=_tokens, reverse=True)
    family = family_of(task)
    loaded = load_model(model, checkpoint.folder, family, attention=None)
    if family.causal:
        answers = [
            LibraryAnswer(rows.names[row], inputs, _log_probabilities(checkpoint, loaded, inputs))
            for row, inputs in sent
        ]
        _refuse_foresight(checkpoint, loaded, answers)
    else:
        call = _Call(model, checkpoint, task, rows.samples)
        answers = [
            LibraryAnswer(
                rows.names[row], inputs, call.answer(loaded, row, rows.names[row], inputs)
            )
            for row, inputs in sent
        ]
    for one in answers:
        if not np.isfinite(one.values).all():
            raise CheckpointError(
                f"checkpoint {checkpoint.name}: transformers itself answers {one.name} with "
                "numbers that are none (NaN or infinite)",
                next_step="its weights are broken: look for NaN or infinity among them, such as "
                "those of a training that diverged or was cast to fp16",
            )
    return tuple(reversed(answers))


def _tokens(sent: tuple[int, Mapping[str, NDArray[np.int64]]]) -> int:
    return int(sent[1]["attention_mask"].sum())


def _lengths(samples: Samples, encoded: EncodedDataset) -> NDArray[np.int64]:
    """Tokens of each sample; of one that was cut into windows, of its longest."""
    found = np.zeros(len(samples.texts), dtype=np.int64)
    for group in encoded.groups:
        np.maximum.at(found, encoded.owners[group.rows], group.inputs["attention_mask"].sum(axis=1))
    return found


def _filling(texts: Sequence[str], max_length: int) -> str:
    """The texts one after the other, as often as it takes."""
    wanted = max_length * _CHARACTERS_A_TOKEN
    joined = " ".join(text for text in texts if text.strip()) or "a"
    repeated = f"{joined} " * (wanted // (len(joined) + 1) + 1)
    return repeated.strip()


def _sent(
    model: Model, checkpoint: Checkpoint, task: Task, rows: CheckedRows
) -> dict[int, dict[str, NDArray[np.int64]]]:
    """What is sent of each row, by its number: of several windows the first."""
    encoded = encode(
        task.model_copy(update={"samples": None}),
        rows.samples,
        checkpoint.folder,
        trust_remote_code=model.trust_remote_code,
    )
    owners = encoded.owners
    found: dict[int, tuple[int, dict[str, NDArray[np.int64]]]] = {}
    for group in encoded.groups:
        for place, window in enumerate(group.rows.tolist()):
            row = int(owners[window])
            if row not in found or window < found[row][0]:
                found[row] = window, {name: one[place] for name, one in group.inputs.items()}
    return {row: found[row][1] for row in sorted(found)}


class _Call:
    """The library's plain call on one text or pair."""

    def __init__(self, model: Model, checkpoint: Checkpoint, task: Task, samples: Samples) -> None:
        self._tokenizer = open_bare(checkpoint.folder, trust_remote_code=model.trust_remote_code)
        self._family = family_of(task)
        inputs = model_inputs(
            self._tokenizer,
            checkpoint.folder,
            self._family,
            trust_remote_code=model.trust_remote_code,
        )
        config = read_config(model, checkpoint.folder)
        self._taken = forward_parameters(config, checkpoint.folder, self._family)
        self._checkpoint, self._samples = checkpoint.name, samples
        self._task = task
        self._options: dict[str, Any] = {
            "return_tensors": "pt",
            # Where the model reads them and the tokenizer does not list them: asked by name.
            **({"return_token_type_ids": True} if inputs.typed else {}),
        }

    def answer(
        self,
        model: PreTrainedModel,
        row: int,
        name: str,
        sent: Mapping[str, NDArray[np.int64]],
    ) -> NDArray[np.float32]:
        """The values that its family compares: logits, or those of start and end.

        Raises:
            CheckpointError: the library fails, or makes other tokens than are sent.
        """
        import torch

        text, pairs = self._samples.texts[row], self._samples.pairs
        pair = None if pairs is None else pairs[row]
        with _library_errors(self._checkpoint), quiet(), torch.inference_mode():
            encoded = self._family.bare_tokens(
                self._task, self._tokenizer, text, pair, **self._options
            )
            self._compare_tokens(encoded["input_ids"][0].tolist(), sent, name)
            taken = self._taken or set(encoded)
            answer = model(**{key: value for key, value in encoded.items() if key in taken})
            values: NDArray[np.float32] = (
                self._family.bare_values(answer, model, self._task).float().numpy()
            )
            return values

    def _compare_tokens(
        self, ids: list[int], sent: Mapping[str, NDArray[np.int64]], name: str
    ) -> None:
        real = sent["input_ids"][sent["attention_mask"] == 1].tolist()
        if ids != real:
            raise CheckpointError(
                f"checkpoint {self._checkpoint}: of {name} its own tokenizer makes {len(ids)} "
                f"tokens ({ids[:8]}...), and {len(real)} others would be sent ({real[:8]}...)",
                next_step="report it with the checkpoint's tokenizer files",
            )


def _log_probabilities(
    checkpoint: Checkpoint, model: PreTrainedModel, sent: Mapping[str, NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Log probability of each real token but the first, given the tokens before it."""
    return _next_tokens(checkpoint, model, sent["input_ids"][sent["attention_mask"] == 1])


def _next_tokens(
    checkpoint: Checkpoint, model: PreTrainedModel, ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    import torch

    row = torch.from_numpy(ids.copy())[None]
    with _library_errors(checkpoint.name), quiet(), torch.inference_mode():
        scores = model(input_ids=row).logits[0, :-1].float().log_softmax(-1)
        values: NDArray[np.float32] = scores.gather(-1, row[0, 1:, None])[:, 0].numpy()
        return values


def _refuse_foresight(
    checkpoint: Checkpoint, model: PreTrainedModel, answers: Sequence[LibraryAnswer]
) -> None:
    """Changing the last token of a window may change no log probability before it.

    Raises:
        CheckpointError: it does.
    """
    longest = max(answers, key=lambda one: one.tokens)
    ids = longest.inputs["input_ids"][: longest.tokens]
    changed = _next_tokens(checkpoint, model, other_end(ids))
    if moved := foresight(longest.values, changed):
        raise foresight_error(f"checkpoint {checkpoint.name}", longest.tokens, moved)


def other_end(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same tokens with another last one."""
    others = ids[ids != ids[-1]]
    changed = ids.copy()
    changed[-1] = others[-1] if len(others) else (0 if ids[-1] else 1)
    return changed


def foresight(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Most that a log probability moved when only the token after it changed; 0 if none did."""
    moved = float(np.abs(after[:-1] - before[:-1]).max(initial=0))
    return moved if moved > _STILL * max(1.0, float(np.abs(before).max())) else 0.0


def foresight_error(name: str, tokens: int, moved: float) -> CheckpointError:
    """The error for a model whose answers depend on later tokens: it is not a causal model."""
    return CheckpointError(
        f"{name} sees the tokens that it is to predict: changing the last of {tokens} moves the "
        f"log probability of an earlier one by {number(moved)}, so its perplexity means nothing",
        next_step="a masked language model (BERT's) is not a causal language model; one that was "
        "trained as a decoder needs is_decoder: true in its config.json",
    )


@contextmanager
def _library_errors(checkpoint: str) -> Iterator[None]:
    """Whatever the library raises becomes a refusal that names it."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {checkpoint}: transformers itself cannot answer a plain text with it: "
            f"{plain_reason(error)}",
            next_step="it may need inputs beside a text (boxes, images, a language), or have "
            "fewer positions than its config.json says",
        ) from error
