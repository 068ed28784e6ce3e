"""The front end's client of the decoupled models: one gRPC stream for each request."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from harness.serving.openai.errors import FAILED, OVERLOADED, ApiError, failed
from harness.types.generation import (
    FINISH_REASON,
    INPUT_IDS,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    RETURN_FINISH_REASON,
    RETURN_NUM_INPUT_TOKENS,
    RETURN_NUM_OUTPUT_TOKENS,
    SAMPLING_PARAMETERS,
    TEXT_INPUT,
    TEXT_OUTPUT,
    FinishReason,
    SamplingParameters,
)
from harness.words.numbers import asked

SILENCE_S = 300.0
"""How long the next event of a stream is waited for."""
_LIVE_S = 2.0
_STATUS_ERRORS = {"triton_grpc_error": "true"}
"""Triton then ends a stream with the error's own status, rather than telling its text alone."""
_QUEUE_FULL = "Exceeds maximum queue size"
"""What Triton's own schedulers say."""


@dataclass(frozen=True)
class GeneratedPiece:
    """What one response of the model brings."""

    text: str
    tokens: int
    """Generated tokens that it stands for; none of them need have a text yet."""
    prompt_tokens: int
    finish_reason: str
    """Why the stream ended; empty before the last piece."""


class GenerationClient:
    """Asks models on one Triton; belongs to one event loop.

    Args:
        address: of Triton's gRPC, host:port.
        silence_s: how long the next event of a stream is waited for.
    """

    def __init__(self, address: str, *, silence_s: float = SILENCE_S) -> None:
        self._client = triton.InferenceServerClient(address)
        self._silence_s = silence_s

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    async def ready(self) -> bool:
        """Whether Triton answers, and is ready."""
        try:
            return bool(await self._client.is_server_ready(client_timeout=_LIVE_S))
        except InferenceServerException:
            return False

    async def generate(
        self,
        model: str,
        prompt: str | tuple[int, ...],
        sampling: SamplingParameters,
        request_id: str,
    ) -> AsyncIterator[GeneratedPiece]:
        """Stream a model's answer; closing the iterator early cancels the request.

        Args:
            model: its name on Triton.
            prompt: text, or token ids.
            sampling: how to draw, and where to end.
            request_id: that Triton knows the request by.

        Raises:
            ApiError: the model refused or failed, or fell silent.
        """
        request = {
            "model_name": model,
            "inputs": _tensors(prompt, sampling),
            "request_id": request_id,
        }

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield request

        responses = self._client.stream_infer(requests(), headers=_STATUS_ERRORS)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while (result := await self._next(responses)) is not None:
                piece = _piece(result.get_response(), decoder)
                if piece is None:
                    continue
                if piece.finish_reason == FinishReason.CANCELLED:  # the client is still there
                    raise failed("the model's server is stopping")
                yield piece
        finally:
            responses.cancel()

    async def _next(self, responses: Any) -> Any:
        """The next response; None at the end."""
        try:
            async with asyncio.timeout(self._silence_s):
                result, error = await anext(responses)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise ApiError(
                f"the model has sent nothing for {asked(self._silence_s)} s",
                status=HTTPStatus.GATEWAY_TIMEOUT,
                kind=FAILED,
            ) from None
        except grpc.RpcError as problem:
            raise await self._told(problem.code().name, problem.details() or "") from problem
        if error is not None:
            raise await self._told("", error.message())
        return result

    async def _told(self, status: str, message: str) -> ApiError:
        """Triton's error as the client is told it."""
        full = _QUEUE_FULL in message
        if status == "UNAVAILABLE" and not full:
            full = await self.ready()  # else it is Triton that is away
            if not full:
                return ApiError(
                    f"the model's server cannot be reached: {message}",
                    status=HTTPStatus.SERVICE_UNAVAILABLE,
                    kind=FAILED,
                )
        if full:
            return ApiError(
                message, status=HTTPStatus.TOO_MANY_REQUESTS, kind=OVERLOADED, code="queue_full"
            )
        if status == "INVALID_ARGUMENT":
            return ApiError(message)
        return failed(message)


def _tensors(prompt: str | tuple[int, ...], sampling: SamplingParameters) -> list[Any]:
    told = (RETURN_FINISH_REASON, RETURN_NUM_INPUT_TOKENS, RETURN_NUM_OUTPUT_TOKENS)
    tensors = [
        _tensor(SAMPLING_PARAMETERS, "BYTES", [sampling.to_json().encode()], object),
        *(_tensor(name, "BOOL", [True], bool) for name in told),
    ]
    if isinstance(prompt, str):
        return [_tensor(TEXT_INPUT, "BYTES", [prompt.encode()], object), *tensors]
    return [_tensor(INPUT_IDS, "INT32", prompt, np.int32), *tensors]


def _tensor(name: str, datatype: str, values: Any, kind: Any) -> Any:
    array = np.array(values, dtype=kind)
    return triton.InferInput(name, array.shape, datatype).set_data_from_numpy(array)


def _piece(response: Any, decoder: codecs.IncrementalDecoder) -> GeneratedPiece | None:
    """What a response says; None for the empty one that only marks the end.

    Read by hand: as arrays the four tensors would cost as much as all the rest of a token.
    """
    names = [output.name for output in response.outputs]
    raw = dict(zip(names, response.raw_output_contents, strict=False))
    if TEXT_OUTPUT not in raw:
        return None
    reason = b"".join(_elements(raw.get(FINISH_REASON, b""))).decode()
    return GeneratedPiece(
        text=decoder.decode(b"".join(_elements(raw[TEXT_OUTPUT])), final=bool(reason)),
        tokens=int.from_bytes(raw.get(NUM_OUTPUT_TOKENS, b""), "little"),
        prompt_tokens=int.from_bytes(raw.get(NUM_INPUT_TOKENS, b""), "little"),
        finish_reason=reason,
    )


def _elements(raw: bytes) -> Iterator[bytes]:
    """Elements of a BYTES tensor: each has its length before it, as 32 bits."""
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        yield raw[at + 4 : at + 4 + length]
        at += 4 + length
