"""The pool of prompts that a load sends: from a data set, or made up to lengths.

Made-up prompts are rows of common English words in random order, each of which nearly every
tokenizer has as one token; with the model's tokenizer they are as many words as fit into their
lengths. No two prompts of the pool begin alike unless they are to. A load of more requests than the
pool has sends them again: from then on a server's prefix cache may hold them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.errors import DataError, UsageError
from harness.load.requests.generation import GenerationRequest, Turn
from harness.load.requests.lengths import BLOCK_TOKENS, Lengths, TracedLengths
from harness.load.requests.payloads import POOL_REQUESTS
from harness.types import StreamApi
from harness.words.numbers import count

MOST_REQUESTS = 20_000
"""Most requests of a data set or trace that are sent in turn; after the last comes the first
again."""
_WORDS = """
    time year people way day man thing woman life child world school state family student
    group country problem hand part place case week company system program question work
    government number night point home water room mother area money story fact month lot
    right study book eye job word business issue side kind head house service friend
    father power hour game line end member law car city community name president team
    minute idea kid body information back parent face others level office door health
    person art war history party result change morning reason research girl guy moment air
    teacher force education
""".split()  # noqa: SIM905  (prose, and 900 signs of it)
_PROMPT_STREAM, _LEAVE_STREAM, _TURN_STREAM = 2, 3, 4
"""Keep these random numbers apart from those of the arrivals, drawn by the same seed."""

_Row = TypeVar("_Row")
Tokenize = Callable[[str], Sequence[int]]
"""The tokens of a text, by the model's tokenizer, without special ones."""


@dataclass(frozen=True)
class Talk:
    """How made-up conversations go on after their first answer."""

    turns: Lengths
    """Of a conversation, the first one included."""
    prompt: Lengths
    """Tokens of each further turn's own text."""
    answer: Lengths
    think_ms: Lengths
    """From an answer's last token to the next turn."""


@dataclass(frozen=True)
class PromptShape:
    """How prompts are made up."""

    prompt: Lengths
    answer: Lengths
    shared_prefix: int = 0
    """Tokens with which every prompt begins alike."""
    talk: Talk | None = None
    """How a conversation goes on; None: each prompt is asked alone."""


def made_up(shape: PromptShape, seed: int, tokenize: Tokenize | None) -> list[GenerationRequest]:
    """A pool of prompts of drawn lengths: the same for the same seed."""
    generator = np.random.default_rng([_PROMPT_STREAM, seed])
    inputs = shape.prompt.draw(POOL_REQUESTS, generator).tolist()
    outputs = shape.answer.draw(POOL_REQUESTS, generator).tolist()
    prefix = _words(shape.shared_prefix, np.random.default_rng([_PROMPT_STREAM, seed, 1]))
    opened = [
        _request(
            [*prefix[:tokens], *_words(max(0, tokens - len(prefix)), generator)],
            tokens,
            most,
            tokenize,
        )
        for tokens, most in zip(inputs, outputs, strict=True)
    ]
    return opened if shape.talk is None else going_on(opened, shape.talk, seed, tokenize)


def going_on(
    opened: Sequence[GenerationRequest], talk: Talk, seed: int, tokenize: Tokenize | None
) -> list[GenerationRequest]:
    """Conversations that begin with these prompts: the same turns for the same seed."""
    generator = np.random.default_rng([_TURN_STREAM, seed])
    counts = talk.turns.draw(len(opened), generator).tolist()
    return [
        replace(one, turns=tuple(_turns(count - 1, talk, generator, tokenize)))
        for one, count in zip(opened, counts, strict=True)
    ]


def _turns(
    count: int, talk: Talk, generator: np.random.Generator, tokenize: Tokenize | None
) -> Iterator[Turn]:
    drawn = (
        one.draw(count, generator).tolist() for one in (talk.prompt, talk.answer, talk.think_ms)
    )
    for tokens, most, think_ms in zip(*drawn, strict=True):
        said = _request(_words(tokens, generator), tokens, most, tokenize)
        yield Turn(said.prompt, most, think_ms / 1000)


def traced(
    lengths: Sequence[TracedLengths], seed: int, tokenize: Tokenize | None
) -> list[GenerationRequest]:
    """A prompt for each request of a trace; blocks of one id are the same text in all of them."""
    generator = np.random.default_rng([_PROMPT_STREAM, seed])
    return [
        _request(
            list(_of_blocks(one, seed, generator)), one.input_tokens, one.output_tokens, tokenize
        )
        for one in lengths
    ]


def _of_blocks(one: TracedLengths, seed: int, generator: np.random.Generator) -> Iterator[str]:
    left = one.input_tokens
    for block in one.blocks:
        yield from _words(
            min(left, BLOCK_TOKENS), np.random.default_rng([_PROMPT_STREAM, seed, 2, block])
        )
        left -= min(left, BLOCK_TOKENS)
    yield from _words(left, generator)


def _words(count: int, generator: np.random.Generator) -> list[str]:
    return [_WORDS[place] for place in generator.integers(len(_WORDS), size=count).tolist()]


def _request(
    words: list[str], tokens: int, max_tokens: int, tokenize: Tokenize | None
) -> GenerationRequest:
    """A prompt of so many tokens, or as many of its words as fit; of words without a tokenizer."""
    if tokenize is None:
        return GenerationRequest(" ".join(words), max_tokens)

    def counted(kept: int) -> int:
        return len(tokenize(" ".join(words[:kept])))

    kept, found = len(words), counted(len(words))
    while found > tokens and kept > 1:
        kept -= max(1, (found - tokens) * kept // found)
        found = counted(kept)
    while found < tokens and kept < len(words) and (more := counted(kept + 1)) <= tokens:
        kept, found = kept + 1, more
    return GenerationRequest(" ".join(words[:kept]), max_tokens, input_tokens=found)


def first_requests(rows: Sequence[_Row], path: Path, tell: Callable[[str], None]) -> Sequence[_Row]:
    """As many rows of a file as are sent in turn; that there are more is told."""
    if len(rows) > MOST_REQUESTS:
        tell(
            f"{path}: its first {count(MOST_REQUESTS)} rows are sent, then the first again: a load "
            f"of more requests repeats them; split the file to send the others"
        )
    return rows[:MOST_REQUESTS]


def read_prompts(
    path: Path,
    answer: Lengths,
    seed: int,
    tokenize: Tokenize | None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[GenerationRequest]:
    """A data set of prompts: JSON lines, in their order.

    A row has `prompt` (or `text_input`, or `text`), or `messages` of a chat; and `max_tokens` (or
    `output_tokens`, or `output_length`), where it has not, a length is drawn. It may have `turns`
    that follow: texts, or objects of `prompt`, `max_tokens` and `think_s`. `tell` is told that the
    file has more than `MOST_REQUESTS`, which are left out.

    Raises:
        DataError: no such file, or the first line that has no prompt.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [(at, line) for at, line in enumerate(file, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no data set can be read: {error}") from error
    if not lines:
        raise DataError(f"{path}: the data set is empty", next_step=_ROW)
    lines = list(first_requests(lines, path, tell))
    drawn = answer.draw(len(lines), np.random.default_rng([_PROMPT_STREAM, seed])).tolist()
    found = [
        _of_row(f"{path}, line {at}", line, most)
        for (at, line), most in zip(lines, drawn, strict=True)
    ]
    if tokenize is None:
        return found
    return [
        replace(one, input_tokens=len(tokenize(one.prompt))) if one.prompt else one for one in found
    ]


_ROW = 'write a JSON object on each line: {"prompt": "...", "max_tokens": 64}'
_TURN = 'write "turns": [{"prompt": "...", "max_tokens": 64, "think_s": 2.0}]'
_PROMPTS = ("prompt", "text_input", "text")
_LENGTHS = ("max_tokens", "output_tokens", "output_length")


def _of_row(where: str, line: str, drawn: int) -> GenerationRequest:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: is no JSON object: {error}", next_step=_ROW) from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: is no JSON object: {line.strip()[:40]}", next_step=_ROW)
    prompt = _told(row, _PROMPTS, "")
    messages, turns = (_list_of(where, row, name) for name in ("messages", "turns"))
    most = _told(row, _LENGTHS, drawn)
    if not isinstance(prompt, str) or not (prompt.strip() or messages):
        raise DataError(f"{where}: has no prompt that says anything", next_step=_ROW)
    if not all(isinstance(one, dict) for one in messages):
        raise DataError(f"{where}: a message is no JSON object", next_step=_ROW)
    _check_text(where, row)
    following = tuple(_turn_of(where, one, most) for one in turns)
    return GenerationRequest(prompt, _tokens_of(where, most), tuple(messages), turns=following)


def _told(row: Mapping[str, Any], names: Sequence[str], default: Any) -> Any:
    """The first of these that a row has; null, which tables write for nothing, is nothing."""
    return next((value for name in names if (value := row.get(name)) is not None), default)


def _list_of(where: str, row: Mapping[str, Any], name: str) -> list[Any]:
    told = _told(row, (name,), [])
    if not isinstance(told, list):
        raise DataError(f"{where}: its {name} are no list", next_step=_ROW)
    return told


def _check_text(where: str, row: Mapping[str, Any]) -> None:
    """JSON can spell half of a character (one of two surrogates), which no request can carry."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a text that UTF-8 cannot carry: {error}") from error


def _tokens_of(where: str, most: object) -> int:
    """A number of tokens; tables with a gap in the column write 64.0."""
    if isinstance(most, float) and most.is_integer():
        most = int(most)
    if type(most) is not int or most < 1:
        raise DataError(f"{where}: {most!r} is no number of tokens: it must be 1 or more")
    return most


def _turn_of(where: str, told: object, most: object) -> Turn:
    row = {"prompt": told} if isinstance(told, str) else told
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise DataError(f"{where}: a turn has no prompt", next_step=_TURN)
    think_s = _told(row, ("think_s",), 0.0)
    is_time = type(think_s) in {int, float} and 0 <= think_s < math.inf
    if not row["prompt"].strip() or not is_time:
        raise DataError(f"{where}: a turn says nothing, or thinks {think_s!r} s", next_step=_TURN)
    tokens = _tokens_of(where, _told(row, ("max_tokens",), most))
    return Turn(row["prompt"], tokens, float(think_s))


def check_sendable(
    requests: Sequence[GenerationRequest], path: Path | None, api: StreamApi
) -> None:
    """Refuse prompts that are messages alone where the interface takes texts: they would be empty.

    Raises:
        UsageError: one is.
    """
    if api is not StreamApi.CHAT and not all(one.prompt for one in requests):
        raise UsageError(
            f"{path} has prompts that are messages alone, and --generate {api} sends texts",
            next_step='use --generate chat, or write a "prompt" in each row',
        )


def some_leave(
    requests: Sequence[GenerationRequest], share: float, seed: int
) -> list[GenerationRequest]:
    """The same requests, with a share of clients that go away at a random place in the answer.

    Args:
        requests: the pool.
        share: 0 to 1, of the pool, as nearly as whole requests allow.
        seed: draws whose clients, and after how many tokens, each number equally likely.
    """
    generator = np.random.default_rng([_LEAVE_STREAM, seed])
    leaving = set(generator.permutation(len(requests))[: round(share * len(requests))].tolist())
    return [
        replace(one, leave_after=int(generator.integers(1, one.max_tokens, endpoint=True)))
        if place in leaving
        else one
        for place, one in enumerate(requests)
    ]
