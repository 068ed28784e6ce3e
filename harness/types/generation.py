"""A generating model: its tensors, what a request may ask, and what its decoder is like.

The names are those of Triton's vLLM backend, so that one client drives both; `input_ids` and
`token_ids` are additions. This file is also copied beside the served model, into an environment
without the harness (Python 3.10 in NVIDIA's container): it needs the standard library alone.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

TEXT_INPUT = "text_input"
"""BYTES [1]: the prompt."""
INPUT_IDS = "input_ids"
"""INT32 [-1], optional: the prompt's tokens, in place of its text."""
STREAM = "stream"
"""BOOL [1], optional, default true: one response for each step rather than one in all."""
SAMPLING_PARAMETERS = "sampling_parameters"
"""BYTES [1], optional: a JSON object with the fields of `SamplingParameters`."""
EXCLUDE_INPUT_IN_OUTPUT = "exclude_input_in_output"
"""BOOL [1], optional, default true; false: the first text of the answer begins with the prompt."""
RETURN_FINISH_REASON = "return_finish_reason"
RETURN_NUM_INPUT_TOKENS = "return_num_input_tokens"
RETURN_NUM_OUTPUT_TOKENS = "return_num_output_tokens"
RETURN_QUEUE_TIME = "return_queue_time_us"
"""BOOL [1], optional, default false: whether responses have the output of that name."""

QUEUE_PER_SLOT = 16
"""Requests that may wait for each slot of the harness's engine; one more is rejected."""

STREAM_INPUTS = (
    TEXT_INPUT,
    INPUT_IDS,
    STREAM,
    SAMPLING_PARAMETERS,
    EXCLUDE_INPUT_IN_OUTPUT,
    RETURN_FINISH_REASON,
    RETURN_NUM_INPUT_TOKENS,
    RETURN_NUM_OUTPUT_TOKENS,
    RETURN_QUEUE_TIME,
)
"""Inputs of a model that the harness exports."""

TEXT_OUTPUT = "text_output"
"""BYTES [1]: the text that this response adds."""
FINISH_REASON = "finish_reason"
"""BYTES [1]: a `FinishReason`."""
NUM_INPUT_TOKENS = "num_input_tokens"
"""UINT32 [1]: tokens of the prompt, special tokens included."""
NUM_OUTPUT_TOKENS = "num_output_tokens"
"""UINT32 [1]: generated tokens that this response brings; their sum is the whole answer's."""
TOKEN_IDS = "token_ids"  # noqa: S105  (a tensor's name)
"""INT32 [-1]: the generated tokens that this response brings. The end-of-sequence token is one of
them, though it has no text."""
QUEUE_TIME_US = "queue_time_us"
"""UINT32 [1], in the last response: microseconds that the request waited for a slot before its
prompt was read; not in vLLM's backend."""
PROMPT_LOGPROBS = "prompt_logprobs"
"""FP32 [-1], in the first response where `SamplingParameters.prompt_logprobs` asks for it: natural
logarithm of each prompt token's probability after those before it; the first, which nothing
precedes, is 0."""
PROMPT_RANKS = "prompt_ranks"
"""INT32 [-1], with it: how many tokens were likelier in the place of each prompt token, plus 1: 1
where it is the greedy one. The first is 0."""


class FinishReason(str, Enum):  # noqa: UP042  (StrEnum is not in Python 3.10)
    """Why a stream ended."""

    NONE = ""
    """The stream goes on."""
    STOP = "stop"
    """The model's own end token, or a stop string."""
    LENGTH = "length"
    """`max_tokens`, or the end of the model's context."""
    CANCELLED = "cancelled"
    """The client went away."""

    def __str__(self) -> str:
        return self.value


class ParameterError(ValueError):
    """Sampling parameters that mean nothing, in words for the client."""


@dataclass(frozen=True)
class SamplingParameters:
    """How an answer is drawn, and where it ends."""

    max_tokens: int = 16
    """Generated tokens at most; 0 reads the prompt and generates none."""
    temperature: float = 0.0
    """Divides the logits; 0 takes the likeliest token (greedy)."""
    top_k: int = 0
    """Only the likeliest k tokens are drawn from; 0 (or -1) is all of them."""
    top_p: float = 1.0
    """Only the likeliest tokens that have this probability together are drawn from."""
    seed: int | None = None
    """Seed of the draws: the same seed and prompt give the same answer. None: a new one each
    time."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these strings; special tokens count by their text."""
    ignore_eos: bool = False
    """The model's end token ends nothing."""
    min_tokens: int = 0
    """Neither the end token nor a stop string ends the answer before so many tokens."""
    prompt_logprobs: bool = False
    """The answer tells how probable the prompt's own tokens are (`PROMPT_LOGPROBS` and
    `PROMPT_RANKS`); with `max_tokens` 0 that is all it does."""
    decoder_prompt: tuple[int, ...] = ()
    """Of an encoder-decoder, tokens that its answer begins with, behind the start token. They are
    not part of what is sent, and they are what `prompt_logprobs` tells of."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ParameterError: one is out of its range.
        """
        for name, is_right, wanted in (
            ("max_tokens", self.max_tokens >= 0, "0 or more"),
            ("temperature", 0 <= self.temperature <= _LARGEST, "0 (greedy) or more"),
            ("top_k", self.top_k >= -1, "the number of tokens to draw from, or 0 for all"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("seed", self.seed is None or -(2**63) <= self.seed < 2**63, "a number of 64 bits"),
            ("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "from 0 to max_tokens"),
            ("stop", all(self.stop), "strings that are not empty"),
        ):
            if not is_right:
                raise ParameterError(
                    f"{name} is {_shown(getattr(self, name))}: it must be {wanted}"
                )

    @classmethod
    def from_json(cls, text: str | bytes) -> "SamplingParameters":
        """Read the tensor `sampling_parameters`; an empty one has every default.

        Raises:
            ParameterError: it is no JSON object, has a field that is not one of these, or a value
                of another type or out of its range.
        """
        try:
            fields = json.loads(text or "{}")
        except ValueError as error:
            raise ParameterError(f"{SAMPLING_PARAMETERS} is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ParameterError(f"{SAMPLING_PARAMETERS} must be a JSON object")
        return cls(**{name: _field(name, value) for name, value in fields.items()})

    def to_json(self) -> str:
        """What `from_json` reads: the fields that are not at their default."""
        default = SamplingParameters()
        fields: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value != getattr(default, name):
                fields[name] = list(value) if isinstance(value, tuple) else value
        return json.dumps(fields)


_LARGEST = sys.float_info.max
"""Neither infinity nor an integer that no float holds."""

SETTINGS_FILE = "generation.json"
TOKENIZER_FILE = "tokenizer.json"
"""File beside a decoder's graph: `GeneratorSettings`, and the tokenizer as transformers built
it."""
ENCODER_FILE = "encoder.onnx"
"""File beside the decoder's graph of an encoder-decoder: the graph that reads its prompts."""
DRAFT_FOLDER = "draft"
SPECULATION_FILE = "speculation.json"
"""Beside a graph that is served with a draft: the draft's graph and settings, and there a JSON
object that says how many `tokens` it proposes in a step."""


@dataclass(frozen=True)
class AnswerRules:
    """What a checkpoint's `generation_config` asks of every answer; the defaults ask nothing."""

    forced_first: int | None = None
    """The first token of every answer (`forced_bos_token_id`)."""
    forced_last: int | None = None
    """The last token of an answer that reaches its limit (`forced_eos_token_id`)."""
    min_tokens: int = 0
    """An answer does not end before so many tokens (`min_new_tokens`)."""
    min_length: int = 0
    """Least length at which an answer may end, counting what the decoder read before it
    (`min_length`)."""
    no_repeat: int = 0
    """No so many tokens in a row come twice in what the decoder reads and writes
    (`no_repeat_ngram_size`); 0: they may."""
    no_repeat_source: int = 0
    """No so many tokens in a row of the prompt come in an answer (`encoder_no_repeat_ngram_size`);
    0: they may."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that the decoder has read or written, and multiplies
    negative ones."""
    banned: tuple[int, ...] = ()
    """Tokens that are never chosen (`suppress_tokens`, `bad_words_ids` of one token)."""
    banned_first: tuple[int, ...] = ()
    """Tokens not chosen as the first one that is free (`begin_suppress_tokens`)."""


@dataclass(frozen=True)
class GeneratorSettings:
    """What whoever runs an exported decoder must know of it: what lies beside the graph."""

    layers: int
    heads: int
    """Heads of keys and values; several heads of a query may share one."""
    head_size: int
    vocabulary: int
    """Number of logits of a token."""
    context: int
    """Tokens of prompt and answer together at most."""
    end_tokens: tuple[int, ...]
    """Each ends an answer; none: only length and stop strings do."""
    start_token: int | None
    """What stands for a prompt without any token; None: such a prompt is refused."""
    source_context: int = 0
    """Tokens that the encoder reads at most; 0: there is none, and the decoder reads prompts."""
    decoder_start: int = -1
    """What the decoder of an encoder-decoder reads first; -1 without an encoder."""
    rules: AnswerRules = AnswerRules()
    split_special_tokens: bool = False
    """Whether a special token's name in a prompt's text is text like any other: what a tokenizer is
    told beside its `tokenizer.json`."""

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder reads the prompts."""
        return self.source_context > 0

    @classmethod
    def from_json(cls, text: str) -> "GeneratorSettings":
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        rules: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.pop("rules", {}).items()
        }
        ends = tuple(fields.pop("end_tokens"))
        return cls(**fields, end_tokens=ends, rules=AnswerRules(**rules))

    def to_json(self) -> str:
        """The settings as they are stored beside the graph."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)


_TYPES: Mapping[str, tuple[type, ...]] = {
    "max_tokens": (int,),
    "temperature": (int, float),
    "top_k": (int,),
    "top_p": (int, float),
    "seed": (int, type(None)),
    "stop": (str, list, type(None)),
    "ignore_eos": (bool,),
    "min_tokens": (int,),
    "prompt_logprobs": (bool,),
    "decoder_prompt": (list,),
}


def _field(name: str, value: Any) -> Any:
    if name not in _TYPES:
        known = ", ".join(_TYPES)
        raise ParameterError(f"{SAMPLING_PARAMETERS} has no {_shown(name)}; it takes {known}")
    types = _TYPES[name]
    # To Python a bool is an int; to JSON it is not.
    if not any(type(value) is one for one in types):
        wanted = " or ".join("null" if one is type(None) else one.__name__ for one in types)
        raise ParameterError(f"{name} is {_shown(value)}: it must be of type {wanted}")
    if name == "decoder_prompt":
        if not all(type(one) is int for one in value):
            raise ParameterError(f"decoder_prompt is {_shown(value)}: it must be a list of tokens")
        return tuple(value)
    if name != "stop":
        return value
    strings = [value] if isinstance(value, str) else value or []
    if not all(isinstance(one, str) for one in strings):
        raise ParameterError(f"stop is {_shown(value)}: it must be a string or a list of strings")
    return tuple(strings)


def _shown(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


_SHOWN_CHARACTERS = 80
