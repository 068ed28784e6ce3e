"""Whole answers of generating models over Triton's gRPC streams, for scoring them.

One stream a thread, opened at its first request and kept: a decoupled model answers on the stream
that asked. Loads are driven by other means (`harness.load.transports`): here no time is taken.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from harness.errors import ServerError
from harness.tasks.generation.streamed import StreamedAnswer
from harness.types import generation as names
from harness.types.generation import FinishReason, SamplingParameters
from harness.words.numbers import asked

Connect = Callable[[str], triton.InferenceServerClient]
STALL_TIMEOUT_S = 120.0
"""Longest wait for a stream's next response."""
_ASKED_FOR = (names.RETURN_FINISH_REASON,)


class TritonStreams:
    """Puts prompts to decoupled models; may be shared by threads.

    Args:
        address: host:port of the server's gRPC side.
        stall_timeout_s: longest wait for a stream's next response.
        connect: makes a client of it; one that knows certificates and headers, where they are
            needed.
    """

    def __init__(
        self,
        address: str,
        *,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        connect: Connect = triton.InferenceServerClient,
    ) -> None:
        self._connect = partial(connect, address)
        self._stall_timeout_s = stall_timeout_s
        self._local = threading.local()
        self._streams: list[_Stream] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every stream."""
        with self._lock:
            streams, self._streams = self._streams, []
        for one in streams:
            one.close()

    def write(
        self, model: str, token_ids: Sequence[int], sampling: SamplingParameters
    ) -> StreamedAnswer:
        """The whole answer to one prompt.

        Args:
            model: its name on the server.
            token_ids: of the prompt, at least one.
            sampling: how it is answered.

        Raises:
            ServerError: the request failed, or its stream went silent or ended without an end.
        """
        stream: _Stream | None = getattr(self._local, "stream", None)
        if stream is None or stream.broken:
            stream = self._local.stream = _Stream(self._connect())
            with self._lock:
                self._streams.append(stream)
        return _joined(
            model, stream.ask(model, _inputs(token_ids, sampling), self._stall_timeout_s)
        )


def _inputs(token_ids: Sequence[int], sampling: SamplingParameters) -> list[Any]:
    values = {
        names.INPUT_IDS: np.asarray(token_ids, dtype=np.int32),
        names.SAMPLING_PARAMETERS: np.array([sampling.to_json().encode()], dtype=object),
        **{name: np.array([True]) for name in _ASKED_FOR},
    }
    datatypes = {"int32": "INT32", "object": "BYTES", "bool": "BOOL"}
    inputs = []
    for name, value in values.items():
        one = triton.InferInput(name, list(value.shape), datatypes[value.dtype.name])
        one.set_data_from_numpy(value)
        inputs.append(one)
    return inputs


class _Stream:
    """One bidirectional stream, on which one request is answered at a time."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._client = client
        self._events: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.broken = False
        self._client.start_stream(callback=lambda result, error: self._events.put((result, error)))

    def close(self) -> None:
        self.broken = True
        with contextlib.suppress(InferenceServerException):
            self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def ask(self, model: str, inputs: list[Any], stall_timeout_s: float) -> Iterator[Any]:
        """The responses to one request, the last with its outputs too where it has any."""
        self._client.async_stream_infer(model, inputs, enable_empty_final_response=True)
        while True:
            try:
                result, error = self._events.get(timeout=stall_timeout_s)
            except queue.Empty:
                self.close()
                raise ServerError(
                    f"model {model} began an answer and sent nothing more for "
                    f"{asked(stall_timeout_s)} s"
                ) from None
            if error is not None:
                # What was under way on the stream is over with it.
                self.close()
                raise ServerError(f"model {model}: {error.message() or error}")
            yield result
            if result.get_response().parameters["triton_final_response"].bool_param:
                return


def _joined(model: str, results: Iterator[Any]) -> StreamedAnswer:
    texts: list[bytes] = []
    tokens: list[int] = []
    reason = FinishReason.NONE
    prompt: dict[str, NDArray[Any]] = {}
    for result in results:
        outputs = {one.name: result.as_numpy(one.name) for one in result.get_response().outputs}
        texts += [bytes(one) for one in outputs.get(names.TEXT_OUTPUT, ())]
        tokens += outputs.get(names.TOKEN_IDS, np.empty(0, np.int32)).tolist()
        for told in outputs.get(names.FINISH_REASON, ()):
            reason = FinishReason(bytes(told).decode()) or reason
        prompt |= {name: outputs[name] for name in _OF_PROMPT if name in outputs}
    if reason is FinishReason.NONE:
        raise ServerError(f"model {model} ended a stream without a reason")
    if reason is FinishReason.CANCELLED:
        raise ServerError(f"model {model} gave an answer up after {len(tokens)} tokens")
    ranks = prompt.get(names.PROMPT_RANKS)
    return StreamedAnswer(
        b"".join(texts).decode("utf-8", errors="replace"),
        tuple(tokens),
        reason,
        prompt_logprobs=prompt.get(names.PROMPT_LOGPROBS),
        prompt_ranks=None if ranks is None else ranks.astype(np.int64),
    )


_OF_PROMPT = (names.PROMPT_LOGPROBS, names.PROMPT_RANKS)
