"""What serving costs: the embedded server's saturated throughput over bare ONNX Runtime's.

Both sides run the same file with the same ONNX Runtime, batch and threads, in alternation, so that
a machine that slows down slows both. Two ways of asking are measured: requests that fill a batch
each (`client_batch_size` = `batch`), and single inferences that Triton's dynamic batcher joins.

    python benchmarks/server_overhead.py --json rows.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from rows import Row, run_as_command, show
from saturation import answers_per_s, encode_request
from tritonclient.grpc import model_config_pb2 as pb

from harness.errors import HarnessError
from harness.serving.embedded.environment import ServerEnvironment, ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient

DEFAULT_MODELS = ("topics-teacher-fp32", "topics-student-fp32")
WARM_UP_S = 0.5
BATCHES_IN_FLIGHT = 6
"""Enough that the queue holds a whole batch whenever one ends, on a busy machine too."""

_BARE_SESSION = Path(__file__).with_name("bare_session.py")


@dataclass(frozen=True)
class Settings:
    """What every model is measured with."""

    batch: int
    threads: int
    tokens: int
    rounds: int
    seconds: float


def main() -> int:
    """Measure each model and show the rows."""
    options = _parse(sys.argv[1:])
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        repository, models = _models(options, Path(folder))
        log_file = Path(folder) / "triton.log"
        with (
            EmbeddedTriton(environment, repository, log_file=log_file) as server,
            TritonClient(server.endpoint) as client,
        ):
            for model in models:
                for threads in options.threads:
                    settings = Settings(
                        options.batch, threads, options.tokens, options.rounds, options.seconds
                    )
                    rows += _measure(environment, client, repository / model, settings)
    show(
        f"Served over bare throughput (ratio: median of {options.rounds} rounds)",
        rows,
        options.json,
    )
    return 0


def _measure(
    environment: ServerEnvironment, client: TritonClient, model: Path, settings: Settings
) -> Iterator[Row]:
    """One row for each way of asking."""
    config = _serving_config(model, settings)
    client.load(model.name, json_format.MessageToJson(config, preserving_proto_field_name=True))
    names = [tensor.name for tensor in config.input]
    with tempfile.TemporaryDirectory() as folder:
        inputs_file = Path(folder) / "inputs.npz"
        arrays: dict[str, Any] = _inputs(names, settings.batch, settings.tokens)
        np.savez(inputs_file, **arrays)
        command = [str(environment.python), "-I", str(_BARE_SESSION)]
        command += [str(model / "1" / "model.onnx"), str(inputs_file), str(settings.threads)]
        with _bare_session(command) as bare_runs_per_s:
            for client_batch_size in sorted({settings.batch, 1}, reverse=True):
                inputs = _inputs(names, client_batch_size, settings.tokens)
                yield _compare(client, model.name, inputs, settings, bare_runs_per_s)
    client.unload(model.name)


def _compare(
    client: TritonClient,
    model: str,
    inputs: dict[str, NDArray[np.int64]],
    settings: Settings,
    bare_runs_per_s: Callable[[float], float],
) -> Row:
    address = client.endpoint.http
    request = encode_request(address, model, inputs)
    client_batch_size = len(next(iter(inputs.values())))
    in_flight = BATCHES_IN_FLIGHT * settings.batch // client_batch_size
    bare, served = [], []
    before = client.statistics(model)
    for _ in range(settings.rounds):
        bare.append(settings.batch * bare_runs_per_s(settings.seconds))
        answers = answers_per_s(
            address, request, in_flight=in_flight, warmup_s=WARM_UP_S, seconds=settings.seconds
        )
        served.append(client_batch_size * answers)
    after = client.statistics(model)
    ratios = [ours / theirs for ours, theirs in zip(served, bare, strict=True)]
    inferences = after["inference_count"] - before["inference_count"]
    return {
        "model": model,
        "batch": settings.batch,
        "threads": settings.threads,
        "client_batch_size": client_batch_size,
        "executed_batch_mean": inferences / (after["execution_count"] - before["execution_count"]),
        "bare_inferences_per_s": statistics.median(bare),
        "served_inferences_per_s": statistics.median(served),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }


@contextmanager
def _bare_session(command: list[str]) -> Iterator[Callable[[float], float]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None  # noqa: S101  (both are pipes; tells the type checker)
        assert process.stdout is not None  # noqa: S101
        stdin, stdout = process.stdin, process.stdout

        def runs_per_s(seconds: float) -> float:
            print(seconds, file=stdin, flush=True)
            return float(stdout.readline())

        try:
            yield runs_per_s
        finally:
            stdin.close()


def _serving_config(model: Path, settings: Settings) -> pb.ModelConfig:
    """The repository's own configuration, with our batch and threads and one instance."""
    config: pb.ModelConfig = text_format.Parse(
        (model / "config.pbtxt").read_text("utf-8"), pb.ModelConfig()
    )
    config.max_batch_size = settings.batch
    config.ClearField("model_warmup")
    config.ClearField("instance_group")
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    config.dynamic_batching.max_queue_delay_microseconds = 0
    config.parameters["intra_op_thread_count"].string_value = str(settings.threads)
    return config


def _inputs(names: list[str], rows: int, tokens: int) -> dict[str, NDArray[np.int64]]:
    """Random token numbers that every vocabulary has; the other inputs are masks and zeros."""
    ids = np.random.default_rng(0).integers(5, 200, (rows, tokens), dtype=np.int64)
    filled = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {name: filled.get(name, np.zeros_like(ids)) for name in names}


def _models(options: argparse.Namespace, folder: Path) -> tuple[Path, list[str]]:
    if options.random:
        from random_models import write_random_models

        return folder / "models", write_random_models(folder / "models")
    missing = [name for name in options.model if not (options.repository / name).is_dir()]
    if missing:
        raise HarnessError(
            f"{options.repository} has no {', '.join(missing)}",
            next_step="harness export studies/reference.yaml, or --random for untrained models",
        )
    return options.repository, options.model


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", nargs="+", default=list(DEFAULT_MODELS))
    parser.add_argument("--random", action="store_true", help="untrained models of the same shapes")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="a session's threads")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
