"""The bare side of `generation`: a decoder in a loop on ONNX Runtime, and nothing else.

Buffers are bound in place, the likeliest token goes back in, and every row is at the same place:
what the served model's step does without requests, texts and clients. Runs in the embedded server's
environment; imports nothing of the harness. Usage: `bare_decoder.py FOLDER THREADS PROMPT TOKENS`;
each line on standard input is a number of rows and of seconds, each line of output the tokens a
second over that time.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_WARM_UP_STEPS = 10


class Loop:
    """Greedy answers of one length, one batch after the other."""

    def __init__(self, folder: Path, threads: int, prompt: int, tokens: int, rows: int) -> None:
        settings = json.loads((folder / "generation.json").read_text("utf-8"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False
        self._session = ort.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._prompt, self._end = prompt, prompt + tokens
        self._ids = np.full((rows, 1), 5, np.int64)
        self._start = np.full(rows, prompt, np.int64)
        self._at = np.zeros((rows, 1), np.int64)
        self._span = np.arange(settings["context"])
        self._logits = np.empty((rows, 1, settings["vocabulary"]), np.float32)
        shape = (rows, settings["heads"], settings["context"], settings["head_size"])
        names = [
            f"{side}.{one}" for one in range(settings["layers"]) for side in ("keys", "values")
        ]
        self._buffers = {name: np.zeros(shape, np.float32) for name in names}
        self._binding = self._session.io_binding()
        for name, array in (("input_ids", self._ids), ("start", self._start), ("at", self._at)):
            self._bind(self._binding.bind_input, name, array)
        self._bind(self._binding.bind_output, "logits", self._logits)
        for name, buffer in self._buffers.items():
            self._bind(self._binding.bind_input, f"past.{name}", buffer)
            self._bind(self._binding.bind_output, f"present.{name}", buffer)

    @staticmethod
    def _bind(how: Any, name: str, array: Any) -> None:
        how(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def step(self) -> None:
        """One token for every row."""
        self._bind(self._binding.bind_input, "span", self._span[: int(self._start[0]) + 1])
        self._session.run_with_iobinding(self._binding)
        self._ids[:, 0] = self._logits[:, 0].argmax(-1)
        self._start += 1
        if self._start[0] == self._end:
            self._start[:] = self._prompt


def main() -> None:
    """Measure once for each line of standard input."""
    folder, threads, prompt, tokens = Path(sys.argv[1]), *map(int, sys.argv[2:])
    loops: dict[int, Loop] = {}
    for line in sys.stdin:
        rows, seconds = int(line.split()[0]), float(line.split()[1])
        if rows not in loops:
            loops[rows] = Loop(folder, threads, prompt, tokens, rows)
        print(_tokens_per_s(loops[rows], rows, seconds), flush=True)


def _tokens_per_s(loop: Loop, rows: int, seconds: float) -> float:
    for _ in range(_WARM_UP_STEPS):
        loop.step()
    start = time.perf_counter()
    steps = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        loop.step()
        steps += 1
    return rows * steps / elapsed


if __name__ == "__main__":
    main()
