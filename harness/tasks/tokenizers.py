"""The tokenizer that a checkpoint brings: its files, loaded, asked row by row.

transformers makes a tokenizer of a class even where the class finds no file that it reads: one that
knows its special tokens alone, for which every text is unknown. Nothing is said.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.system.libraries import quiet, require_extra
from harness.tasks.samples import Samples

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "spm.model",
    "tiktoken.model",
)
"""A tokenizer is one of these files; the first of them is enough by itself."""

_EXTRA = "sentencepiece"
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")
"""A line of tiktoken's files: base64 and a number. SentencePiece's are protocol buffers."""
_SAVE = "save it beside the model where it works: tokenizer.save_pretrained(FOLDER)"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in VOCABULARY_FILES)


def require_reader(folder: Path) -> None:
    """Ask for the package that converts a vocabulary of another library's, where it is needed.

    Raises:
        MissingExtraError: it is not installed.
        CheckpointError: it is, in a release that does not work with the other packages.
    """
    plain = [name for name in VOCABULARY_FILES if not name.endswith(".model")]
    if any((folder / name).is_file() for name in plain):
        return
    models = [name for name in VOCABULARY_FILES if (folder / name).is_file()]
    if not models:
        return
    needed_by = f"{folder}: a tokenizer that is only there as {models[0]}"
    if _RANK_LINE.match((folder / models[0]).read_bytes()[:200]):
        require_extra("tiktoken", extra=_EXTRA, needed_by=needed_by)
        return
    require_extra("sentencepiece", extra=_EXTRA, needed_by=needed_by)
    try:
        importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception as error:  # protobuf's own, which says which release is too old
        raise CheckpointError(
            f"{needed_by} cannot be converted: sentencepiece {version('sentencepiece')} does not "
            f"work with protobuf {version('protobuf')}: {error}",
            next_step=f"pip install 'triton-distillation-harness[{_EXTRA}]', or save the "
            "tokenizer where it works: the folder then has a tokenizer.json",
        ) from error


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a tokenizer that was made without the folder's vocabulary.

    Raises:
        CheckpointError: it knows its special tokens alone.
    """
    there = [name for name in VOCABULARY_FILES if (folder / name).is_file()]
    kind = type(tokenizer).__name__
    known = set(tokenizer.get_vocab()) - {str(one) for one in tokenizer.all_special_tokens}
    ordinary = known - {str(one) for one in tokenizer.added_tokens_decoder.values()}
    if len(ordinary) <= 1:
        raise CheckpointError(
            f"{folder}: {kind} reads nothing of {', '.join(there)}: it would know its special "
            "tokens alone, and every text would be unknown to it",
            next_step=f"look at tokenizer_class in tokenizer_config.json; or {_SAVE}",
        )


def vocabulary_size(folder: Path, *, trust_remote_code: bool) -> int | None:
    """How many tokens the folder's model knows; None where its configuration does not say."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return None
    try:
        with quiet():
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            ).get_text_config()
    except (OSError, ValueError, KeyError):
        return None
    size = getattr(config, "vocab_size", None)
    return int(size) if size else None


def check_tokens(
    tokenizer: PreTrainedTokenizerBase, largest: int, folder: Path, *, trust_remote_code: bool
) -> None:
    """Refuse tokens that the model has no embedding of.

    Args:
        tokenizer: that made them.
        largest: id among those of the data.
        folder: of the checkpoint.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: with the token.
    """
    size = vocabulary_size(folder, trust_remote_code=trust_remote_code)
    if size is not None and largest >= size:
        raise CheckpointError(
            f"{folder}: the tokenizer makes token {largest} "
            f"({tokenizer.convert_ids_to_tokens(largest)!r}) of the data, and the model's "
            f"vocabulary ends at {size - 1}: the tokenizer is another model's, or tokens were "
            "added to it alone",
            next_step="save the model's own tokenizer beside it; or resize_token_embeddings, and "
            "train those that are new",
        )


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
"""How many of the study's own rows are compared, from the first."""
CHARACTERS = 4000
"""How many characters of each row are compared."""
_SHOWN_TOKENS = 8
_Row = tuple[str, str | None]


def replaced_tokens(library: PreTrainedTokenizerBase, folder: Path, samples: Samples) -> str:
    """A remark where a tokenizer departs from its folder's tokenizer.json; else empty.

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
"""Most special tokens that are compared, from either end of the list."""


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
