"""Running text as fixed windows of tokens, with the bytes that each window's score covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document, at most `max_length` of them."""

    token_ids: tuple[int, ...]
    scored_bytes: int
    """UTF-8 bytes of text that the scored tokens (all but the first) stand for."""
    scored_words: int
    """Words between white space whose last character is among those."""
    document: int = 0
    """Position of the text it was cut from."""
    span: tuple[int, int] = (0, 0)
    """Where the scored text begins and ends in that, in characters."""


def cut_windows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Window]:
    """Cut every document into windows of `max_length` tokens; the last may be shorter.

    Documents are not joined: a window never crosses from one to the next. Special tokens that the
    tokenizer puts in front of a text (Llama's begin-of-text) start every window; then all of the
    window's text is scored. Otherwise its first token only serves as context.

    A remainder in which nothing could be scored (fewer than two tokens) is dropped.

    Raises:
        DataError: special tokens alone fill a window.
    """
    lead = _leading_special_tokens(tokenizer)
    step = max_length - len(lead)
    if step < 1:
        raise DataError(
            f"max_length {max_length} leaves no room beside the tokenizer's "
            f"{len(lead)} special tokens",
            next_step="raise the task's max_length",
        )
    # verbose=False: a document longer than the model's window is what is being cut here.
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    windows: list[Window] = []
    for document, (text, ids, offsets) in enumerate(
        zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ):
        cut = _windows_of(text, ids, offsets, lead=lead, step=step)
        windows += (replace(window, document=document) for window in cut)
    return windows


def _windows_of(
    text: str,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    *,
    lead: tuple[int, ...],
    step: int,
) -> Iterator[Window]:
    # Bytes are counted from the end of the last unscored token to the end of the window's last:
    # so white space that a tokenizer drops belongs to the token after it, and no character is
    # counted twice when a byte-level tokenizer splits it over two tokens.
    reached = 0
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        ends = [end for _, end in offsets[start : start + step]]
        begin = reached if lead else max(reached, ends[0])
        reached = max(reached, *ends)
        if len(lead) + len(part) >= 2:  # noqa: PLR2004  (one for context, one to score)
            scored = text[begin:reached]
            yield Window(
                (*lead, *part),
                len(scored.encode()),
                _word_ends(scored, text[reached:]),
                span=(begin, reached),
            )


def _word_ends(scored: str, rest: str) -> int:
    """Words that end in a stretch of text; one that goes on in the rest does not end there."""
    goes_on = scored[-1:].strip() and rest[:1].strip()
    return len(scored.split()) - bool(goes_on)


def _leading_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    return tuple(full[: full.index(plain[0])]) if plain and plain[0] in full else ()
