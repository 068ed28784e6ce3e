"""A model on the real Triton that streams a fixed text, with the tensors of a generating model.

Its answer to any prompt is `w0 w1 ...`, a word for each token, 20 ms apart; it refuses prompts of
more than 8 words, holds one request at a time, and logs each request's end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient

MODEL = "words"
LOG = "ends.log"
SLOTS = 2
_SOURCE = """
import json
import threading
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        self.log = json.loads(args["model_config"])["parameters"]["log"]["string_value"]
        self.slots = threading.Semaphore(SLOTS)

    def execute(self, requests):
        for request in requests:
            arguments = (request, request.get_response_sender())
            threading.Thread(target=self.answer, args=arguments).start()

    def answer(self, request, sender):
        tensors = {one.name(): one.as_numpy() for one in request.inputs()}
        if "input_ids" in tensors:
            prompt = [str(one) for one in tensors["input_ids"]]
        else:
            prompt = tensors["text_input"][0].decode().split()
        wanted = json.loads(tensors["sampling_parameters"][0]).get("max_tokens", 16)
        error, final = pb.TritonError, pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        if len(prompt) > 8:
            problem = error(f"{len(prompt)} tokens are too many", error.INVALID_ARG)
        elif not self.slots.acquire(blocking=False):
            problem = error("the queue is full", error.UNAVAILABLE)
        else:
            self.stream(sender, wanted, len(prompt))
            return
        sender.send(pb.InferenceResponse(error=problem), flags=final)

    def stream(self, sender, wanted, asked):
        end = "whole"
        for number in range(wanted):
            if sender.is_cancelled():
                end = "cancelled"
                break
            reason = "length" if number == wanted - 1 else ""
            sender.send(pb.InferenceResponse([
                pb.Tensor("text_output", np.array([f"w{number} ".encode()], dtype=object)),
                pb.Tensor("finish_reason", np.array([reason.encode()], dtype=object)),
                pb.Tensor("num_input_tokens", np.array([asked], dtype=np.uint32)),
                pb.Tensor("num_output_tokens", np.array([1], dtype=np.uint32)),
            ]))
            time.sleep(0.02)
        self.slots.release()  # whoever has seen the end finds it free, and the log written
        with open(self.log, "a") as log:
            log.write(f"{end}\\n")
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
_INPUTS = {
    "text_input": ("STRING", 1),
    "input_ids": ("INT32", -1),
    "sampling_parameters": ("STRING", 1),
    "return_finish_reason": ("BOOL", 1),
    "return_num_input_tokens": ("BOOL", 1),
    "return_num_output_tokens": ("BOOL", 1),
}
_OUTPUTS = {
    "text_output": ("STRING", -1),
    "finish_reason": ("STRING", 1),
    "num_input_tokens": ("UINT32", 1),
    "num_output_tokens": ("UINT32", 1),
}


@contextmanager
def word_streams(environment: ServerEnvironment, folder: Path) -> Iterator[EmbeddedTriton]:
    """A Triton with the model loaded; the folder gets its repository and its log of ends."""
    version = folder / "repository" / MODEL / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(_SOURCE.replace("SLOTS", str(SLOTS)))
    with (
        EmbeddedTriton(environment, folder / "repository", log_file=folder / "log") as server,
        TritonClient(server.endpoint) as client,
    ):
        client.load(MODEL, json.dumps(_config(folder / LOG)))
        yield server


def ends(folder: Path) -> list[str]:
    """How the requests ended: `whole` or `cancelled`."""
    log = folder / LOG
    return log.read_text().split() if log.is_file() else []


def _config(log: Path) -> dict[str, object]:
    def described(tensors: dict[str, tuple[str, int]], **more: bool) -> list[dict[str, object]]:
        return [
            {"name": name, "data_type": f"TYPE_{kind}", "dims": [size], **more}
            for name, (kind, size) in tensors.items()
        ]

    return {
        "name": MODEL,
        "backend": "python",
        "max_batch_size": 0,
        "model_transaction_policy": {"decoupled": True},
        "input": described(_INPUTS, optional=True),
        "output": described(_OUTPUTS),
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        "parameters": {"log": {"string_value": str(log)}},
    }
