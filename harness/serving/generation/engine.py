"""Continuous batching: requests come and go between two steps of the model.

A request waits in a bounded queue until a slot is free. Its prompt is read into the slot, in parts
if it is long, so that those who are being answered wait for a part only. Then it is one row of each
step: every row gets one token, at a position of its own, until its answer ends and the slot goes to
the next. Rows are kept side by side in the first slots; one that leaves is replaced by the last.

With a draft, a step may give a row several tokens: see `draft.py`.

Greedy answers do not depend on who else is in the batch: each row is computed for itself, over its
own tokens, and ONNX Runtime computes a row of a matrix product alike whatever stands beside it.

Where the model has an encoder, a prompt is read by it once and whole when its row's turn comes;
what the row then reads behind that are the decoder's own first tokens.

Nothing here knows Triton: time is handed in, and answers go to a function. Runs in the server's
environment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from harness.serving.generation.contract import (
    Decoder,
    DecoderWithEncoder,
    EngineCounters,
    Logits,
    Piece,
    QueuedRequest,
    RejectedRequestError,
    check_request,
)
from harness.serving.generation.draft import Draft, DraftedText
from harness.serving.generation.prompt_scores import (
    SCORED_TOKENS,
    PromptScores,
    joined,
    scores_of,
)
from harness.serving.generation.sampler import Sampler
from harness.serving.generation.text import AnswerText, Decodes
from harness.tasks.generation.rules import RuledAnswer
from harness.types.generation import (
    AnswerRules,
    FinishReason,
    GeneratorSettings,
)


@dataclass
class _Row:
    """A request that holds a slot."""

    request: QueuedRequest
    prompt: NDArray[np.int64]
    """What the decoder reads: the prompt; behind an encoder its start token and what is given."""
    sampler: Sampler
    answer: AnswerText
    most: int
    """Tokens that the answer may have."""
    queue_s: float = 0.0
    """Seconds it waited for the slot."""
    slot: int = -1
    seen: int = 0
    """Tokens in the slot."""
    last: int = -1
    """The token that was written and not yet read."""
    written: int = 0
    ended: bool = False
    source: NDArray[np.int64] | None = None
    """The prompt until the encoder has read it; None too without an encoder."""
    drafted: DraftedText = field(default_factory=DraftedText)
    """Where there is a draft: what it has seen of the text."""
    scores: list[PromptScores] = field(default_factory=list)
    """Scores of the prompt's parts that are asked for and not sent yet."""

    @property
    def is_scored(self) -> bool:
        """Whether the request asks how probable its prompt is."""
        return self.request.parameters.prompt_logprobs

    def told_scores(self) -> PromptScores | None:
        """The scores of the prompt's parts as those of a whole, once."""
        scores, self.scores = joined(self.scores), []
        return scores

    @property
    def rest(self) -> NDArray[np.int64]:
        """What of the prompt is not read yet."""
        return self.prompt[self.seen :]


@dataclass
class GenerationEngine:
    """The queue, the slots, and what a step does with them."""

    decoder: Decoder
    tokenizer: Decodes
    settings: GeneratorSettings
    specials: dict[int, str] = field(default_factory=dict)
    """The model's special tokens and what they are called."""
    queue_size: int = 128
    """Requests that may wait; one more is rejected."""
    read_tokens: int = 256
    """Most prompt tokens that are read between two steps of the answers being written."""
    clock: Callable[[], float] = time.monotonic
    draft: Draft | None = None
    """Proposes tokens, which changes no answer; it has as many slots and as large a context."""

    def __post_init__(self) -> None:
        """Start with nothing in flight."""
        self.counters = EngineCounters()
        self._lock = threading.Condition()
        self._queue: deque[tuple[QueuedRequest, float]] = deque()
        self._rows: list[_Row] = []
        """Rows by slot: those that write first, then those whose prompt is being read."""
        self._writing = 0
        """How many rows write."""

    def submit(self, request: QueuedRequest) -> None:
        """Take a request; may be called from any thread.

        Raises:
            RejectedRequestError: the queue is full, the prompt has no token, or it leaves no room
                in the context.
        """
        with self._lock:
            try:
                check_request(request, self.settings, self.decoder.context)
                self._check_queue()
            except RejectedRequestError:
                self.counters.rejected += 1
                raise
            if request.parameters.max_tokens == 0 and not request.parameters.prompt_logprobs:
                self.counters.finished += 1
            else:
                self._queue.append((request, self.clock()))
                self.counters.queued = len(self._queue)
                self._lock.notify()
                return
        request.emit(Piece("", (), FinishReason.LENGTH))

    def _check_queue(self) -> None:
        if len(self._queue) >= self.queue_size:
            raise RejectedRequestError(
                f"the queue is full: {len(self._queue)} requests wait, and {len(self._rows)} are "
                "being answered; try again later",
                is_busy=True,
            )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until there is something to do; False where the time is over first."""
        with self._lock:
            return self._lock.wait_for(lambda: bool(self._queue or self._rows), timeout_s)

    def step(self) -> bool:
        """Drop who went away, admit who waits, read a part of the prompts, write a token each.

        Returns:
            Whether anything is left to do.
        """
        self._drop_cancelled()
        self._admit()
        if self._writing < len(self._rows):
            self._read()
        # Those whose prompt was read to its end have their first token, and go on at once.
        self._drop_ended()
        if self._writing:
            self._write()
            self._drop_ended()
        with self._lock:
            self.counters.running = len(self._rows)
            return bool(self._queue or self._rows)

    def fail(self) -> list[QueuedRequest]:
        """Give up everything in flight, after an error in a step; returns whose it was."""
        with self._lock:
            requests = [row.request for row in self._rows] + [one for one, _ in self._queue]
            self._rows, self._writing = [], 0
            self._queue.clear()
            self.counters.queued = self.counters.running = 0
        return requests

    def _drop_cancelled(self) -> None:
        for row in self._rows:
            if row.request.is_cancelled():
                self._cancel(row.request)
                row.ended = True
        self._drop_ended()
        with self._lock:
            waiting = list(self._queue)
        gone = [entry for entry in waiting if entry[0].is_cancelled()]
        for entry in gone:
            self._cancel(entry[0])
        if gone:
            with self._lock:
                for entry in gone:
                    self._queue.remove(entry)
                self.counters.queued = len(self._queue)

    def _cancel(self, request: QueuedRequest) -> None:
        self.counters.cancelled += 1
        request.emit(Piece("", (), FinishReason.CANCELLED))

    def _fail_alone(self, request: QueuedRequest, error: Exception) -> None:
        """End one request whose own values fail; the others go on."""
        told = f"the answer failed: {type(error).__name__}: {error}"
        request.emit(Piece("", (), FinishReason.CANCELLED, error=told))

    def _admit(self) -> None:
        with self._lock:
            while self._queue and len(self._rows) < self.decoder.slots:
                request, since = self._queue.popleft()
                try:
                    row = self._row(request, slot=len(self._rows))
                except Exception as error:  # noqa: BLE001  (what it asks is its own fault)
                    self._fail_alone(request, error)
                    continue
                row.queue_s = self.clock() - since
                self.counters.queue_s += row.queue_s
                self._rows.append(row)
            self.counters.queued, self.counters.running = len(self._queue), len(self._rows)

    def _row(self, request: QueuedRequest, slot: int) -> _Row:
        parameters = request.parameters
        ends = () if parameters.ignore_eos else self.settings.end_tokens
        answer = AnswerText(self.tokenizer, parameters.stop, self.specials, parameters.min_tokens)
        prompt, source = np.asarray(request.prompt, np.int64), None
        if self.settings.has_encoder:
            begun = (self.settings.decoder_start, *parameters.decoder_prompt)
            prompt, source = np.array(begun, np.int64), prompt
        most = min(parameters.max_tokens, self.decoder.context - len(prompt))
        rules = self._rules(prompt, request.prompt, ends, most)
        sampler = Sampler(parameters, ends, rules)
        return _Row(request, prompt, sampler, answer, most=most, slot=slot, source=source)

    def _rules(
        self, begun: NDArray[np.int64], source: Sequence[int], ends: Sequence[int], most: int
    ) -> RuledAnswer | None:
        rules = self.settings.rules
        if rules == AnswerRules():
            return None
        return RuledAnswer(rules, begun=begun.tolist(), source=source, end_tokens=ends, most=most)

    def _read(self) -> None:
        """Read the next prompt, or a part of it, and as many others beside it as fit."""
        began = self.clock()
        first = self._rows[self._writing]
        if first.source is not None:
            self._encode()
        if first.is_scored:
            rows, logits = [first], self._read_scored(first)
        else:
            rows, logits = self._read_several()
        self.counters.read_steps += 1
        self.counters.read_s += self.clock() - began
        if len(first.rest):
            return
        if first.most == 0:
            self._end_unwritten(first)
            return
        self._writing += len(rows)
        self._choose(rows, logits)

    def _encode(self) -> None:
        """Let the encoder read the next prompt, and as many others as fit into the same pause."""
        decoder = cast("DecoderWithEncoder", self.decoder)
        tokens = 0
        for row in self._rows[self._writing :]:
            if row.source is None:
                continue
            if tokens and tokens + len(row.source) > self.read_tokens:
                break
            tokens += len(row.source)
            decoder.encode(row.slot, row.source)
            row.source = None
        self.counters.prompt_tokens += tokens

    def _read_several(self) -> tuple[list[_Row], Logits]:
        waiting = self._rows[self._writing :]
        rows = [waiting[0]]
        parts = [waiting[0].rest[: self.read_tokens]]
        if len(parts[0]) == len(waiting[0].rest):
            for row in waiting[1:]:
                width = max(len(row.rest), *map(len, parts))
                fits = max(row.seen, *(one.seen for one in rows)) + width <= self.decoder.context
                waits = row.is_scored or row.source is not None
                if waits or not fits or width * (len(rows) + 1) > self.read_tokens:
                    break
                rows.append(row)
                parts.append(row.rest)
        logits = self.decoder.read(self._writing, parts, [row.seen for row in rows])
        self._read_by_draft(rows, parts)
        for row, part in zip(rows, parts, strict=True):
            self._has_read(row, len(part))
        return rows, logits

    def _has_read(self, row: _Row, tokens: int) -> None:
        # The start token behind an encoder is nobody's prompt.
        own = int(self.settings.has_encoder and not row.seen)
        self.counters.prompt_tokens += tokens - own
        row.seen += tokens

    def _read_scored(self, row: _Row) -> Logits:
        """Read a part of one prompt and keep how probable its tokens are: logits of the last."""
        part = row.rest[: min(self.read_tokens, SCORED_TOKENS)]
        (logits,) = self.decoder.read_all(row.slot, [part], [row.seen])
        if row.most:
            self._read_by_draft([row], [part])
        if not row.seen and not self.settings.has_encoder:
            row.scores.append(PromptScores(np.zeros(1, np.float32), np.zeros(1, np.int32)))
        following = row.prompt[row.seen + 1 : row.seen + len(part) + 1]
        row.scores.append(scores_of(logits[: len(following)], following))
        self._has_read(row, len(part))
        last: Logits = logits[-1:]
        return last

    def _read_by_draft(self, rows: Sequence[_Row], parts: list[NDArray[np.int64]]) -> None:
        """Let the draft read the same parts of prompts, before they count as seen."""
        if self.draft is None:
            return
        self.draft.decoder.read(rows[0].slot, parts, [row.seen for row in rows])
        for row, part in zip(rows, parts, strict=True):
            row.drafted.seen = row.seen + len(part)

    def _end_unwritten(self, row: _Row) -> None:
        row.ended = True
        self.counters.finished += 1
        row.request.emit(Piece("", (), FinishReason.LENGTH, row.told_scores(), row.queue_s))

    def _write(self) -> None:
        """One token more for every row that writes; several where a draft foresaw them."""
        began = self.clock()
        rows = self._rows[: self._writing]
        proposed, seen = self._propose(rows), [row.seen for row in rows]
        if proposed.shape[1]:
            last = np.array([[row.last] for row in rows])
            logits = self.decoder.read_all(0, list(np.concatenate([last, proposed], axis=1)), seen)
        else:
            logits = self.decoder.write([row.last for row in rows], seen)[:, None]
        self.counters.write_steps += 1
        written = [row.written for row in rows]
        self._choose(rows, logits, proposed)
        for row, before in zip(rows, written, strict=True):
            row.seen += row.written - before
        self.counters.write_s += self.clock() - began

    def _propose(self, rows: Sequence[_Row]) -> NDArray[np.int64]:
        """What the draft proposes, (rows, tokens); without tokens where there is none or no room.

        All rows get as many: as many as the row with most room in its answer can use, and as fit
        the longest text, because each step writes into the slots behind it.
        """
        if self.draft is None:
            return np.zeros((len(rows), 0), np.int64)
        began = self.clock()
        useful = max(row.most - row.written for row in rows) - 1
        fits = self.decoder.context - 1 - max(row.seen for row in rows)
        count = min(self.draft.tokens, useful, fits)
        if count < 1:
            return np.zeros((len(rows), 0), np.int64)
        proposed = self.draft.propose([row.drafted for row in rows], count)
        self.counters.draft_tokens += proposed.size
        self.counters.draft_s += self.clock() - began
        return proposed

    def _choose(
        self, rows: Sequence[_Row], logits: Logits, proposed: NDArray[np.int64] | None = None
    ) -> None:
        """Give each row its next tokens.

        Args:
            rows: that get some.
            logits: behind the row's last token and behind each proposed one, (rows, 1 + tokens,
                vocabulary); (rows, vocabulary) where nothing is proposed.
            proposed: by the draft, (rows, tokens).
        """
        if proposed is None:
            logits, proposed = logits[:, None], np.zeros((len(rows), 0), np.int64)
        likeliest = logits.argmax(axis=-1).tolist()
        for row, best, ahead, one in zip(rows, likeliest, proposed.tolist(), logits, strict=True):
            try:
                kept = self._extend(row, best, ahead, one)
            except Exception as error:  # noqa: BLE001  (what it asks is its own fault)
                row.ended = True
                self._fail_alone(row.request, error)
                continue
            self.counters.output_tokens += len(kept)
            if self.draft is not None:
                self.counters.draft_accepted += row.drafted.settle(ahead, kept)

    def _extend(
        self, row: _Row, likeliest: list[int], proposed: list[int], logits: Logits
    ) -> list[int]:
        """Add tokens to an answer up to the first that was not proposed; returns them."""
        tokens, text, forced = list[int](), "", False
        for place, best in enumerate(likeliest):
            simple = row.sampler.takes_likeliest(row.written)
            token = best if simple else row.sampler.choose(logits[place], row.written)
            forced = row.sampler.rules is not None and row.sampler.rules.ends_by_force
            tokens.append(token)
            text += self._add(row, token)
            if row.ended or place == len(proposed) or token != proposed[place]:
                break
        reason = FinishReason.NONE
        if row.ended:
            text += row.answer.finish()
            is_end = self._is_end(row, tokens[-1])
            stopped = (is_end and not forced) or row.answer.stopped
            reason = FinishReason.STOP if stopped else FinishReason.LENGTH
            self.counters.finished += 1
        row.request.emit(Piece(text, tuple(tokens), reason, row.told_scores(), row.queue_s))
        return tokens

    def _add(self, row: _Row, token: int) -> str:
        """Add one token; returns the text that it completes."""
        row.last = token
        row.written += 1
        if row.sampler.rules is not None:
            row.sampler.rules.push(token)
        is_end = self._is_end(row, token)
        text = "" if is_end else row.answer.push(token)
        row.ended = is_end or row.answer.stopped or row.written >= row.most
        return text

    def _is_end(self, row: _Row, token: int) -> bool:
        return token in self.settings.end_tokens and not row.request.parameters.ignore_eos

    def _drop_ended(self) -> None:
        """Free the slots of ended rows, and close the gaps."""
        if not any(row.ended for row in self._rows):
            return
        writing = [row for row in self._rows[: self._writing] if not row.ended]
        reading = [row for row in self._rows[self._writing :] if not row.ended]
        # Rows in the first slots stay where they are; the last ones fill what became free.
        staying = {row.slot: row for row in writing if row.slot < len(writing)}
        moving = [row for row in writing if row.slot >= len(writing)]
        placed = [staying.get(slot) or moving.pop() for slot in range(len(writing))]
        self._rows = placed + reading
        self._writing = len(writing)
        for slot, row in enumerate(self._rows):
            is_begun = row.seen or (self.settings.has_encoder and row.source is None)
            if row.slot != slot and is_begun:
                self.decoder.move(row.slot, slot, row.seen)
                if self.draft is not None:
                    self.draft.decoder.move(row.slot, slot, row.drafted.seen)
            row.slot = slot
