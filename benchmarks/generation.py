"""What continuous batching gains, and what serving costs: tokens a second of a generating model.

A Llama-shaped model of random weights writes answers of one length. Served: so many streams over
gRPC, each asks again as soon as it is answered. Bare: the same decoder in a loop on the same ONNX
Runtime, at the same batch and threads. Both take turns, so that a machine that slows down slows
both.

    python benchmarks/generation.py --json rows.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from rows import Row, run_as_command, show

from harness.errors import ServerError
from harness.export.checkpoint import open_checkpoint
from harness.export.generation.variants import GeneratorJob, export_generators
from harness.serving.embedded.environment import ServerEnvironment, ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.generation.repository import (
    GenerationServing,
    generation_override,
    write_generator,
)
from harness.study import Model
from harness.types import ModelVariant
from harness.types.generation import (
    INPUT_IDS,
    SAMPLING_PARAMETERS,
    TOKEN_IDS,
    SamplingParameters,
)

PROMPT_TOKENS, ANSWER_TOKENS = 16, 112
CONTEXT = 256
WARM_UP_S = 1.0
_BARE_DECODER = Path(__file__).with_name("bare_decoder.py")


def main() -> int:
    """Measure each number of streams and show the rows."""
    options = _parse(sys.argv[1:])
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        variant = _variant(Path(folder), options)
        serving = GenerationServing(slots=max(options.streams), threads=options.threads)
        write_generator(variant, serving)
        log = Path(folder) / "triton.log"
        with (
            EmbeddedTriton(environment, variant.path.parent, log_file=log) as server,
            TritonClient(server.endpoint) as client,
            _bare_decoder(environment, variant, options.threads) as bare,
        ):
            client.load(variant.name, generation_override(variant, serving))
            rows = _measure(server.endpoint.grpc, variant.name, bare, options)
    show(f"Tokens per second (medians of {options.rounds} rounds)", rows, options.json)
    return 0


def _measure(
    address: str, model: str, bare: Callable[[int, float], float], options: argparse.Namespace
) -> list[Row]:
    served: dict[int, list[float]] = {streams: [] for streams in options.streams}
    alone: dict[int, list[float]] = {streams: [] for streams in options.streams}
    for _ in range(options.rounds):
        for streams in options.streams:
            alone[streams].append(bare(streams, options.seconds))
            served[streams].append(_served_per_s(address, model, streams, options.seconds))
    least = min(options.streams)
    return [
        {
            "streams": streams,
            "served_tokens_per_s": statistics.median(served[streams]),
            "bare_tokens_per_s": statistics.median(alone[streams]),
            "served_over_bare": _ratio(served[streams], alone[streams]),
            f"served_over_{least}_streams": _ratio(served[streams], served[least]),
            f"bare_over_{least}_streams": _ratio(alone[streams], alone[least]),
        }
        for streams in options.streams
    ]


def _ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def _served_per_s(address: str, model: str, streams: int, seconds: float) -> float:
    """Tokens a second that so many streams get together, after a warm-up."""
    client = triton.InferenceServerClient(address)
    parameters = SamplingParameters(max_tokens=ANSWER_TOKENS, ignore_eos=True).to_json()
    ids = np.arange(5, 5 + PROMPT_TOKENS, dtype=np.int32)
    inputs = [
        _tensor(INPUT_IDS, ids, "INT32"),
        _tensor(SAMPLING_PARAMETERS, np.array([parameters.encode()]), "BYTES"),
    ]
    outputs = [triton.InferRequestedOutput(TOKEN_IDS)]
    free = threading.Semaphore(streams)
    tokens, failures, left = [0], [], threading.Event()

    def heard(result: Any, error: Any) -> None:
        if error is not None:
            if not left.is_set():
                failures.append(error)
            free.release()
            return
        response = result.get_response()
        tokens[0] += len(response.outputs)
        if response.parameters["triton_final_response"].bool_param:
            free.release()

    def ask_until(end: float) -> None:
        while (rest := end - time.perf_counter()) > 0 and not failures:
            if free.acquire(timeout=rest):
                client.async_stream_infer(model, inputs, outputs=outputs)

    client.start_stream(heard)
    try:
        ask_until(time.perf_counter() + WARM_UP_S)
        before, began = tokens[0], time.perf_counter()
        ask_until(began + seconds)
        rate = (tokens[0] - before) / (time.perf_counter() - began)
    finally:
        left.set()
        client.stop_stream(cancel_requests=True)
        client.close()
    if failures:
        raise ServerError(f"a stream failed: {failures[0]}")
    return rate


def _tensor(name: str, values: Any, kind: str) -> triton.InferInput:
    tensor = triton.InferInput(name, values.shape, kind)
    tensor.set_data_from_numpy(values)
    return tensor


@contextmanager
def _bare_decoder(
    environment: ServerEnvironment, variant: ModelVariant, threads: int
) -> Iterator[Callable[[int, float], float]]:
    """What measures the bare loop: tokens a second of so many rows, over so many seconds."""
    command = [str(environment.python), "-I", str(_BARE_DECODER), str(variant.path / "1")]
    command += map(str, (threads, PROMPT_TOKENS, ANSWER_TOKENS))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101

        def measure(rows: int, seconds: float) -> float:
            print(rows, seconds, file=process.stdin, flush=True)
            return float(process.stdout.readline())  # type: ignore[union-attr]

        try:
            yield measure
        finally:
            process.stdin.close()


def _variant(folder: Path, options: argparse.Namespace) -> ModelVariant:
    """A model of random weights, exported; or the checkpoint that is named."""
    checkpoint = options.checkpoint or _random_checkpoint(folder / "checkpoint", options)
    model = Model.model_validate(
        {
            "name": "writer",
            "role": "student",
            "checkpoint": str(checkpoint),
            "precisions": [options.precision],
        }
    )
    opened = open_checkpoint(model, folder=None)
    job = GeneratorJob(model, opened, "family", folder / "repository", context=CONTEXT)
    return export_generators(job, lambda step: print(step.note, file=sys.stderr))[0]


def _random_checkpoint(folder: Path, options: argparse.Namespace) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = {f"w{number}": number for number in range(options.vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))  # noqa: S106  (a word)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    made: Any = PreTrainedTokenizerFast
    tokenizer = made(tokenizer_object=backend, unk_token="w0")  # noqa: S106
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=3 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // 64,
        num_key_value_heads=max(1, options.width // 192),
        max_position_embeddings=CONTEXT,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a folder; default: random weights")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384, help="a multiple of 192")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the rows there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
