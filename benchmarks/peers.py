"""NVIDIA's load generator, `perf_analyzer`: where to get it, how to start it.

It is a binary inside the wheel `tritonclient==2.50.0`; later wheels are without it. The two
libraries it lacks lie in the embedded server's environment, under the names that the
wheel-repairing tool gave them.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_process import ClientProcess, PeerError
from numpy.typing import NDArray

from harness.serving.embedded.environment import ServerEnvironment
from harness.system.storage import cache_root

PERF_ANALYZER_WHEEL = "tritonclient==2.50.0"
STABLE_WINDOWS = 3
"""It ends when so many windows in a row agree."""

_DOWNLOAD_TIMEOUT_S = 300
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_ANY_DIFFERENCE = "999"


@dataclass(frozen=True)
class PeerLoad:
    """What perf_analyzer shall drive: a closed loop."""

    address: str
    """host:port"""
    protocol: str
    """`grpc` or `http`."""
    model: str
    inputs: Mapping[str, NDArray[Any]]
    """One row of each input, sent over and over."""
    in_flight: int


class PeerRun:
    """A perf_analyzer that drives load now."""

    def __init__(self, process: ClientProcess, report: Path) -> None:
        self._process = process
        self._report = report
        self.pids = (process.pid,)
        self.check = process.check

    def report(self, timeout_s: float) -> dict[str, str]:
        """The row of its CSV report: `Inferences/Second`, `p95 latency` (microseconds), ...

        Raises:
            PeerError: it failed or did not end in time; with its own words.
        """
        said = self._process.wait(timeout_s)
        if not self._report.is_file():
            raise PeerError(f"perf_analyzer wrote no report: {' '.join(said.split())[-400:]}")
        with self._report.open(newline="") as rows:
            return next(csv.DictReader(rows))

    def percentiles_ms(self, timeout_s: float) -> dict[str, float]:
        """p50, p95 and p99 of that report.

        Raises:
            PeerError: it failed or did not end in time; with its own words.
        """
        row = self.report(timeout_s)
        return {f"p{share}": float(row[f"p{share} latency"]) / 1000 for share in (50, 95, 99)}


@dataclass(frozen=True)
class PerfAnalyzer:
    """NVIDIA's perf_analyzer, ready to run."""

    program: Path

    @contextmanager
    def drive_for(self, load: PeerLoad, seconds: float) -> Iterator[PeerRun]:
        """Drive for about so long: exactly three windows, however much they differ."""
        window_ms = int(1000 * seconds / STABLE_WINDOWS)
        limits = ["-p", str(window_ms), "-s", _ANY_DIFFERENCE, "-r", str(STABLE_WINDOWS)]
        with self._start(load, limits) as run:
            yield run

    def measure(self, load: PeerLoad, *, requests: int, timeout_s: float = 60.0) -> dict[str, str]:
        """Send so many requests; the report's row.

        Raises:
            PeerError: it failed or did not end in time; with its own words.
        """
        with self._start(load, ["--request-count", str(requests)]) as run:
            return run.report(timeout_s)

    @contextmanager
    def _start(self, load: PeerLoad, limits: list[str]) -> Iterator[PeerRun]:
        with tempfile.TemporaryDirectory() as folder:
            report, data = Path(folder) / "report.csv", Path(folder) / "inputs.json"
            data.write_text(json.dumps({"data": [described_inputs(load.inputs)]}), "utf-8")
            command = [str(self.program), "-m", load.model, "-u", load.address]
            command += ["-i", load.protocol, "--concurrency-range", str(load.in_flight)]
            command += ["--input-data", str(data), "-f", str(report), *limits]
            library_path = {"LD_LIBRARY_PATH": str(self.program.parent)}
            with ClientProcess(command, variables=library_path) as process:
                yield PeerRun(process, report)


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


def described_inputs(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """One request as perf_analyzer's `--input-data` wants it."""
    return {
        name: {"content": row.ravel().tolist(), "shape": list(row.shape)}
        for name, row in inputs.items()
    }


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
