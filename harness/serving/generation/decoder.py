"""An exported decoder on ONNX Runtime, with a slot of its cache for each row in flight.

Every buffer of keys and values is bound as the graph's input and as its output, at one address: the
graph writes the new tokens in place, and no step copies what is there. The rows of a step are
neighbouring slots, so their part of each buffer is one piece of memory. Runs in the server's
environment.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from harness.types.generation import GeneratorSettings

Tokens = NDArray[np.int64]

_SPAN_STEP = 32
"""The span grows by so many tokens at a time: shapes that return let memory be used again."""


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """Open a graph on the CPU; `threads` as of `SlotDecoder`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it keeps a plan for every shape
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def rounded_span(length: int, most: int) -> int:
    """Tokens that a step looks at where the longest row has `length`; `most` at most."""
    return min(-(-length // _SPAN_STEP) * _SPAN_STEP, most)


class SlotDecoder:
    """Runs steps over slots; it knows nothing of requests."""

    def __init__(
        self,
        path: Path,
        settings: GeneratorSettings,
        *,
        slots: int,
        threads: int = 1,
        context: int | None = None,
    ) -> None:
        """Open a decoder.

        Args:
            path: the graph.
            settings: what it is like.
            slots: rows at once at most.
            threads: of ONNX Runtime within an operator; 0 is a thread for each core.
            context: tokens of a slot; the model's by default, and that at most.
        """
        self._session = open_session(path, threads)
        self.slots = slots
        self.context = min(context or settings.context, settings.context)
        self.vocabulary = settings.vocabulary
        shape = (slots, settings.heads, self.context, settings.head_size)
        names = [
            f"{side}.{layer}" for layer in range(settings.layers) for side in ("keys", "values")
        ]
        self._buffers = {name: np.zeros(shape, np.float32) for name in names}
        self._span = np.arange(self.context, dtype=np.int64)
        self._ids = np.zeros((slots, 1), np.int64)
        self._start = np.zeros(slots, np.int64)
        self._at = np.zeros((slots, 1), np.int64)
        self._logits = np.empty((slots, 1, settings.vocabulary), np.float32)
        self._bound: dict[int, ort.IOBinding] = {}
        """Bindings for one token per row, by the number of rows: what does not change stays
        bound."""

    def read(self, first: int, rows: list[Tokens], start: list[int]) -> NDArray[np.float32]:
        """Read several new tokens of neighbouring slots.

        Args:
            first: slot of the first row.
            rows: each row's new tokens, (length,); lengths may differ.
            start: tokens that each row has already. `start` plus the longest length must fit the
                context.

        Returns:
            Logits behind each row's last token, (rows, vocabulary); valid until the next call.
        """
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        at = np.array([[len(row) - 1] for row in rows], np.int64)
        starts = np.array(start, np.int64)
        binding = self._bind(ids, starts, at, first)  # they are kept until it has run
        self._bind_spans(binding, max(start) + width, first, len(rows))
        self._session.run_with_iobinding(binding)
        return self._logits[: len(rows), 0]

    def read_all(self, first: int, rows: list[Tokens], start: list[int]) -> NDArray[np.float32]:
        """Read several new tokens of neighbouring slots, and tell what follows each of them.

        Args:
            first: slot of the first row.
            rows: each row's new tokens, (length,); all of one length.
            start: tokens that each row has already. `start` plus the length must fit the context.

        Returns:
            Logits behind each token, (rows, length, vocabulary).
        """
        ids, starts = np.stack(rows), np.array(start, np.int64)
        at = np.tile(np.arange(ids.shape[1], dtype=np.int64), (len(rows), 1))
        logits = np.empty((*ids.shape, self.vocabulary), np.float32)
        binding = self._bind(ids, starts, at, first, logits)  # they are kept until it has run
        self._bind_spans(binding, max(start) + ids.shape[1], first, len(rows))
        self._session.run_with_iobinding(binding)
        return logits

    def write(self, tokens: list[int], lengths: list[int]) -> NDArray[np.float32]:
        """Read one new token of each of the first slots.

        Args:
            tokens: a new token for each slot from the first.
            lengths: tokens that each row has already.

        Returns:
            Logits behind each, (rows, vocabulary); valid until the next call.
        """
        rows = len(tokens)
        self._ids[:rows, 0] = tokens
        self._start[:rows] = lengths
        binding = self._bound.get(rows)
        if binding is None:
            binding = self._bind(self._ids[:rows], self._start[:rows], self._at[:rows], 0)
            self._bound[rows] = binding
        self._bind_spans(binding, max(lengths) + 1, 0, rows)
        self._session.run_with_iobinding(binding)
        return self._logits[:rows, 0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first tokens to another slot."""
        for buffer in self._buffers.values():
            buffer[target, :, :length] = buffer[source, :, :length]

    def _bind(
        self,
        ids: Tokens,
        start: Tokens,
        at: Tokens,
        first: int,
        logits: NDArray[np.float32] | None = None,
    ) -> ort.IOBinding:
        """Bind all but the span; addresses are bound, so the arrays must outlive the run."""
        rows = len(ids)
        binding = self._session.io_binding()
        for name, array in (("input_ids", ids), ("start", start), ("at", at)):
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        answers = (rows, at.shape[1], self.vocabulary)
        address = (self._logits if logits is None else logits).ctypes.data
        binding.bind_output("logits", "cpu", 0, np.float32, answers, address)
        for name, buffer in self._buffers.items():
            shape, address = (rows, *buffer.shape[1:]), buffer[first:].ctypes.data
            binding.bind_input(f"past.{name}", "cpu", 0, np.float32, shape, address)
            binding.bind_output(f"present.{name}", "cpu", 0, np.float32, shape, address)
        return binding

    def _bind_spans(self, binding: ort.IOBinding, length: int, first: int, rows: int) -> None:
        """Bind how much of the buffers is looked at: the longest row's length, rounded up."""
        del first, rows  # every row's own tokens begin at 0
        address = self._span.ctypes.data
        span = rounded_span(length, self.context)
        binding.bind_input("span", "cpu", 0, np.int64, (span,), address)
