"""The tokenizer that a checkpoint brings: loaded, asked row by row, and what to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.system.libraries import quiet, require_extra
from harness.tasks.samples import Samples
from harness.tasks.vocabulary import (
    VOCABULARY_FILES,
    check_vocabulary,
    has_tokenizer,
    require_reader,
    vocabulary_size,
)

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Open a checkpoint's tokenizer as its own library does, with something to pad with.

    A tokenizer without a pad token (GPT-2's, Llama's), or with one that was added to it and not
    to its model, pads with its end-of-text token, or with any: padded positions are masked, so
    which token stands there changes nothing.

    Raises:
        CheckpointError: there is none, it cannot be read, it would be made without its vocabulary,
            or it cannot say which characters a token covers (a 'slow' tokenizer).
        MissingExtraError: transformers is not installed; or the package that reads the folder's
            kind of vocabulary.
    """
    tokenizer = open_bare(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} is a tokenizer in Python, which keeps no "
            f"character offsets",
            next_step="save it in the tokenizers format, so that the folder has a tokenizer.json",
        )
    check_vocabulary(tokenizer, folder)
    size = vocabulary_size(folder, trust_remote_code=trust_remote_code)
    candidates = (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token)
    usable = (one for one in candidates if one is not None and _is_known(tokenizer, one, size))
    tokenizer.pad_token = next(usable, None) or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _is_known(tokenizer: PreTrainedTokenizerBase, token: str, vocabulary: int | None) -> bool:
    """Whether the model can look a token up; one that was added to the tokenizer it cannot."""
    number = tokenizer.convert_tokens_to_ids(token)
    return isinstance(number, int) and (vocabulary is None or number < vocabulary)


def open_bare(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer as `AutoTokenizer.from_pretrained` makes it, nothing of ours in it.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        MissingExtraError: transformers is not installed; or the package that reads the folder's
            kind of vocabulary.
    """
    require_extra("transformers", "tokenizers")
    from transformers import AutoTokenizer

    if not has_tokenizer(folder):
        raise CheckpointError(
            f"{folder} has no tokenizer (none of {', '.join(VOCABULARY_FILES)})",
            next_step="save it beside the model: tokenizer.save_pretrained(FOLDER)",
        )
    require_reader(folder)
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # each class reads its files in its own way, and so they fail
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder}: the tokenizer cannot be read: {reason}") from error
    return tokenizer


ROWS = 256
"""Of the study's own, from the first."""
CHARACTERS = 4000
"""Of each."""
_SHOWN_TOKENS = 8
_Row = tuple[str, str | None]


def replaced_tokens(library: PreTrainedTokenizerBase, folder: Path, samples: Samples) -> str:
    """That a tokenizer makes other tokens than the folder's tokenizer.json; empty if it does not.

    Args:
        library: the tokenizer as transformers opens it.
        folder: of the checkpoint.
        samples: of which the first are compared, beside texts of ours.
    """
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


PROBE_TEXTS = (
    "",
    " ",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK Brown FoX",
    " leading,  doubled   and trailing spaces ",
    "naïve café, Zürich, İstanbul: e\u0301 o\u0308 \ufb01 \u00bd \u2460",
    "東京は日本の首都 北京 서울 العربية हिन्दी 🚀👩‍👩‍👧",
    "tab\tand\nline\r\nends",
    "zero\u200bwidth, no-break\u00a0space, soft\u00adhyphen, control\x07, nul\x00 in it",
    "don't stop: 3.14 costs $1,000 (50%) at a@b.io/x_y?z=1#2",
    "camelCase snake_case kebab-case 1234567890 aaaaaaaaaaaaaaaaaaaaaaaa",
    "def f(x):\n    return x ** 2  # squared",
)
"""Case, accents, composed characters, scripts, white space, controls, digits, punctuation, code."""
_MOST_SPECIAL = 8
"""From either end of the list."""


def with_special_tokens(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Texts that hold the tokenizer's special and added tokens."""
    added = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    known = [*tokenizer.all_special_tokens, *added]
    for token in dict.fromkeys([*known[:_MOST_SPECIAL], *known[-_MOST_SPECIAL:]]):
        yield f"before {token} after"
        yield f"before{token}after"


def tokenize_rows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    **settings: Any,
) -> BatchEncoding:
    """What `tokenizer(text, pair, **settings)` makes of each row.

    An empty second text is none in transformers' call of one row, and a text without tokens in its
    call of many; a model is asked one text at a time, so the former counts.
    """
    if pairs is None or all(pairs):
        seconds = None if pairs is None else list(pairs)
        encoded: BatchEncoding = tokenizer(list(texts), seconds, **settings)
        return encoded
    from transformers import BatchEncoding

    single = [row for row, pair in enumerate(pairs) if not pair]
    double = [row for row, pair in enumerate(pairs) if pair]
    parts = [(single, tokenizer([texts[row] for row in single], **settings))]
    if double:
        two = [texts[row] for row in double], [pairs[row] for row in double]
        parts.append((double, tokenizer(*two, **settings)))
    places = sorted(
        (row, part, position)
        for part, (rows, _) in enumerate(parts)
        for position, row in enumerate(rows)
    )
    data = {
        name: [parts[part][1][name][position] for _, part, position in places]
        for name in parts[0][1]
    }
    encodings = [(parts[part][1].encodings or ())[position] for _, part, position in places]
    return BatchEncoding(data, encodings)
