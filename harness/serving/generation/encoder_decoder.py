"""An exported encoder-decoder on ONNX Runtime. Runs in the server's environment.

The encoder reads a prompt once, by itself, so that what it makes of it does not depend on who else
asks. The keys and values that it gives lie in a slot's second buffers, beside those of the answer,
until the slot goes to the next request.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from harness.serving.generation.decoder import SlotDecoder, Tokens, open_session, rounded_span
from harness.types.generation import ENCODER_FILE, GeneratorSettings


class SourcedDecoder(SlotDecoder):
    """Runs steps over slots, each of which holds a prompt's encoding and the answer to it."""

    def __init__(
        self,
        path: Path,
        settings: GeneratorSettings,
        *,
        slots: int,
        threads: int = 1,
        context: int | None = None,
    ) -> None:
        """Open a decoder and the encoder beside it; arguments as of `SlotDecoder`."""
        super().__init__(path, settings, slots=slots, threads=threads, context=context)
        self._encoder = open_session(path.with_name(ENCODER_FILE), threads)
        shape = (slots, settings.heads, settings.source_context, settings.head_size)
        self._read = {name: np.zeros(shape, np.float32) for name in self._buffers}
        self._sources = np.ones(slots, np.int64)
        """Tokens of each slot's prompt."""
        self._source_span = np.arange(settings.source_context, dtype=np.int64)

    def encode(self, slot: int, tokens: Tokens) -> None:
        """Read a whole prompt into a slot.

        Args:
            slot: the row's.
            tokens: of the prompt, (length,), as many as the encoder's context at most.
        """
        inputs = {"input_ids": tokens[None], "lengths": np.array([len(tokens)], np.int64)}
        given: list[NDArray[np.float32]] = self._encoder.run(
            [f"read.{name}" for name in self._read], inputs
        )
        for buffer, one in zip(self._read.values(), given, strict=True):
            buffer[slot, :, : len(tokens)] = one[0]
        self._sources[slot] = len(tokens)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's prompt, and the first tokens of its answer, to another slot."""
        super().move(source, target, length)
        prompt = int(self._sources[source])
        for buffer in self._read.values():
            buffer[target, :, :prompt] = buffer[source, :, :prompt]
        self._sources[target] = prompt

    def _bind(
        self,
        ids: Tokens,
        start: Tokens,
        at: Tokens,
        first: int,
        logits: NDArray[np.float32] | None = None,
    ) -> ort.IOBinding:
        binding = super()._bind(ids, start, at, first, logits)
        rows = len(ids)
        address = self._sources[first:].ctypes.data
        binding.bind_input("sources", "cpu", 0, np.int64, (rows,), address)
        for name, buffer in self._read.items():
            shape, address = (rows, *buffer.shape[1:]), buffer[first:].ctypes.data
            binding.bind_input(f"read.{name}", "cpu", 0, np.float32, shape, address)
        return binding

    def _bind_spans(self, binding: ort.IOBinding, length: int, first: int, rows: int) -> None:
        super()._bind_spans(binding, length, first, rows)
        longest = int(self._sources[first : first + rows].max())
        span = rounded_span(longest, len(self._source_span))
        address = self._source_span.ctypes.data
        binding.bind_input("source_span", "cpu", 0, np.int64, (span,), address)


def open_decoder(
    path: Path, settings: GeneratorSettings, *, slots: int, threads: int, context: int
) -> SlotDecoder:
    """The decoder of a generating model, with its encoder where it has one."""
    kind = SourcedDecoder if settings.has_encoder else SlotDecoder
    return kind(path, settings, slots=slots, threads=threads, context=context)
