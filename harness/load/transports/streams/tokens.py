"""One answer as it came token by token: its instants, how many tokens each event carried, its end.

**Several tokens in one event.** An event with k tokens makes k gaps, each a k-th of the time since
the last event: so does SGLang's `bench_serving` (`adjust_itl`), and AIPerf's inter-token latency
agrees with it in the mean. Tokens that come with the very first one make no gap: they belong to the
time to first token. TPOT is (last - first) / (tokens - 1), as vLLM's `bench serve` and MLPerf have
it.

**How many tokens an event carries** is taken from the best source there is: the server says it of
each event (Triton's `num_output_tokens` or `token_ids`; OpenAI's `logprobs`, `token_ids` or a
running `usage`); else the model's own tokenizer on the whole text, each token belonging to the
event that brought its last character, but the first to the first event, which began it; else one
for each event that has text. Where the server's
usage then counts more tokens than there were events, and not only the end token, which has no text,
the usage is spread over the events by the length of their text, and the answer is marked
`tokens_estimated`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from harness.load.transports.contract import RequestFailure, StreamTokens
from harness.types import ITL, TPOT, TTFT

TokenCounter = Callable[[Sequence[bytes]], list[int]]
"""How many tokens each of an answer's pieces of text (UTF-8) carries, by the model's tokenizer."""

NO_DONE, NO_FINISH_REASON, NO_USAGE = "no_done", "no_finish_reason", "no_usage"
USAGE_DIFFERS, ESTIMATED = "usage_differs", "tokens_estimated"
TOO_MANY, BAD_TEXT, ASKED_AGAIN = "max_tokens_ignored", "invalid_utf8", "asked_again"
CACHED = "prompt_cached"
"""Kinds of answers that count as successes and yet are not as they should be."""
GAVE_UP = frozenset({"abort", "cancelled", "error"})
"""Finish reasons by which a server says that it did not write its answer to an end."""
END_TOKEN = 1
"""The end-of-sequence token is in the usage, and in no event's text."""


class StreamRequest(bytes):
    """A request in its protocol's bytes, and what its transport must know of its answer."""

    max_tokens: int = 0
    """What the request asks for; 0: nothing was asked."""
    leave_after: int = 0
    """Tokens after which the client goes away; 0: it stays."""
    input_tokens: int = 0
    """Tokens of the prompt, where that is known beforehand."""


class TokenStream:
    """What has come of one answer; an event without a token is not in it."""

    __slots__ = (
        "answer_begins",
        "done",
        "ended_ns",
        "finish_reason",
        "finished_ns",
        "input_tokens",
        "irregular",
        "queue_us",
        "reported_tokens",
        "texts",
        "times_ns",
        "tokens",
        "told",
    )

    def __init__(self, input_tokens: int = 0) -> None:
        self.times_ns: list[int] = []
        """CLOCK_MONOTONIC at which each event with tokens had come."""
        self.tokens: list[int] = []
        """How many tokens each event carried."""
        self.texts: list[bytes] = []
        """The events' texts in UTF-8."""
        self.answer_begins = 0
        """The first of them that is of the answer itself, and not of the reasoning before it."""
        self.told = False
        """The server itself says how many tokens an event carries."""
        self.input_tokens = input_tokens
        self.reported_tokens: int | None = None
        """Tokens of the answer by the server's usage."""
        self.queue_us: int | None = None
        """Microseconds that the request waited in the server for its turn, where it says so."""
        self.finish_reason: str | None = None
        self.finished_ns = 0
        """CLOCK_MONOTONIC at which the event with the finish reason had come, in OpenAI's API."""
        self.done = False
        """The protocol's own mark of the end has come."""
        self.ended_ns = 0
        """CLOCK_MONOTONIC at which the stream's end had come; 0 where it has not."""
        self.irregular: set[str] = set()

    def add(self, at_ns: int, tokens: int, text: bytes) -> None:
        """An event that carried tokens; text without any belongs to the event before it."""
        if tokens <= 0 and (self.times_ns or not text):
            if text:
                self.texts[-1] += text
            return
        tokens = max(1, tokens)
        self.times_ns.append(at_ns)
        self.tokens.append(tokens)
        self.texts.append(text)

    def extend(self, at_ns: int, tokens: int, events: int) -> None:
        """Events that came at one instant, each with as many tokens; their texts are there."""
        self.times_ns += [at_ns] * events
        self.tokens += [tokens] * events

    @property
    def completed_ns(self) -> int:
        """When the last token had come; 0 without any."""
        return self.times_ns[-1] if self.times_ns else 0

    @property
    def answer(self) -> str:
        """The text of the answer, without what was reasoned before it."""
        return b"".join(self.texts[self.answer_begins :]).decode(errors="replace")

    @property
    def summary(self) -> StreamTokens:
        """The counts of tokens, and what was irregular."""
        total, irregular = sum(self.tokens), tuple(sorted(self.irregular))
        closing_ns = max(0, self.ended_ns - self.completed_ns) if self.times_ns else 0
        return StreamTokens(
            self.input_tokens, total, self.reported_tokens, irregular, closing_ns, self.queue_us
        )

    def settle(self, max_tokens: int, counter: TokenCounter | None) -> None:
        """Count the tokens once the answer is whole, and say what is irregular about them.

        Raises:
            RequestFailure: `stream_error`: the server gave it up; `empty_answer`: it ended without
                a token.
        """
        self._check_end()
        reported = self.reported_tokens
        if not self.told and counter is not None:
            self.tokens = _from_the_first(counter(self.texts))
        elif not self.told and reported is not None and reported > len(self.tokens) + END_TOKEN:
            self.tokens = spread(reported, [len(text) for text in self.texts])
            self.irregular.add(ESTIMATED)
        counted = sum(self.tokens)
        if reported is None:
            self.irregular.add(NO_USAGE)
        elif not counted <= reported <= counted + END_TOKEN:
            self.irregular.add(USAGE_DIFFERS)
        if self.finish_reason is None:
            self.irregular.add(NO_FINISH_REASON)
        if not _is_text(self.texts):
            self.irregular.add(BAD_TEXT)
        if 0 < max_tokens < (counted if reported is None else reported):
            self.irregular.add(TOO_MANY)

    def _check_end(self) -> None:
        """Refuse an answer that was given up, or has no token."""
        if self.finish_reason in GAVE_UP:
            had = sum(self.tokens)
            said = f"the server gave the answer up after {had} tokens: {self.finish_reason}"
            raise RequestFailure("stream_error", said)
        if not self.times_ns and self.reported_tokens == END_TOKEN and self.finished_ns:
            # The end token alone: no event has its text, but one tells the end that it brought.
            self.add(self.finished_ns, END_TOKEN, b"")
        if not self.times_ns:
            why = f" (finish reason {self.finish_reason})" if self.finish_reason else ""
            raise RequestFailure("empty_answer", f"the stream ended without a token{why}")

    def spans_ns(self, scheduled_ns: int) -> dict[str, list[int]]:
        """By span: time to first token, each gap between tokens, time per token after the first.

        Args:
            scheduled_ns: when the request fell due.
        """
        times = self.times_ns
        if not times:
            return {}
        spans = {TTFT: [times[0] - scheduled_ns], ITL: self._gaps_ns()}
        total = sum(self.tokens)
        if total > 1:
            spans[TPOT] = [(times[-1] - times[0]) // (total - 1)]
        return spans

    def _gaps_ns(self) -> list[int]:
        times, tokens = self.times_ns, self.tokens
        if max(tokens) == min(tokens) == 1:
            return [later - sooner for sooner, later in pairwise(times)]
        gaps: list[int] = []
        last_ns = times[0]
        for at_ns, count in zip(times[1:], tokens[1:], strict=True):
            if count:
                # Whole nanoseconds that add up to the time between the events.
                edges = [(at_ns - last_ns) * part // count for part in range(count + 1)]
                gaps += [later - sooner for sooner, later in pairwise(edges)]
                last_ns = at_ns
        return gaps


def _from_the_first(tokens: Sequence[int]) -> list[int]:
    """The first token at the first event: it has begun there, and n tokens have n - 1 gaps."""
    found = list(tokens)
    place = next((place for place, count in enumerate(found) if count), 0)
    if place:
        found[place] -= 1
        found[0] = 1
    return found


def _is_text(texts: Sequence[bytes]) -> bool:
    """Whether each is UTF-8 by itself; a server may have cut a character in two."""
    try:
        b"\n".join(texts).decode()
    except UnicodeDecodeError:
        return False
    return True


NOTHING_CAME = TokenStream()
"""The stream of a request to which no answer has begun; never written to."""


def spread(total: int, weights: Sequence[int]) -> list[int]:
    """A number of tokens over events by their weights, at least one for each.

    By largest remainders of the running sum, so that no stretch of events is off by more than one.

    Args:
        total: at least as many as there are events.
        weights: one for each event, not negative.
    """
    left, whole = total - len(weights), max(1, sum(weights))
    given, before, parts = 0, 0, []
    for weight in weights:
        before += weight
        upto = round(left * before / whole)
        parts.append(1 + upto - given)
        given = upto
    parts[-1] += left - given
    return parts
