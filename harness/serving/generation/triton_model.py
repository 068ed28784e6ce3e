"""The decoupled model that Triton's Python backend runs around the engine.

Written into the model repository as `<variant>/1/model.py`, with the harness's own modules that it
needs beside it; it runs in the server's environment. In NVIDIA's container: `pip install
onnxruntime tokenizers`.

Triton's thread only takes requests: it tokenises and queues them. One thread runs the engine's
steps. A third sends, because handing a response to Triton takes a while in which the next step can
be computed; it also asks Triton who went away, and reports the metrics.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

from harness.serving.generation.contract import Piece, QueuedRequest, RejectedRequestError
from harness.serving.generation.decoder import SlotDecoder
from harness.serving.generation.draft import Draft
from harness.serving.generation.encoder_decoder import SourcedDecoder, open_decoder
from harness.serving.generation.engine import GenerationEngine
from harness.types import generation as names
from harness.types.generation import (
    FinishReason,
    GeneratorSettings,
    ParameterError,
    SamplingParameters,
)

_LOOK_INTERVAL_S = 0.05
"""Between two looks at who went away."""
_REPORT_INTERVAL_S = 0.2
_METRICS = {
    "generation_queued": ("queued", "Requests that wait for a slot now"),
    "generation_running": ("running", "Requests that hold a slot now"),
    "generation_prompt_tokens_total": ("prompt_tokens", "Tokens of prompts that were read"),
    "generation_output_tokens_total": ("output_tokens", "Tokens that were written"),
    "generation_finished_total": ("finished", "Requests that were answered to their end"),
    "generation_cancelled_total": ("cancelled", "Requests whose client went away"),
    "generation_rejected_total": ("rejected", "Requests that were not taken"),
    "generation_prefill_steps_total": ("read_steps", "Steps that read prompts"),
    "generation_decode_steps_total": ("write_steps", "Steps that wrote a token for every row"),
    "generation_prefill_seconds_total": ("read_s", "Time in which prompts were read"),
    "generation_decode_seconds_total": ("write_s", "Time in which tokens were written"),
    "generation_queue_seconds_total": ("queue_s", "Time that requests waited for a slot"),
    "generation_draft_seconds_total": ("draft_s", "Time in which a draft proposed tokens"),
    "generation_draft_tokens_total": ("draft_tokens", "Tokens that a draft proposed"),
    "generation_draft_accepted_total": ("draft_accepted", "Of these, those that are in answers"),
}
"""Name on the metrics page: field of the engine's counters, and what it says."""


@dataclass
class _Stream:
    """One request, as Triton knows it."""

    sender: Any
    outputs: Sequence[str]
    """Names of the outputs to send."""
    prompt_tokens: int
    prefix: str
    """What the first text begins with: the prompt, or nothing."""
    streamed: bool
    is_cancelled: bool = False
    looked_s: float = 0.0
    kept: list[Piece] = field(default_factory=list)
    """What there is so far of an answer that is sent whole."""


class TritonPythonModel:
    """One instance of a generating model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the decoder, and start the threads.

        Args:
            args: Triton's description of the instance; the configuration's parameters are `slots`,
                `threads`, `context`, `queue_size` and `read_tokens`.
        """
        folder = Path(__file__).parent
        config = json.loads(args["model_config"])
        given = {key: one["string_value"] for key, one in config.get("parameters", {}).items()}
        settings = GeneratorSettings.from_json((folder / names.SETTINGS_FILE).read_text("utf-8"))
        self._settings = settings
        self._tokenizer = Tokenizer.from_file(str(folder / names.TOKENIZER_FILE))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        specials = {
            number: token.content
            for number, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        decoder, draft = _open(folder, settings, given), _draft(folder, given)
        _warm_up(decoder, draft)
        self._engine = GenerationEngine(
            decoder,
            self._tokenizer,
            settings,
            specials,
            queue_size=int(given["queue_size"]),
            read_tokens=int(given["read_tokens"]),
            draft=draft,
        )
        self._ending = False
        self._streams: dict[int, _Stream] = {}
        self._pieces: queue.SimpleQueue[tuple[_Stream, Piece]] = queue.SimpleQueue()
        self._metrics = _Metrics(args["model_name"])
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("steps", self._run_steps), ("responses", self._send_pieces))
        ]
        for thread in self._threads:
            thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests; their responses come from the threads."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except RejectedRequestError as error:
                codes = pb_utils.TritonError
                _refuse(
                    sender, str(error), codes.UNAVAILABLE if error.is_busy else codes.INVALID_ARG
                )
            except ParameterError as error:
                _refuse(sender, str(error), pb_utils.TritonError.INVALID_ARG)
            except Exception as error:  # noqa: BLE001  (whatever it is, the client is told it)
                _refuse(sender, f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)

    def finalize(self) -> None:
        """End the threads; what is in flight is cancelled."""
        self._ending = True
        for thread in self._threads:
            thread.join(timeout=5)

    def _take(self, request: Any, sender: Any) -> None:
        inputs = {one.name(): one.as_numpy() for one in request.inputs()}
        parameters = SamplingParameters.from_json(_sampling(request, inputs))
        prompt = self._prompt(inputs)
        flags = {name: _flag(inputs, name, default=True) for name in (names.STREAM, _EXCLUDE)}
        prefix = "" if flags[_EXCLUDE] else self._prompt_text(inputs, prompt)
        stream = _Stream(
            sender, _outputs(request, inputs), len(prompt), prefix, flags[names.STREAM]
        )
        self._streams[id(stream)] = stream
        try:
            self._engine.submit(
                QueuedRequest(
                    prompt,
                    parameters,
                    emit=lambda piece: self._pieces.put((stream, piece)),
                    is_cancelled=lambda: stream.is_cancelled or self._ending,
                )
            )
        except RejectedRequestError:
            del self._streams[id(stream)]
            raise

    def _prompt(self, inputs: Mapping[str, Any]) -> list[int]:
        tokens = inputs.get(names.INPUT_IDS)
        if (tokens is None) == (names.TEXT_INPUT not in inputs):
            raise ParameterError(f"give either {names.TEXT_INPUT} or {names.INPUT_IDS}")
        if tokens is not None:
            return [int(one) for one in tokens.reshape(-1)]
        try:
            text = _bytes(inputs[names.TEXT_INPUT]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ParameterError(f"{names.TEXT_INPUT} is not UTF-8: {error}") from error
        encoded: list[int] = self._tokenizer.encode(text).ids
        start = self._settings.start_token
        return encoded or ([] if start is None else [start])

    def _prompt_text(self, inputs: Mapping[str, Any], prompt: Sequence[int]) -> str:
        if names.TEXT_INPUT in inputs:
            return _bytes(inputs[names.TEXT_INPUT]).decode("utf-8")
        return str(self._tokenizer.decode(prompt))

    def _run_steps(self) -> None:
        while not self._ending:
            if not self._engine.wait(_REPORT_INTERVAL_S):
                continue
            try:
                self._engine.step()
            except Exception as error:  # noqa: BLE001  (clients are told, and the others served)
                pb_utils.Logger.log_error(f"a step failed: {type(error).__name__}: {error}")
                self._give_up(f"a step failed: {type(error).__name__}: {error}")
        self._engine.step()  # cancels what is in flight

    def _give_up(self, reason: str) -> None:
        self._engine.fail()
        for key in list(self._streams):
            stream = self._streams.pop(key, None)
            if stream is not None:
                _refuse(stream.sender, reason, pb_utils.TritonError.INTERNAL)

    def _send_pieces(self) -> None:
        reported = 0.0
        while not (self._ending and not self._threads[0].is_alive() and self._pieces.empty()):
            try:
                stream, piece = self._pieces.get(timeout=_LOOK_INTERVAL_S)
            except queue.Empty:
                pass
            else:
                self._try(self._send, stream, piece)
            now = time.monotonic()
            self._try(self._look_who_left, now)
            if now - reported > _REPORT_INTERVAL_S:
                reported = now
                self._try(self._metrics.report, self._engine.counters)

    def _try(self, what: Callable[..., None], *arguments: Any) -> None:
        """Do it for one client; the others are served whatever becomes of it."""
        try:
            what(*arguments)
        except Exception as error:  # noqa: BLE001  (Triton's own, which have no common base)
            pb_utils.Logger.log_error(f"a response failed: {type(error).__name__}: {error}")

    def _send(self, stream: _Stream, piece: Piece) -> None:
        if id(stream) not in self._streams:
            return  # it was told of a failure
        is_last = piece.reason is not FinishReason.NONE
        if not stream.streamed:
            stream.kept.append(piece)
            if not is_last:
                return
            piece = _joined(stream.kept)
        if is_last:
            del self._streams[id(stream)]
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
        stream.sender.send(_response(stream, piece), flags=flags)
        stream.prefix = ""

    def _look_who_left(self, now: float) -> None:
        """Ask Triton; each question is a round trip, so not at every step."""
        for stream in list(self._streams.values()):
            if now - stream.looked_s > _LOOK_INTERVAL_S and not stream.is_cancelled:
                stream.looked_s = now
                stream.is_cancelled = stream.sender.is_cancelled()


class _Metrics:
    """The engine's counters on Triton's metrics page."""

    def __init__(self, model: str) -> None:
        self._metrics = {}
        for name, (counter, description) in _METRICS.items():
            grows = name.endswith("_total")
            kind = pb_utils.MetricFamily.COUNTER if grows else pb_utils.MetricFamily.GAUGE
            family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            self._metrics[counter] = (family, family.Metric(labels={"model": model}), grows)
        self._reported: dict[str, float] = dict.fromkeys(self._metrics, 0.0)

    def report(self, counters: Any) -> None:
        """Set the gauges, and add to the counters what is new."""
        for counter, (_, metric, grows) in self._metrics.items():
            value = float(getattr(counters, counter))
            difference = value - self._reported[counter]
            if not difference:
                continue
            self._reported[counter] = value
            if grows:
                metric.increment(difference)
            else:
                metric.set(value)


_EXCLUDE = names.EXCLUDE_INPUT_IN_OUTPUT
_RETURNED = {
    names.FINISH_REASON: names.RETURN_FINISH_REASON,
    names.NUM_INPUT_TOKENS: names.RETURN_NUM_INPUT_TOKENS,
    names.NUM_OUTPUT_TOKENS: names.RETURN_NUM_OUTPUT_TOKENS,
    names.QUEUE_TIME_US: names.RETURN_QUEUE_TIME,
}


def _sampling(request: Any, inputs: Mapping[str, Any]) -> str | bytes:
    """The tensor `sampling_parameters`; without it the request's parameters, as vLLM's backend."""
    if names.SAMPLING_PARAMETERS in inputs:
        return _bytes(inputs[names.SAMPLING_PARAMETERS])
    given = json.loads(request.parameters() or "{}")
    return json.dumps({name: one for name, one in given.items() if not name.startswith(_TRITONS)})


_TRITONS = "triton_"
"""What the server's own parameters begin with."""


def _outputs(request: Any, inputs: Mapping[str, Any]) -> list[str]:
    """What the client wants: of those it can ask for by an input, what it asked for."""
    return [
        name
        for name in request.requested_output_names()
        if name not in _RETURNED or _flag(inputs, _RETURNED[name], default=False)
    ]


def _flag(inputs: Mapping[str, Any], name: str, *, default: bool) -> bool:
    return bool(inputs[name].reshape(-1)[0]) if name in inputs else default


def _bytes(tensor: Any) -> bytes:
    first = tensor.reshape(-1)[0]
    return first if isinstance(first, bytes) else str(first).encode()


def _joined(pieces: Sequence[Piece]) -> Piece:
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    text = "".join(piece.text for piece in pieces)
    return Piece(text, tokens, pieces[-1].reason, pieces[0].prompt, pieces[-1].queue_s)


def _response(stream: _Stream, piece: Piece) -> Any:
    values: dict[str, Callable[[], Any]] = {
        names.TEXT_OUTPUT: lambda: np.array(
            [(stream.prefix + piece.text).encode("utf-8")], dtype=np.object_
        ),
        names.FINISH_REASON: lambda: np.array(
            [piece.reason.value.encode("utf-8")], dtype=np.object_
        ),
        names.NUM_INPUT_TOKENS: lambda: np.array([stream.prompt_tokens], np.uint32),
        names.NUM_OUTPUT_TOKENS: lambda: np.array([len(piece.tokens)], np.uint32),
        names.TOKEN_IDS: lambda: np.array(piece.tokens, np.int32),
    }
    if piece.reason is not FinishReason.NONE:
        values[names.QUEUE_TIME_US] = lambda: np.array([round(piece.queue_s * 1e6)], np.uint32)
    if piece.prompt is not None:
        logprobs, ranks = piece.prompt.logprobs, piece.prompt.ranks
        values |= {names.PROMPT_LOGPROBS: lambda: logprobs, names.PROMPT_RANKS: lambda: ranks}
    tensors = [pb_utils.Tensor(name, values[name]()) for name in stream.outputs if name in values]
    return pb_utils.InferenceResponse(tensors)


def _refuse(sender: Any, message: str, code: Any) -> None:
    error = pb_utils.TritonError(message, code)
    sender.send(
        pb_utils.InferenceResponse(error=error),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )


def _open(folder: Path, settings: GeneratorSettings, given: Mapping[str, str]) -> SlotDecoder:
    return open_decoder(
        folder / "model.onnx",
        settings,
        slots=int(given["slots"]),
        threads=int(given["threads"]),
        context=int(given["context"]),
    )


def _draft(folder: Path, given: Mapping[str, str]) -> Draft | None:
    """The draft that lies beside the model, if one does."""
    place = folder / names.DRAFT_FOLDER
    if not place.is_dir():
        return None
    settings = GeneratorSettings.from_json((place / names.SETTINGS_FILE).read_text("utf-8"))
    told = json.loads((place / names.SPECULATION_FILE).read_text("utf-8"))
    return Draft(_open(place, settings, given), int(told["tokens"]))


def _warm_up(decoder: SlotDecoder, draft: Draft | None) -> None:
    """Run what will be run, so that the first requests find memory and code ready."""
    prompt = np.zeros(min(16, decoder.context - 1), np.int64)
    for one in [decoder] if draft is None else [decoder, draft.decoder]:
        if isinstance(one, SourcedDecoder):
            one.encode(0, prompt)
        one.read(0, [prompt], [0])
        for rows in range(1, decoder.slots + 1):
            one.write([0] * rows, [len(prompt)] * rows)
    if draft is None:
        return
    width = min(draft.tokens + 1, decoder.context - len(prompt))
    for rows in range(1, decoder.slots + 1):
        decoder.read_all(0, [np.zeros(width, np.int64)] * rows, [len(prompt)] * rows)
