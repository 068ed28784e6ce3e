"""The decoupled model that Triton's Python backend runs around the engine.

Written into the model repository as `<variant>/1/model.py`, with the harness's own modules that it
needs beside it; it runs in the server's environment. In NVIDIA's container: `pip install
onnxruntime tokenizers`.

Triton's thread only takes requests: it tokenises and queues them. One thread runs the engine's
steps. A third sends, because handing a response to Triton takes a while in which the next step can
be computed; it also asks Triton who went away, and reports the metrics.
"""

import contextlib
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
from harness.serving.generation.triton_metrics import TritonMetrics
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
    before: Sequence[int] = ()
    """The prompt's last tokens, where the prompt is sent."""
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
        self._tokenizer.encode_special_tokens = settings.split_special_tokens
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
        self._metrics = TritonMetrics(args["model_name"])
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
                code = codes.UNAVAILABLE if error.is_busy else codes.INVALID_ARG
                self._try(_refuse, sender, str(error), code)
            except ParameterError as error:
                self._try(_refuse, sender, str(error), pb_utils.TritonError.INVALID_ARG)
            except Exception as error:  # noqa: BLE001  (whatever it is, the client is told it)
                told = f"{type(error).__name__}: {error}"
                self._try(_refuse, sender, told, pb_utils.TritonError.INTERNAL)

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
            sender,
            _outputs(request, inputs),
            len(prompt),
            prefix,
            flags[names.STREAM],
            prompt[-_SEAM_TOKENS:] if prefix else (),
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
            # One that a failed step has told of itself already is told nothing more.
            if self._streams.pop(id(stream), None) is not None:
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
            if self._engine.wait(_REPORT_INTERVAL_S):
                self._step()
        self._step()  # cancels what is in flight

    def _step(self) -> None:
        """One step; where it fails, all in flight are told, and whoever comes next is served."""
        try:
            self._engine.step()
        except Exception as error:  # noqa: BLE001  (whatever it is, the clients are told it)
            reason = f"a step failed: {type(error).__name__}: {error}"
            _log(reason)
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        self._engine.fail()
        for key in list(self._streams):
            stream = self._streams.pop(key, None)
            if stream is not None:
                self._try(_refuse, stream.sender, reason, pb_utils.TritonError.INTERNAL)

    def _send_pieces(self) -> None:
        reported = 0.0
        while not (self._ending and not self._threads[0].is_alive() and self._pieces.empty()):
            try:
                stream, piece = self._pieces.get(timeout=_LOOK_INTERVAL_S)
            except queue.Empty:
                pass
            else:
                if not self._try(self._send, stream, piece):
                    self._leave(stream)
            now = time.monotonic()
            self._try(self._look_who_left, now)
            if now - reported > _REPORT_INTERVAL_S:
                reported = now
                self._try(self._metrics.report, self._engine.counters)
        self._try(self._metrics.report, self._engine.counters)  # nothing runs or waits any more

    def _try(self, what: Callable[..., None], *arguments: Any) -> bool:
        """Do it for one client, the others are served whatever becomes of it; whether it was."""
        try:
            what(*arguments)
        except Exception as error:  # noqa: BLE001  (Triton's own, which have no common base)
            _log(f"a response failed: {type(error).__name__}: {error}")
            return False
        return True

    def _leave(self, stream: _Stream) -> None:
        """End a stream of which a response was lost: what came behind it would be another text."""
        stream.is_cancelled = True
        if self._streams.pop(id(stream), None) is not None:
            told = "a response failed; the server's log says why"
            self._try(_refuse, stream.sender, told, pb_utils.TritonError.INTERNAL)

    def _send(self, stream: _Stream, piece: Piece) -> None:
        if id(stream) not in self._streams:
            return  # it was told of a failure
        if piece.error:
            del self._streams[id(stream)]
            _refuse(stream.sender, piece.error, pb_utils.TritonError.INTERNAL)
            return
        is_last = piece.reason is not FinishReason.NONE
        if not stream.streamed:
            stream.kept.append(piece)
            if not is_last:
                return
            piece = _joined(stream.kept)
        if stream.prefix and piece.tokens:
            stream.prefix += self._space_between(stream.before, piece.tokens[0])
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
        stream.sender.send(_response(stream, piece), flags=flags)
        stream.prefix = ""
        if is_last:
            self._streams.pop(id(stream), None)

    def _space_between(self, before: Sequence[int], first: int) -> str:
        """The space that stands before a word within a text and not where a text begins with it.

        Decoders of SentencePiece's kind leave it out of an answer, which begins a text of its own.
        """
        known, whole, alone = (
            str(self._tokenizer.decode(tokens)) for tokens in (before, [*before, first], [first])
        )
        return " " if alone and whole == f"{known} {alone}" else ""

    def _look_who_left(self, now: float) -> None:
        """Ask Triton; each question is a round trip, so not at every step."""
        for stream in list(self._streams.values()):
            if now - stream.looked_s > _LOOK_INTERVAL_S and not stream.is_cancelled:
                stream.looked_s = now
                stream.is_cancelled = stream.sender.is_cancelled()


_EXCLUDE = names.EXCLUDE_INPUT_IN_OUTPUT
_SEAM_TOKENS = 8
"""Of a prompt's end: enough for a whole character before an answer."""
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


def _log(message: str) -> None:
    """Tell Triton's log; a thread that cannot goes on all the same."""
    with contextlib.suppress(Exception):
        pb_utils.Logger.log_error(message)


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
