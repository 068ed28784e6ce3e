"""Text to the tensors that a model takes: the first part of a served ensemble.

Written into the model repository as `<variant>-tokenize/1/model.py`, beside `text_tensors.py` and
the checkpoint's `tokenizer.json`, and run by Triton's Python backend in the server's own
environment: it imports nothing of the harness. In NVIDIA's container: `pip install tokenizers`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from text_tensors import OFFSETS, WORDS, TextTensors

_PLACES = {OFFSETS, WORDS}


class TritonPythonModel:
    """One instance of the tokenizer."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the tokenizer that lies beside this file.

        Args:
            args: Triton's description of the instance. The configuration's parameter `settings`
                is a JSON object: all that `TextTensors` takes beside the definition.
        """
        config = json.loads(args["model_config"])
        self._inputs = [one["name"] for one in config["input"]]
        self._outputs = [one["name"] for one in config["output"]]
        definition = Path(__file__).with_name("tokenizer.json").read_text(encoding="utf-8")
        settings = json.loads(config["parameters"]["settings"]["string_value"])
        self._tensors = TextTensors(definition, **settings)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's requests; one that fails leaves the others alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            texts = [_texts(pb_utils.get_input_tensor_by_name(request, n)) for n in self._inputs]
            rows = self._tensors.encode(*texts)
            tensors = self._tensors.pad(rows, [one for one in self._outputs if one not in _PLACES])
            if len(tensors) < len(self._outputs):
                length = tensors["input_ids"].shape[1]
                tensors |= self._tensors.places(texts[0], rows, length)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client is told it)
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"tokenize: {error}"))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, tensors[name]) for name in self._outputs]
        )


def _texts(tensor: Any) -> list[str]:
    """The texts of a BYTES tensor, a row each."""
    return [one.decode("utf-8") for one in tensor.as_numpy().reshape(-1)]
