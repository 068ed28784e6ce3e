"""Text to the tensors that a model takes: the first part of a served pipeline.

Written into the model repository as `<variant>-tokenize/1/model.py`, beside the checkpoint's
`tokenizer.json`, and run by Triton's Python backend in the server's own environment: it imports
nothing of the harness. In NVIDIA's container: `pip install tokenizers`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Encoding, Tokenizer


class TritonPythonModel:
    """One instance of the tokenizer."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the tokenizer that lies beside this file.

        Args:
            args: Triton's description of the instance. The configuration's parameters are
                `max_length`, `buckets` (padded lengths, ascending), and the ids to pad with.
        """
        config = json.loads(args["model_config"])
        parameters = {key: one["string_value"] for key, one in config["parameters"].items()}
        self._inputs = [one["name"] for one in config["input"]]
        self._outputs = [one["name"] for one in config["output"]]
        self._buckets = json.loads(parameters["buckets"])
        self._pads = {
            "input_ids": int(parameters["pad_token_id"]),
            "attention_mask": 0,
            "token_type_ids": int(parameters["pad_token_type_id"]),
        }
        self._tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
        self._tokenizer.enable_truncation(int(parameters["max_length"]))
        self._tokenizer.no_padding()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's requests; one that fails leaves the others alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            texts = [_texts(pb_utils.get_input_tensor_by_name(request, n)) for n in self._inputs]
            rows = self._tokenizer.encode_batch(
                list(zip(*texts, strict=True)) if len(texts) > 1 else texts[0]
            )
            tensors = self._padded(rows)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client is told it)
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"tokenize: {error}"))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, tensors[name]) for name in self._outputs]
        )

    def _padded(self, rows: Sequence[Encoding]) -> dict[str, np.ndarray[Any, Any]]:
        """All rows of a request as long as the bucket of its longest."""
        if not all(len(row.ids) for row in rows):
            raise ValueError("there is no token in an empty text")
        longest = max(len(row.ids) for row in rows)
        length = next(bucket for bucket in self._buckets if bucket >= longest)
        columns = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        padded = {}
        for name in self._outputs:
            array = np.full((len(rows), length), self._pads[name], dtype=np.int64)
            for place, values in enumerate(columns[name]):
                array[place, : len(values)] = values
            padded[name] = array
        return padded


def _texts(tensor: Any) -> list[str]:
    """The texts of a BYTES tensor, a row each."""
    return [one.decode("utf-8") for one in tensor.as_numpy().reshape(-1)]
