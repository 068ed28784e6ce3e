"""The served model as lm-evaluation-harness sees one: an `LM` whose requests go to the endpoint.

Text becomes tokens, long contexts are cut and long documents are windowed exactly as lm-eval's own
`hf` model does it in process (`HFLM`, release 0.4.13), so that a score differs from that one's by
what serving changes and by nothing else. Importing this module imports lm_eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    configure_pad_token,
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from harness.errors import DataError, ServerError
from harness.quality.lm_eval.generation import Prompt, Stop, generate_greedily
from harness.quality.lm_eval.streamed import StreamScorer
from harness.quality.token_scores import ScoringCounts, TokenScorer, TokenScores

MAX_GENERATED_TOKENS = 256
"""Most tokens where a task names no bound of its own; as in `HFLM`."""
_MORE_TOKENS = 2
UNANSWERED = (float("nan"), False)
"""Instead of (log likelihood, greedy): not a number, so it can't be mistaken for one."""

TokenRequest = tuple[Any, list[int], list[int]]
"""The request's name, and its context and continuation in tokens."""


@dataclass
class RequestCounts:
    """What became of one task's requests."""

    requests: int = 0
    unanswered: int = 0
    """The request failed, the answer was not a number, or the continuation is longer than the model
    takes (`HFLM` stops there)."""
    truncated: int = 0
    """The context was longer than the model takes: cut from the left, as `HFLM` cuts it."""
    windowed: int = 0
    """Texts that were scored in more than one window."""


class ServedLM(TemplateLM):  # type: ignore[misc]  # lm_eval comes without types
    """A causal language model behind the endpoint.

    Args:
        scorer: the way to the model.
        tokenizer: of its checkpoint.
        max_length: tokens the model takes, by its configuration or as it is served.
        end_tokens: that end a generation by the checkpoint's own settings; the tokenizer's end of
            text is a stop string, as `HFLM` has it.
        progress: called with rows (or prompts) done and their number.
    """

    def __init__(
        self,
        scorer: TokenScorer | StreamScorer,
        tokenizer: Any,
        *,
        max_length: int,
        end_tokens: Iterable[int] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = configure_pad_token(tokenizer)
        self.max_length = max_length
        self.counts = RequestCounts()
        self._scorer = scorer
        self._end_tokens = frozenset(end_tokens)
        self._progress = progress

    @property
    def answers(self) -> ScoringCounts:
        """How many answers were asked for, and how many were known."""
        return self._scorer.counts

    @property
    def eot_token_id(self) -> int:
        """Id of the end-of-text token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a text without context is conditioned on."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        """Name for lm-eval's request cache, which is not used here."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as the checkpoint's own template writes it; as `HFLM` does.

        A template that refuses the role of the system gets the conversation without it.
        """

        def templated(history: list[dict[str, str]]) -> str:
            text: str = self.tokenizer.apply_chat_template(
                history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
            return text

        try:
            return templated(chat_history)
        except TemplateError:
            return templated([one for one in chat_history if one["role"] != "system"])

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Text to tokens; a text that begins with the begin-of-text token gets no second one."""
        if add_special_tokens is None and has_bos_prefix(
            string, self.tokenizer.decode(self.prefix_token_id)
        ):
            add_special_tokens = False
        extra = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        tokens: list[int] = self.tokenizer.encode(string, **extra)
        return tokens

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Log likelihood of each continuation, and whether it is the greedy one."""
        answers: list[tuple[float, bool]] = super().loglikelihood(
            requests, disable_tqdm=disable_tqdm
        )
        self._count(np.isnan([value for value, _ in answers]))
        return answers

    def loglikelihood_rolling(
        self,
        requests: list[Instance],
        disable_tqdm: bool = True,  # noqa: ARG002  (lm-eval's signature; we show our own progress)
    ) -> list[float]:
        """Log likelihood of whole texts; a long one in windows that share no token."""
        windows: list[TokenRequest] = []
        ends = []
        for request in requests:
            pairs = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows += [(None, *make_disjoint_window(pair)) for pair in pairs]
            ends.append(len(windows))
        answers = [value for value, _ in self._loglikelihood_tokens(windows)]
        starts = [0, *ends[:-1]]
        self.counts.windowed += sum(e - s > 1 for s, e in zip(starts, ends, strict=True))
        totals = [sum(answers[s:e]) for s, e in zip(starts, ends, strict=True)]
        self._count(np.isnan(totals))
        return totals

    def generate_until(
        self,
        requests: list[Instance],
        disable_tqdm: bool = True,  # noqa: ARG002  (lm-eval's signature; we show our own progress)
    ) -> list[str]:
        """Greedy continuations up to a stop string; an unanswered one is empty.

        As `HFLM` with one prompt a batch: there a stop ends a generation, and what it leaves of the
        text is decoded without special tokens, then cut at each stop that it still holds.

        Raises:
            DataError: a request leaves no token of room for its prompt, as `HFLM` refuses it too.
        """
        end_of_text = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        asked = [(request.args[0], request.args[1]) for request in requests]
        prompts = [self._prompt(context, options, end_of_text) for context, options in asked]
        made = self._continuations(prompts)
        self._count([tokens is None for tokens in made])
        return [
            postprocess_generated_text(
                self.tokenizer.decode(tokens or (), skip_special_tokens=True),
                stop=[stop.text for stop in prompt.stops],
                think_end_token=None,
            )
            for prompt, tokens in zip(prompts, made, strict=True)
        ]

    def _continuations(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...] | None]:
        if isinstance(self._scorer, StreamScorer):
            return self._scorer.write(prompts, self._progress)
        return generate_greedily(
            prompts,
            self._scorer,
            lambda tokens: str(self.tokenizer.decode(tokens, skip_special_tokens=False)),
            end_tokens=self._end_tokens,
            progress=self._progress,
        )

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], **_: Any
    ) -> list[tuple[float, bool]]:
        fits = [0 < len(cont) <= self.max_length for _, _, cont in requests]
        rows = []
        for (_, context, continuation), fit in zip(requests, fits, strict=True):
            if not fit:
                continue
            tokens = (*context, *continuation)
            # The last token is only predicted, so the model reads one token less than these.
            rows.append(tokens[-(self.max_length + 1) :])
            self.counts.truncated += len(tokens) > self.max_length + 1
        scored = iter(self._scorer.score(rows, self._progress))
        return [
            _answer(next(scored), continuation) if fit else UNANSWERED
            for (_, _, continuation), fit in zip(requests, fits, strict=True)
        ]

    def _prompt(self, context: str, arguments: dict[str, Any], end_of_text: str) -> Prompt:
        options = normalize_gen_kwargs(arguments, MAX_GENERATED_TOKENS)
        stops = handle_stop_sequences(options["until"], eos=end_of_text)
        tokens = self._encode_prompt(context)
        room = self.max_length - options["max_gen_toks"]
        if room < 1:
            raise DataError(
                f"a request asks for {options['max_gen_toks']} new tokens, and the model takes "
                f"{self.max_length} with the prompt",
                next_step="lower max_gen_toks in the task's generation_kwargs",
            )
        self.counts.truncated += len(tokens) > room
        return Prompt(
            token_ids=tuple(tokens[-room:]) or (self.prefix_token_id,),
            max_new_tokens=options["max_gen_toks"],
            stops=tuple(self._stop(text) for text in stops),
        )

    def _encode_prompt(self, context: str) -> list[int]:
        """Encode a prompt as `HFLM` does: of special tokens only a begin-of-text token is kept."""
        begin = self.tokenizer.bos_token
        has_one = begin is not None and has_bos_prefix(context, begin)
        return self.tok_encode(context, add_special_tokens=not has_one)

    def _stop(self, text: str) -> Stop:
        """Looked for in two tokens more than it takes by itself, as `HFLM` has it."""
        own: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return Stop(text, len(own) + _MORE_TOKENS)

    def _count(self, unanswered: Sequence[bool] | np.ndarray[Any, Any]) -> None:
        missing = int(sum(unanswered))
        self.counts.requests += len(unanswered)
        self.counts.unanswered += missing
        if missing == len(unanswered) and self._scorer.counts.first_failure:
            raise ServerError(
                f"model {self._scorer.variant.name} answered none of {missing} requests: "
                f"{self._scorer.counts.first_failure}",
                next_step="look for the model's name in the server's log",
            )


def _answer(scores: TokenScores | None, continuation: Sequence[int]) -> tuple[float, bool]:
    if scores is None:
        return UNANSWERED
    count = len(continuation)
    value = float(scores.logprobs[-count:].sum(dtype=np.float64))
    # The token at a position was predicted at the one before it.
    greedy = np.array_equal(scores.greedy[-count - 1 : -1], continuation)
    return (value, bool(greedy)) if np.isfinite(value) else UNANSWERED
