"""A language model that writes as transformers' own `generate` does, one prompt at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.errors import ServerError
from harness.tasks.generation.streamed import StreamedAnswer
from harness.types.generation import FinishReason, SamplingParameters


class BareWriter:
    """A checkpoint in the place of a server's stream.

    Args:
        folder: the checkpoint.
        fails: prompts (their tokens) whose request fails.
    """

    def __init__(self, folder: Path, *, fails: Sequence[tuple[int, ...]] = ()) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self._fails = set(fails)
        self._lock = threading.Lock()

    def write(
        self, model: str, token_ids: Sequence[int], sampling: SamplingParameters
    ) -> StreamedAnswer:
        with self._lock:
            self.asked.append((model, tuple(token_ids)))
            if tuple(token_ids) in self._fails:
                raise ServerError("the slot burst")
            if sampling.max_tokens == 0:
                return self._read(token_ids)
            return self._written(token_ids, sampling)

    def _written(self, token_ids: Sequence[int], sampling: SamplingParameters) -> StreamedAnswer:
        import torch

        ids = torch.tensor([list(token_ids)])
        with torch.inference_mode():
            whole = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=sampling.max_tokens,
                pad_token_id=0,
            )
        tokens = self._until(whole[0, len(token_ids) :].tolist(), sampling.stop)
        ended = tokens[-1] == self.model.generation_config.eos_token_id
        ended |= any(stop in self.tokenizer.decode(tokens) for stop in sampling.stop)
        return StreamedAnswer(
            self.tokenizer.decode(tokens, skip_special_tokens=True),
            tuple(tokens),
            FinishReason.STOP if ended else FinishReason.LENGTH,
        )

    def _until(self, tokens: list[int], stops: Sequence[str]) -> list[int]:
        """Tokens up to the one that completes a stop string."""
        for count in range(1, len(tokens)):
            if any(stop in self.tokenizer.decode(tokens[:count]) for stop in stops):
                return tokens[:count]
        return tokens

    def _read(self, token_ids: Sequence[int]) -> StreamedAnswer:
        import torch

        ids = torch.tensor([list(token_ids)])
        with torch.inference_mode():
            logits = self.model(ids).logits[0, :-1]
        own = logits.gather(-1, ids[0, 1:, None])
        logprobs = (own - logits.logsumexp(-1, keepdim=True))[:, 0].numpy()
        ranks = (logits > own).sum(-1).numpy() + 1
        return StreamedAnswer(
            "", (), FinishReason.LENGTH, np.pad(logprobs, (1, 0)), np.pad(ranks, (1, 0))
        )
