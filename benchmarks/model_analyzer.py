"""NVIDIA's Model Analyzer, the peer that searches serving configurations.

It lives in its own environment in the cache, drives the same perf_analyzer as the other
benchmarks, and talks to an embedded Triton that serves the model's own repository (its 'remote'
mode: each configuration is loaded by name, with an override).
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from client_process import PeerError
from numpy.typing import NDArray
from peers import PerfAnalyzer, described_inputs

from harness.serving.endpoint import Endpoint
from harness.system.storage import cache_root

MODEL_ANALYZER = "triton-model-analyzer==1.58.0"

_INSTALL_TIMEOUT_S = 600
_REPORT = "metrics-model-inference.csv"
_FIELDS = [
    "model_config_path", "max_batch_size", "instance_group", "concurrency", "satisfies_constraints",
    "perf_throughput", "perf_latency_p95",
]  # fmt: skip


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, by both sides."""

    model: str
    instance_counts: Sequence[int]
    max_batch_sizes: Sequence[int]
    concurrencies: Sequence[int]
    bound_p95_ms: float


@dataclass(frozen=True)
class Answer:
    """What a search came to."""

    seconds: float
    trials: int
    recommended: str
    throughput_inferences_per_s: float
    latency_p95_ms: float


@dataclass(frozen=True)
class ModelAnalyzer:
    """NVIDIA's model-analyzer, ready to run."""

    program: Path
    perf_analyzer: PerfAnalyzer

    def search(
        self,
        endpoint: Endpoint,
        repository: Path,
        space: SearchSpace,
        row: Mapping[str, NDArray[Any]],
        *,
        folder: Path,
        timeout_s: float,
    ) -> Answer:
        """Its brute search over the space, by gRPC, one row per request.

        Args:
            endpoint: Of a Triton under explicit model control that serves `repository`.
            repository: Holds the model.
            space: What to search.
            row: One row of each input.
            folder: For its files.
            timeout_s: After which it is killed.

        Raises:
            PeerError: it failed or did not end in time; with its own last words.
        """
        (folder / "inputs.json").write_text(json.dumps({"data": [described_inputs(row)]}), "utf-8")
        configuration = folder / "model-analyzer.yaml"
        configuration.write_text(
            yaml.safe_dump(_configuration(endpoint, repository, space, folder, self)), "utf-8"
        )
        started = time.monotonic()
        self._run(configuration, timeout_s)
        seconds = time.monotonic() - started
        reports = sorted(folder.rglob(_REPORT))
        if not reports:
            raise PeerError(f"model-analyzer wrote no {_REPORT}")
        with reports[0].open(newline="") as file:
            return _best(list(csv.DictReader(file)), seconds, space.bound_p95_ms)

    def _run(self, configuration: Path, timeout_s: float) -> None:
        libraries = {"LD_LIBRARY_PATH": str(self.perf_analyzer.program.parent)}
        try:
            done = subprocess.run(
                [str(self.program), "profile", "-f", str(configuration)],
                env={**os.environ, **libraries},
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"model-analyzer: not done in {timeout_s:g} s") from error
        if done.returncode != 0:
            words = " ".join((done.stdout + done.stderr).split())[-400:]
            raise PeerError(f"model-analyzer ended with status {done.returncode}: {words}")


def model_analyzer(program: PerfAnalyzer) -> ModelAnalyzer:
    """Model Analyzer from the cache, installed from the package index the first time (700 MB).

    Raises:
        PeerError: it cannot be installed here.
    """
    folder = cache_root() / "peers" / MODEL_ANALYZER
    found = folder / "bin" / "model-analyzer"
    if not found.exists():
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", MODEL_ANALYZER]
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], pip):
            try:
                subprocess.run(
                    command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=True
                )
            except subprocess.CalledProcessError as error:
                last_line = (error.stderr.strip().splitlines() or [""])[-1]
                raise PeerError(f"model-analyzer cannot be installed: {last_line}") from error
            except subprocess.TimeoutExpired as error:
                raise PeerError("model-analyzer cannot be installed: no answer") from error
    return ModelAnalyzer(found, program)


def _configuration(
    endpoint: Endpoint, repository: Path, space: SearchSpace, folder: Path, peer: ModelAnalyzer
) -> dict[str, Any]:
    groups = [[{"kind": "KIND_CPU", "count": count}] for count in space.instance_counts]
    profiled = {
        "cpu_only": True,
        "parameters": {"concurrency": list(space.concurrencies), "batch_sizes": [1]},
        "perf_analyzer_flags": {"input-data": str(folder / "inputs.json")},
        "model_config_parameters": {
            "max_batch_size": list(space.max_batch_sizes),
            "instance_group": groups,
        },
    }
    return {
        "model_repository": str(repository),
        "output_model_repository_path": str(folder / "variants"),
        "checkpoint_directory": str(folder / "checkpoints"),
        "export_path": str(folder / "export"),
        "triton_launch_mode": "remote",
        "triton_http_endpoint": endpoint.http,
        "triton_grpc_endpoint": endpoint.grpc,
        "triton_metrics_url": endpoint.metrics,
        "client_protocol": "grpc",
        "perf_analyzer_path": str(peer.perf_analyzer.program),
        "run_config_search_mode": "brute",
        "gpus": [],
        "skip_summary_reports": False,
        "skip_detailed_reports": True,
        "inference_output_fields": _FIELDS,
        "objectives": {"perf_throughput": 10},
        "constraints": {"perf_latency_p95": {"max": space.bound_p95_ms}},
        "profile_models": {space.model: profiled},
    }


def _best(rows: Sequence[Mapping[str, str]], seconds: float, bound_p95_ms: float) -> Answer:
    """The fastest row of its report within the bound."""
    meeting = [row for row in rows if float(row["p95 Latency (ms)"]) <= bound_p95_ms]
    if not meeting:
        raise PeerError(f"none of model-analyzer's {len(rows)} measurements meets the bound")
    best = max(meeting, key=lambda row: float(row["Throughput (infer/sec)"]))
    return Answer(
        seconds=seconds,
        trials=len(rows),
        recommended=(
            f"max batch {best['Max Batch Size']}, instances {best['Instance Group']}, "
            f"{best['Concurrency']} in flight"
        ),
        throughput_inferences_per_s=float(best["Throughput (infer/sec)"]),
        latency_p95_ms=float(best["p95 Latency (ms)"]),
    )
