"""How long until a serving configuration is named: ours and Model Analyzer over one search space.

One model, 2 instance counts x 3 maximum batches x load (requests in flight of one row each, over
gRPC); asked is the highest throughput with p95 < 50 ms. Ours is `harness sweep`, as a command, from
its start to its exit code: export checked, server started, quality scored, searched, the winner
measured again. Model Analyzer's is its brute search on a server that already runs; without
`--with-model-analyzer` its row is the recorded one.

    python benchmarks/time_to_answer.py --with-model-analyzer --json rows.json
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from cached_model import rows as token_rows
from client_process import PeerError
from google.protobuf import text_format
from model_analyzer import Answer, SearchSpace, model_analyzer
from peers import perf_analyzer
from rows import Row, run_as_command, show, skip
from tritonclient.grpc import model_config_pb2 as pb

from harness.errors import EXIT_OBJECTIVE_NOT_MET, EXIT_OK, EXIT_UNDECIDED, HarnessError
from harness.serving.embedded.environment import ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton

CHECKPOINT = "reference:topics-teacher"
FAMILY = "topics"
MODEL = "topics-teacher"
VARIANT = f"{MODEL}-fp32"
SPACE = SearchSpace(
    model=VARIANT,
    instance_counts=(1, 2),
    max_batch_sizes=(4, 8, 16),
    concurrencies=(1, 2, 4, 8, 16, 32),
    bound_p95_ms=50.0,
)
QUICK_SPACE = SearchSpace(VARIANT, (1,), (4,), (2, 4), 50.0)
RECORDED = Answer(313.0, 42, "(not recorded)", float("nan"), float("nan"))
"""Its brute search here, as issue 3 states it: 2 cores, the configurations above and the model's
own, each at six concurrencies. Its quick search did not end."""

_TIMEOUT_S = 1200.0


def main() -> int:
    """Ask both and show the rows."""
    options = _parse(sys.argv[1:])
    space = QUICK_SPACE if options.quick else SPACE
    answers: dict[str, Answer] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.without_ours:
            answers["harness"] = _ours(space, folder, options)
        if options.with_model_analyzer:
            try:
                answers["model-analyzer"] = _theirs(space, folder, options)
            except PeerError as reason:
                skip("model-analyzer", reason)
    if not options.with_model_analyzer:
        answers["model-analyzer (recorded)"] = RECORDED
    rows: list[Row] = [{"client": client, **asdict(answer)} for client, answer in answers.items()]
    show("Time to a named configuration (p95 < 50 ms)", rows, options.json)
    return 0


def _ours(space: SearchSpace, folder: Path, options: argparse.Namespace) -> Answer:
    """`harness sweep` on a study that holds nothing but this search."""
    study, run = folder / "study.yaml", folder / "run"
    study.write_text(yaml.safe_dump(_study(space)), "utf-8")
    harness = [sys.executable, "-m", "harness"]
    repository = ["--repository", str(options.repository)]
    # Training and export are no part of the search, neither here nor for Model Analyzer.
    export = [*harness, "export", str(study), *repository]
    subprocess.run(export, capture_output=True, timeout=_TIMEOUT_S, check=True)
    command = [*harness, "sweep", str(study), "--out", str(run), *repository]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    seconds = time.monotonic() - started
    if done.returncode not in {EXIT_OK, EXIT_OBJECTIVE_NOT_MET, EXIT_UNDECIDED}:
        raise PeerError(f"harness sweep ended with {done.returncode}: {done.stderr[-500:]}")
    verdict = json.loads((run / "verdict.json").read_text("utf-8"))
    with (run / "trials.csv").open(newline="") as file:
        trials = {row["trial_id"]: row for row in csv.DictReader(file)}
    recommended = verdict["recommended"]
    if recommended is None:
        raise PeerError(f"harness sweep recommends nothing: {verdict['decision']}")
    best = trials[recommended if isinstance(recommended, str) else recommended["trial_id"]]
    return Answer(
        seconds=seconds,
        trials=len(trials),
        recommended=(
            f"max batch {best['max_batch_size']}, instances {best['instance_count']}, "
            f"{best['concurrency']} in flight"
        ),
        throughput_inferences_per_s=float(best["throughput_inferences_per_s"]),
        latency_p95_ms=float(best["latency_p95_ms"]),
    )


def _study(space: SearchSpace) -> dict[str, Any]:
    return {
        "name": "time-to-answer",
        "objective": f"p95 < {space.bound_p95_ms:g} ms",
        "families": [
            {
                "name": FAMILY,
                "task": {
                    "kind": "sequence-classification",
                    "data": {"source": "reference", "name": FAMILY},
                    "max_length": 32,
                    "samples": 300,
                },
                "models": [{"name": MODEL, "role": "teacher", "checkpoint": CHECKPOINT}],
            }
        ],
        "serving": {
            "max_batch_sizes": list(space.max_batch_sizes),
            "queue_delays_us": [0],
            "instance_counts": list(space.instance_counts),
        },
        "traffic": {
            "protocols": ["grpc"],
            "client_batch_sizes": [1],
            "concurrencies": list(space.concurrencies),
            "duration_s": 3.0,
            # Latency over rate is measured after the verdict; Model Analyzer has no such thing.
            "saturation_shares": [],
        },
    }


def _theirs(space: SearchSpace, folder: Path, options: argparse.Namespace) -> Answer:
    if not (options.repository / space.model).is_dir():
        raise HarnessError(
            f"{options.repository} has no {space.model}",
            next_step="harness export studies/reference.yaml",
        )
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    peer = model_analyzer(perf_analyzer(environment))
    repository = folder / "models"
    _copy_without_warm_up(options.repository / space.model, repository / space.model)
    row = {name: array[0] for name, array in token_rows(1).items()}
    with EmbeddedTriton(environment, repository, log_file=folder / "triton.log") as server:
        return peer.search(
            server.endpoint, repository, space, row, folder=folder, timeout_s=_TIMEOUT_S
        )


def _copy_without_warm_up(model: Path, copy: Path) -> None:
    """Model Analyzer changes the maximum batch and keeps the rest: a warm-up of 16 rows fails."""
    shutil.copytree(model, copy)
    config = text_format.Parse((copy / "config.pbtxt").read_text("utf-8"), pb.ModelConfig())
    config.ClearField("model_warmup")
    (copy / "config.pbtxt").write_text(text_format.MessageToString(config), "utf-8")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--with-model-analyzer", action="store_true", help="run it: 5 min or more")
    parser.add_argument("--without-ours", action="store_true")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--quick", action="store_true", help="1 configuration, 2 and 4 in flight")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
