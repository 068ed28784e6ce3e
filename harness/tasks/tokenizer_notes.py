"""What a user should know of a checkpoint's tokenizer before its numbers are read.

First of all whether its own library makes other tokens than the folder's `tokenizer.json` says.
transformers rebuilds a tokenizer by its class: normaliser, pre-tokenizer and special tokens are
then the class's, whatever `tokenizer.json` holds, and nothing is said. What counts is what the
library makes, because that is what runs everywhere else; but who trained with the file itself must
know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from harness.study import QuestionAnswering, Task
from harness.tasks.probe_texts import PROBE_TEXTS, with_special_tokens
from harness.tasks.samples import Samples
from harness.tasks.tokenizer import open_bare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS = 256
"""Of the study's own, from the first."""
CHARACTERS = 4000
"""Of each."""
_SHOWN_TOKENS = 8
_Row = tuple[str, str | None]


def tokenizer_note(
    task: Task, samples: Samples, folder: Path, *, trust_remote_code: bool = False
) -> str:
    """What to know of a checkpoint's tokenizer; empty where there is nothing to say.

    Args:
        task: what it is used for.
        samples: the study's rows, of which the first are compared, beside texts of ours.
        folder: the checkpoint.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: the tokenizer cannot be read.
    """
    library = open_bare(folder, trust_remote_code=trust_remote_code)
    notes = (_replaced_tokens(library, folder, samples), _order_of_questions(library, task))
    return "; ".join(note for note in notes if note)


def _order_of_questions(library: PreTrainedTokenizerBase, task: Task) -> str:
    if not isinstance(task, QuestionAnswering) or task.context_first:
        return ""
    if library.padding_side != "left":
        return ""
    return (
        "its tokenizer pads on the left: transformers' own training script then puts the context "
        "before the question, and here the question comes first (the task's context_first: true "
        "turns them round)"
    )


def _replaced_tokens(library: PreTrainedTokenizerBase, folder: Path, samples: Samples) -> str:
    file = folder / "tokenizer.json"
    if not library.is_fast or not file.is_file():
        return ""
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(file))
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = bool(library.split_special_tokens)  # asked for by name
    rows = list(_rows(samples))
    probes = [(text, None) for text in (*PROBE_TEXTS, *with_special_tokens(library))]
    different: list[tuple[_Row, Sequence[int], Sequence[int]]] = []
    of_the_data = 0
    for number, (text, pair) in enumerate([*rows, *probes]):
        try:
            made = library(text, pair, verbose=False)["input_ids"]
            written = own.encode(text, pair).ids
        except Exception:  # noqa: BLE001, S112  (the tokenizers package raises nothing narrower)
            continue  # what cannot be encoded is refused where it is data
        if list(made) != list(written):
            different.append(((text, pair), made, written))
            of_the_data += number < len(rows)
    if not different:
        return ""
    (shown, _), library_made, file_made = different[0]
    place = _first_difference(library_made, file_made)
    return (
        f"AutoTokenizer makes {type(library).__name__} of {folder} with other tokens than its "
        f"tokenizer.json, for {of_the_data} of {len(rows)} rows of the data: of {shown[:40]!r}, "
        f"from token {place} on, {_from(place, library_made)} against {_from(place, file_made)}; "
        "AutoTokenizer's are used"
    )


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    same = (a == b for a, b in zip(one, other, strict=False))
    return next((place for place, equal in enumerate(same) if not equal), min(len(one), len(other)))


def _rows(samples: Samples) -> Iterator[_Row]:
    pairs: Sequence[str | None] = samples.pairs or [None] * len(samples.texts)
    for text, pair in islice(zip(samples.texts, pairs, strict=True), ROWS):
        yield text[:CHARACTERS], (pair or "")[:CHARACTERS] or None


def _from(place: int, tokens: Sequence[int]) -> str:
    rest = tokens[place:]
    shown = ", ".join(str(token) for token in rest[:_SHOWN_TOKENS])
    return f"[{shown}{', ...' if len(rest) > _SHOWN_TOKENS else ''}]"
