"""Whether a checkpoint's own library makes other tokens than the folder's `tokenizer.json` says.

transformers rebuilds a tokenizer by its class: normaliser, pre-tokenizer and special tokens are
then the class's, whatever `tokenizer.json` holds, and nothing is said. What counts is what the
library makes, because that is what runs everywhere else; but who trained with the file itself must
know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from harness.tasks.probe_texts import PROBE_TEXTS, with_special_tokens
from harness.tasks.samples import Samples
from harness.tasks.tokenizer import open_bare

ROWS = 256
"""Of the study's own, from the first."""
CHARACTERS = 4000
"""Of each."""
_SHOWN_TOKENS = 8
_Row = tuple[str, str | None]


def replaced_tokens(folder: Path, samples: Samples, *, trust_remote_code: bool = False) -> str:
    """What to say of a tokenizer that its library replaces; empty where there is nothing to say.

    Args:
        folder: the checkpoint.
        samples: the study's rows, of which the first are compared, beside texts of ours.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: the tokenizer cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ""
    from tokenizers import Tokenizer

    library = open_bare(folder, trust_remote_code=trust_remote_code)
    if not library.is_fast:
        return ""
    own = Tokenizer.from_file(str(file))
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = bool(library.split_special_tokens)  # asked for by name
    rows = list(_rows(samples))
    probes = [(text, None) for text in (*PROBE_TEXTS, *with_special_tokens(library))]
    different: list[tuple[_Row, Sequence[int], Sequence[int]]] = []
    of_the_data = 0
    for number, (text, pair) in enumerate([*rows, *probes]):
        made = library(text, pair, verbose=False)["input_ids"]
        written = own.encode(text, pair).ids
        if list(made) != list(written):
            different.append(((text, pair), made, written))
            of_the_data += number < len(rows)
    if not different:
        return ""
    (shown, _), library_made, file_made = different[0]
    return (
        f"AutoTokenizer makes {type(library).__name__} of {folder} with other tokens than its "
        f"tokenizer.json, for {of_the_data} of {len(rows)} rows of the data: of {shown[:40]!r} "
        f"{_start(library_made)} against {_start(file_made)}; AutoTokenizer's are used"
    )


def _rows(samples: Samples) -> Iterator[_Row]:
    pairs: Sequence[str | None] = samples.pairs or [None] * len(samples.texts)
    for text, pair in islice(zip(samples.texts, pairs, strict=True), ROWS):
        yield text[:CHARACTERS], (pair or "")[:CHARACTERS] or None


def _start(tokens: Sequence[int]) -> str:
    shown = ", ".join(str(token) for token in tokens[:_SHOWN_TOKENS])
    return f"[{shown}{', ...' if len(tokens) > _SHOWN_TOKENS else ''}]"
