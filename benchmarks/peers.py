"""Peers that the benchmarks run beside the harness: where to get them, how to start them.

`perf_analyzer`, NVIDIA's load generator, is a binary inside the wheel `tritonclient==2.50.0`; later
wheels are without it. The two libraries it lacks lie in the embedded server's environment, under
the names that the wheel-repairing tool gave them.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.cache import cache_root
from harness.errors import EnvironmentFailure
from harness.serving.environment import ServerEnvironment

PERF_ANALYZER_WHEEL = "tritonclient==2.50.0"

_DOWNLOAD_TIMEOUT_S = 300
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


class PeerError(EnvironmentFailure):
    """A peer cannot be had here, or failed; its contender is skipped with this line."""


@dataclass(frozen=True)
class PerfAnalyzer:
    """NVIDIA's perf_analyzer, ready to run."""

    program: Path

    def measure(
        self,
        grpc: str,
        model: str,
        *,
        shapes: Mapping[str, int],
        concurrency: int,
        requests: int,
        timeout_s: float = 60.0,
    ) -> dict[str, str]:
        """Drive a model over gRPC with random inputs, one request a slot at a time.

        Args:
            grpc: host:port of the server.
            model: The model's name.
            shapes: Length of each input's open dimension.
            concurrency: Requests in flight.
            requests: How many to measure.
            timeout_s: After which it is killed: it has been seen to run away.

        Returns:
            The row of its CSV report: `Inferences/Second`, `p95 latency` (microseconds), ...

        Raises:
            PeerError: it failed or did not end in time; with its own words.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.csv"
            command = [str(self.program), "-m", model, "-u", grpc, "-i", "grpc"]
            for name, length in shapes.items():
                command += ["--shape", f"{name}:{length}"]
            command += ["--concurrency-range", str(concurrency), "--request-count", str(requests)]
            command += ["-f", str(report)]
            environment = {**os.environ, "LD_LIBRARY_PATH": str(self.program.parent)}
            try:
                done = subprocess.run(
                    command,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise PeerError(f"perf_analyzer: not done in {timeout_s} s") from error
            if done.returncode != 0:
                raise PeerError(f"perf_analyzer failed: {done.stdout}{done.stderr}")
            with report.open(newline="") as rows:
                return next(csv.DictReader(rows))


def perf_analyzer(environment: ServerEnvironment) -> PerfAnalyzer:
    """perf_analyzer from the cache, fetched from the package index the first time (14 MB).

    Raises:
        PeerError: no network, or this machine cannot run it.
    """
    folder = cache_root() / "peers" / PERF_ANALYZER_WHEEL
    program = folder / "perf_analyzer"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_program(program)
    libraries = [Path(part) for part in environment.library_path.split(":")]
    for name, pattern in _LIBRARIES.items():
        found = next((path for part in libraries for path in sorted(part.glob(pattern))), None)
        if found is None:
            raise PeerError(f"perf_analyzer needs {name}; no {pattern} in {libraries[0]}")
        link = folder / name
        link.unlink(missing_ok=True)  # it may point into an environment of another release
        link.symlink_to(found)
    return PerfAnalyzer(program)


def _fetch_program(program: Path) -> None:
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, PERF_ANALYZER_WHEEL]
        try:
            subprocess.run(
                command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=True
            )
        except subprocess.CalledProcessError as error:
            last_line = (error.stderr.strip().splitlines() or [""])[-1]
            raise PeerError(f"perf_analyzer cannot be fetched: {last_line}") from error
        except subprocess.TimeoutExpired as error:
            raise PeerError("perf_analyzer cannot be fetched: no answer") from error
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            member = next((n for n in archive.namelist() if n.endswith("/bin/perf_analyzer")), None)
            if member is None:
                raise PeerError(f"{wheel.name} holds no perf_analyzer for this machine")
            unpacked = Path(folder) / "perf_analyzer"
            unpacked.write_bytes(archive.read(member))
        unpacked.chmod(0o755)
        unpacked.rename(program)
