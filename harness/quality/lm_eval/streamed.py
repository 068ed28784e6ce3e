"""A generating model's streams as lm-eval's requests take them: likelihoods, and texts with stops.

The model itself ends a text at a stop string, so a text is one request, whatever its length; a
model that only scores has to be asked once a token (`generate_greedily`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import numpy as np

from harness.errors import ServerError
from harness.quality.lm_eval.generation import Prompt
from harness.quality.token_scores import ProgressOfRows, Row, ScoringCounts, TokenScores
from harness.quality.writing import IN_FLIGHT, ONLY_READ, Writer
from harness.types import ModelVariant
from harness.types.generation import SamplingParameters

OTHER_TOKEN = -1
"""Stands for a greedy token that is not the row's own: which one it is, is not told."""
T = TypeVar("T")


class StreamScorer:
    """Puts rows of tokens and prompts to one generating model, each in a stream of its own.

    Args:
        variant: the loaded model, which tells how probable a prompt is.
        writer: the way to the endpoint.
        in_flight: streams at once.
    """

    def __init__(
        self, variant: ModelVariant, writer: Writer, *, in_flight: int = IN_FLIGHT
    ) -> None:
        self.variant = variant
        self.counts = ScoringCounts()
        self._writer = writer
        self._in_flight = in_flight

    def score(
        self, rows: Sequence[Row], progress: ProgressOfRows | None = None
    ) -> list[TokenScores | None]:
        """Score rows; None where a row's request failed.

        Args:
            rows: none is empty; equal ones are asked once.
            progress: told after every answer.
        """
        return self._each(rows, self._scores_of, progress)

    def write(
        self, prompts: Sequence[Prompt], progress: ProgressOfRows | None = None
    ) -> list[tuple[int, ...] | None]:
        """Continue prompts greedily; None where a request failed.

        Args:
            prompts: none is empty; equal ones are continued once.
            progress: told after every answer.

        Returns:
            The new tokens of each prompt, the one that ended it included.
        """
        return self._each(prompts, self._text_of, progress)

    def _scores_of(self, row: Row) -> TokenScores:
        read = self._writer.write(self.variant.served_name, row, ONLY_READ)
        if read.prompt_logprobs is None or read.prompt_ranks is None:
            raise ServerError(f"model {self.variant.name} does not tell how probable a prompt is")
        ids = np.asarray(row, dtype=np.int32)
        greedy = np.full(len(ids), OTHER_TOKEN, dtype=np.int32)
        # What is likeliest behind a token is told of the next one.
        greedy[:-1] = np.where(read.prompt_ranks[1:] == 1, ids[1:], OTHER_TOKEN)
        return TokenScores(read.prompt_logprobs.astype(np.float32), greedy)

    def _text_of(self, prompt: Prompt) -> tuple[int, ...]:
        texts = dict.fromkeys(stop.text for stop in prompt.stops)
        # An empty one, which the server does not take, is found in the first token's text.
        longest = 1 if "" in texts else prompt.max_new_tokens
        sampling = SamplingParameters(max_tokens=longest, stop=tuple(filter(None, texts)))
        return self._writer.write(self.variant.served_name, prompt.token_ids, sampling).tokens

    def _each(
        self,
        asked: Sequence[Prompt] | Sequence[Row],
        ask: Callable[..., T],
        progress: ProgressOfRows | None,
    ) -> list[T | None]:
        distinct = list(dict.fromkeys(asked))
        found: dict[object, T] = {}
        self.counts.asked += len(distinct)
        executor = ThreadPoolExecutor(self._in_flight, thread_name_prefix="lm-eval")
        try:
            futures = {executor.submit(ask, one): one for one in distinct}
            for done, future in enumerate(as_completed(futures), 1):
                try:
                    found[futures[future]] = future.result()
                except ServerError as error:
                    self.counts.failed += 1
                    self.counts.first_failure = self.counts.first_failure or str(error)
                if progress is not None:
                    progress(done, len(distinct))
        finally:
            # After Ctrl-C only what is in flight is waited for.
            executor.shutdown(cancel_futures=True)
        return [found.get(one) for one in asked]
