"""Options of `harness load` for models that generate: by which interface, prompts, lengths."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import warn
from harness.cli.options import parse_share
from harness.errors import UsageError
from harness.types import Generation, StreamApi, WireProtocol
from harness.types.generation import ParameterError, SamplingParameters

if TYPE_CHECKING:
    from harness.load.requests.generation import GenerationRequest
    from harness.load.requests.prompts import Tokenize

DEFAULT_PROMPT, DEFAULT_ANSWER = "128", "64"
DEFAULT_TURN, DEFAULT_THINK_MS = "32", "1000"


@dataclass(frozen=True)
class GenerationOptions:
    """How a model that generates is asked; None was not given."""

    generate: Annotated[
        StreamApi | None,
        typer.Option(
            help="With --url: the model generates, and its answers are streamed token by token "
            "over this interface: triton (generate_stream, or gRPC streams), or OpenAI's chat or "
            "completions.",
            show_default=False,
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='With --generate: JSON lines {"prompt": ..., "max_tokens": ...}; default: made '
            "up.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None
    prompt_tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens of made-up prompts: 128 (default), uniform:64..256, normal:128,32, "
            "lognormal:128,0.5 or 16:1,128:3.",
            show_default=False,
        ),
    ] = None
    output_tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens that answers may have, likewise; default: 64.", show_default=False
        ),
    ] = None
    length_trace: Annotated[
        Path | None,
        typer.Option(
            help="Lengths of prompts and answers, from a trace in Azure's or Mooncake's format.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None
    shared_prefix: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens with which all made-up prompts begin alike.", show_default=False
        ),
    ] = None
    turns: Annotated[
        str | None,
        typer.Option(
            help="Turns of a conversation, likewise: each is asked behind the server's own answer "
            "to the one before; default: 1.",
            show_default=False,
        ),
    ] = None
    turn_tokens: Annotated[
        str | None,
        typer.Option(
            help="With --turns: tokens of each further turn's text, likewise; default: 32.",
            show_default=False,
        ),
    ] = None
    think_time: Annotated[
        str | None,
        typer.Option(
            help="With --turns: milliseconds from an answer's end to the next turn, likewise; "
            "default: 1000.",
            show_default=False,
        ),
    ] = None
    leave: Annotated[
        str | None,
        typer.Option(
            help="Share of the clients that go away in the middle of their answer, as 5%.",
            show_default=False,
        ),
    ] = None
    sampling: Annotated[
        str | None,
        typer.Option(
            help='Sampling parameters in JSON: {"temperature": 0.7, "top_p": 0.9}.',
            show_default=False,
        ),
    ] = None
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="The model's tokenizer (tokenizer.json or its folder): counts tokens where the "
            "server does not say them event by event.",
            exists=True,
            show_default=False,
        ),
    ] = None
    stall_timeout_s: Annotated[
        float | None,
        typer.Option(
            "--stall-timeout",
            min=0.1,
            help="Longest wait for a first or next token, in seconds; default: 30.",
            show_default=False,
        ),
    ] = None

    def check(self) -> None:
        """Make sure that they agree.

        Raises:
            UsageError: options without --generate, or that contradict each other.
        """
        given = [one.name for one in fields(self) if getattr(self, one.name) is not None]
        if self.generate is None:
            if given:
                flag = f"--{given[0].removesuffix('_s').replace('_', '-')}"
                raise UsageError(
                    f"{flag} applies only to models that generate",
                    next_step="add --generate triton, chat or completions, or leave it out",
                )
            return
        sources = [one for one in ("prompts", "length_trace", "prompt_tokens") if one in given]
        if len(sources) > 1:
            first, second = (f"--{one.replace('_', '-')}" for one in sources[:2])
            raise UsageError(
                f"{first} and {second} contradict each other", next_step="leave one of them out"
            )
        for one in ("output_tokens", "shared_prefix"):
            if "length_trace" in given and one in given:
                flag = f"--{one.replace('_', '-')}"
                raise UsageError(
                    f"{flag} and --length-trace contradict each other",
                    next_step="leave one of them out: a trace has its own lengths and prefixes",
                )
        if "shared_prefix" in given and "prompts" in given:
            raise UsageError(
                "--shared-prefix is of made-up prompts, and --prompts names a file",
                next_step="leave one of them out",
            )
        for one in ("turn_tokens", "think_time"):
            if one in given and "turns" not in given:
                raise UsageError(
                    f"--{one.replace('_', '-')} is of conversations",
                    next_step="add --turns 3, or leave it out",
                )
        if "turns" in given and "prompts" in given:
            raise UsageError(
                "--turns is of made-up conversations, and --prompts names a file",
                next_step='write the turns there: {"prompt": ..., "turns": [{"prompt": ...}]}',
            )
        self._check_sampling()

    def _check_sampling(self) -> None:
        try:
            asked = self._asked()
        except ParameterError as error:
            raise UsageError(f"--sampling: {error}") from error
        if "max_tokens" in json.loads(self.sampling or "{}"):
            raise UsageError(
                "--sampling: max_tokens is not one for all: each request has its own",
                next_step="say --output-tokens, or max_tokens in the rows of --prompts",
            )
        of_triton = [one for one in ("prompt_logprobs", "decoder_prompt") if getattr(asked, one)]
        if of_triton and self.generate is not StreamApi.TRITON:
            raise UsageError(
                f"--sampling: OpenAI's interface has no {of_triton[0]}",
                next_step="leave it out, or use --generate triton",
            )

    def _asked(self) -> SamplingParameters:
        """The sampling parameters; how many tokens an answer may have each request says itself.

        Raises:
            ParameterError: they are none.
        """
        text = self.sampling or "{}"
        try:
            told = json.loads(text)
        except ValueError:
            return SamplingParameters.from_json(text)
        roomy = {"max_tokens": sys.maxsize, **told} if isinstance(told, dict) else told
        return SamplingParameters.from_json(json.dumps(roomy))

    def _check_least(self, requests: Sequence[GenerationRequest]) -> None:
        least = self._asked().min_tokens
        most = min(
            min(one.max_tokens, *(turn.max_tokens for turn in one.turns), sys.maxsize)
            for one in requests
        )
        if least > most:
            raise UsageError(
                f"--sampling: min_tokens is {least}, and a request is for {most} tokens at most",
                next_step="ask for less, or for longer answers (--output-tokens)",
            )

    def generation(self, protocol: WireProtocol) -> Generation | None:
        """What is asked for, but for what the model's server says of it; None: no streams.

        Raises:
            UsageError: OpenAI's interface over gRPC.
        """
        if self.generate is None:
            return None
        if self.generate.is_openai and protocol is WireProtocol.GRPC:
            raise UsageError(
                f"--generate {self.generate} is spoken over HTTP, and the address is gRPC's",
                next_step="name http://HOST:PORT, or use --generate triton",
            )
        return Generation(
            self.generate,
            traffic=self._in_words(),
            sampling=self.sampling or "",
            tokenizer=self.tokenizer,
        )

    def requests(self, seed: int) -> list[GenerationRequest]:
        """The pool that is sent: the same for the same seed.

        Raises:
            UsageError: a distribution that is none; `DataError` where it is a file's fault.
        """
        from harness.load.requests.prompts import check_sendable, some_leave

        found = list(self._drawn(seed, self._tokenize()))
        if self.generate is not None:
            check_sendable(found, self.prompts, self.generate)
        self._check_least(found)
        if self.leave is not None:
            return some_leave(
                found, parse_share(self.leave, "--leave", none_too=True, usual="10%"), seed
            )
        return found

    def _drawn(self, seed: int, tokenize: Tokenize | None) -> Sequence[GenerationRequest]:
        from harness.load.requests.lengths import parse_lengths, read_length_trace
        from harness.load.requests.prompts import (
            MOST_REQUESTS,
            PromptShape,
            Talk,
            first_requests,
            going_on,
            made_up,
            read_prompts,
            traced,
        )

        answer = parse_lengths(self.output_tokens or DEFAULT_ANSWER)
        talk = self.turns and Talk(
            parse_lengths(self.turns),
            parse_lengths(self.turn_tokens or DEFAULT_TURN),
            answer,
            parse_lengths(self.think_time or DEFAULT_THINK_MS),
        )
        if self.prompts is not None:
            return read_prompts(self.prompts, answer, seed, tokenize, warn)
        if self.length_trace is not None:
            rows = read_length_trace(self.length_trace, most=MOST_REQUESTS + 1)
            opened = traced(first_requests(rows, self.length_trace, warn), seed, tokenize)
            return going_on(opened, talk, seed, tokenize) if talk else opened
        prompt = parse_lengths(self.prompt_tokens or DEFAULT_PROMPT)
        shape = PromptShape(prompt, answer, self.shared_prefix or 0, talk or None)
        return made_up(shape, seed, tokenize)

    def _tokenize(self) -> Tokenize | None:
        if self.tokenizer is None:
            return None
        from harness.load.transports.streams.counting import load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)

        def tokens(text: str) -> Sequence[int]:
            found: Sequence[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return found

        return tokens

    def _in_words(self) -> str:
        answer = f"{self.output_tokens or DEFAULT_ANSWER} tokens out"
        if self.prompts is not None:
            words = f"prompts of {self.prompts.name}, up to {answer} where it does not say"
        elif self.length_trace is not None:
            words = f"lengths of {self.length_trace.name}"
        else:
            words = f"{self.prompt_tokens or DEFAULT_PROMPT} tokens in, up to {answer}"
        if self.shared_prefix:
            words += f", the first {self.shared_prefix} alike"
        if self.turns:
            words += f", {self.turns} turns with {self.think_time or DEFAULT_THINK_MS} ms between"
        return words + (f", {self.leave} of the clients leave" if self.leave else "")
