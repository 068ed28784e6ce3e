"""What a served language model says of rows of tokens: each row asked once, and kept.

An answer is kept under the identity of the model that gave it and of what was asked. So a repeated
run, or a second task on the same text, asks nothing twice, and another model's answers are never
taken for this one's, whatever the two are called.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import ServerError, StorageError
from harness.quality.collection import Predictor, ask
from harness.tasks.encoding import EncodedGroup
from harness.tasks.outcomes import Batch, Tensors
from harness.types import ModelVariant

Row = tuple[int, ...]
"""Token ids, unpadded."""
ProgressOfRows = Callable[[int, int], None]
"""Progress callback: rows done, and rows in all."""

LENGTH_STEP = 8
"""Requests are padded to the next multiple, so that those of similar length have equal shapes and
the server's batcher can join what is left over of full batches."""


@dataclass(frozen=True)
class TokenScores:
    """What the model says of one row."""

    logprobs: NDArray[np.float32]
    """Natural logarithm of each token's probability given those before it, (tokens,); the first,
    which nothing precedes, is 0."""
    greedy: NDArray[np.int32]
    """The likeliest next token at each position, (tokens,)."""

    def to_bytes(self) -> bytes:
        """The scores as the answer cache stores them."""
        return self.logprobs.astype("<f4").tobytes() + self.greedy.astype("<i4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> TokenScores:
        """The scores that `to_bytes` wrote."""
        half = len(data) // 2
        return cls(np.frombuffer(data[:half], "<f4"), np.frombuffer(data[half:], "<i4"))


@dataclass
class ScoringCounts:
    """How rows were answered, added up over everything a scorer was asked."""

    asked: int = 0
    """Rows put to the endpoint."""
    kept: int = 0
    """Rows whose answer was known already."""
    failed: int = 0
    """Rows whose request failed."""
    first_failure: str = ""


class TokenScorer:
    """Puts rows of tokens to one served language model.

    A full request holds as many rows as the served `max_batch_size`: the executions are then those
    of every other run, which matters to a model whose rows touch each other (dynamic int8). Rows of
    similar length share a request. A failed request leaves its rows unanswered and is not tried
    again: in production it would have been an error too.

    Args:
        variant: the loaded model.
        predictor: the way to the endpoint.
        pad_token_id: what rows are padded with; masked, so any token does.
        cache: answers known already; None asks everything.
        rows_per_request: at most; the served `max_batch_size`.
        in_flight: requests at once.
    """

    def __init__(
        self,
        variant: ModelVariant,
        predictor: Predictor,
        *,
        pad_token_id: int,
        cache: AnswerCache | None = None,
        rows_per_request: int = 16,
        in_flight: int = 4,
    ) -> None:
        self.variant = variant
        self.counts = ScoringCounts()
        self.cache = cache
        self._predictor = predictor
        self._pad_token_id = pad_token_id
        self._rows_per_request = rows_per_request
        self._in_flight = in_flight

    def score(
        self, rows: Sequence[Row], progress: ProgressOfRows | None = None, *, keep: bool = True
    ) -> list[TokenScores | None]:
        """Score rows; None where a row's request failed.

        Args:
            rows: none is empty; equal ones are asked once.
            progress: told after every answer.
            keep: look answers up in the cache and keep new ones there.
        """
        cache = self.cache if keep else None
        distinct = list(dict.fromkeys(rows))
        found = self._known(distinct, cache)
        todo = [row for row in distinct if row not in found]
        self.counts.kept += len(found)
        self.counts.asked += len(todo)
        done = len(found)
        for part, answer in self._ask_all(self._batches(todo)):
            done += len(part)
            if isinstance(answer, str):
                self.counts.failed += len(part)
                self.counts.first_failure = self.counts.first_failure or answer
            else:
                scores = dict(zip(part, _split(part, answer), strict=True))
                found |= scores
                if cache is not None:
                    _keep(cache, scores)
            if progress is not None:
                progress(done, len(distinct))
        return [found.get(row) for row in rows]

    def _known(self, rows: Sequence[Row], cache: AnswerCache | None) -> dict[Row, TokenScores]:
        if cache is None:
            return {}
        names = {_request(row): row for row in rows}
        return {
            names[request]: TokenScores.from_bytes(answer)
            for request, answer in cache.get(list(names)).items()
        }

    def _batches(self, rows: Iterable[Row]) -> Iterator[tuple[list[Row], Batch]]:
        """Longest first: what does not fit fails at once, and the time left is not understated."""
        ordered = sorted(rows, key=lambda row: (-len(row), row))
        longest = len(ordered[0]) if ordered else 0
        for start in range(0, len(ordered), self._rows_per_request):
            part = ordered[start : start + self._rows_per_request]
            # Not past the longest row there is: the model may have no position there.
            length = min(-(-len(part[0]) // LENGTH_STEP) * LENGTH_STEP, longest)
            yield part, self._batch(part, length)

    def _batch(self, rows: Sequence[Row], length: int) -> Batch:
        ids = np.full((len(rows), length), self._pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        return Batch(
            EncodedGroup(arrays, np.arange(len(rows))),
            {
                spec.name: arrays[spec.name].astype(spec.datatype.lower())
                for spec in self.variant.inputs
            },
        )

    def _ask_all(
        self, todo: Iterable[tuple[list[Row], Batch]]
    ) -> Iterator[tuple[list[Row], Tensors | str]]:
        """Each batch with its outputs, or with the words of its failure."""

        def reply_to(part: list[Row], batch: Batch) -> tuple[list[Row], Tensors | str]:
            try:
                return part, ask(self.variant, batch, self._predictor)
            except ServerError as error:
                return part, str(error)

        executor = ThreadPoolExecutor(self._in_flight, thread_name_prefix="lm-eval")
        try:
            futures = [executor.submit(reply_to, part, batch) for part, batch in todo]
            for future in as_completed(futures):
                yield future.result()
        finally:
            # After Ctrl-C only what is in flight is waited for.
            executor.shutdown(cancel_futures=True)


def _split(rows: Sequence[Row], outputs: Tensors) -> Iterator[TokenScores]:
    for number, row in enumerate(rows):
        yield TokenScores(
            outputs["token_logprobs"][number, : len(row)].astype(np.float32),
            outputs["greedy_token_ids"][number, : len(row)].astype(np.int32),
        )


def _keep(cache: AnswerCache, scores: Mapping[Row, TokenScores]) -> None:
    """An answer that is not a number is not kept: the next run asks again."""
    sound = {row: one for row, one in scores.items() if np.isfinite(one.logprobs).all()}
    cache.add({_request(row): one.to_bytes() for row, one in sound.items()})


def _request(row: Row) -> bytes:
    return b"tokens" + np.asarray(row, "<i4").tobytes()


FORMAT = 2
"""Revision of the stored values: raise it when they are written otherwise."""
_KEYS_A_QUERY = 500
"""SQLite takes a bounded number of parameters in one statement."""


class AnswerCache:
    """What one model answered, by the digest of the request.

    Args:
        folder: where the files lie.
        identity: all that decides what it answers: the artefact's digest (on a server of somebody
            else's what stands in for it), its tokenizer's files, how it is executed.
    """

    def __init__(self, folder: Path, *identity: str) -> None:
        name = hashlib.sha256("\n".join(identity).encode()).hexdigest()
        self.path = folder / f"{name}-{FORMAT}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write to {folder}: {error.strerror}") from error
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS answers (request BLOB PRIMARY KEY, answer BLOB)"
            )

    def get(self, requests: Sequence[bytes]) -> dict[bytes, bytes]:
        """The answers there are, by request.

        Raises:
            StorageError: the file cannot be read.
        """
        keys = {_digest(request): request for request in requests}
        found: dict[bytes, bytes] = {}
        names = list(keys)
        with self._open() as database:
            for start in range(0, len(names), _KEYS_A_QUERY):
                part = names[start : start + _KEYS_A_QUERY]
                places = ",".join("?" * len(part))
                rows = database.execute(
                    f"SELECT request, answer FROM answers WHERE request IN ({places})",  # noqa: S608  (question marks alone)
                    part,
                )
                found.update((keys[key], answer) for key, answer in rows)
        return found

    def add(self, answers: Mapping[bytes, bytes]) -> None:
        """Keep answers; they are on disk when this returns.

        Raises:
            StorageError: the file cannot be written.
        """
        rows: Iterable[tuple[bytes, bytes]] = (
            (_digest(request), answer) for request, answer in answers.items()
        )
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def forget(self) -> None:
        """Drop every answer: some may be another model's."""
        with self._open() as database:
            database.execute("DELETE FROM answers")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection a call: callers may be of any thread, and a call costs microseconds.
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise StorageError(
                f"the answer cache {self.path} cannot be used: {error}",
                next_step="remove that file, or add --no-cache",
            ) from error


def _digest(request: bytes) -> bytes:
    return hashlib.sha256(request).digest()
