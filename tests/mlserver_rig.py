"""MLServer, a KServe v2 server that nobody here wrote, in its own environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from harness.system.storage import cache_root
from tests.ports import free_ports

VERSION = "1.7.1"
INSTALL_TIMEOUT_S = 600
"""Pip reads the metadata of 80 packages: a minute on an idle machine, many on a busy one."""
PYTHON_VARIABLE = "HARNESS_TEST_MLSERVER_PYTHON"
"""Names the Python of an environment that has MLServer already."""
START_TIMEOUT_S = 60

MODEL = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Summing(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        arrays = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        kept = arrays["input_ids"] * arrays["attention_mask"]
        totals = kept.sum(axis=1, keepdims=True).astype(np.float32)
        weights = np.array([WEIGHTS], np.float32)
        logits = LOGITS
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)]
        )
"""

LINEAR = "(totals % 97) * weights"
"""Logits in proportion to each other: weights of one sign make one class of all rows."""
SCATTERED = "(totals * weights) % 97"
"""Logits of whole numbers, of which each row's total makes another class the largest."""


def mlserver_python() -> Path:
    """Its environment's Python, made once and kept in the harness's cache; skips without it."""
    if named := os.environ.get(PYTHON_VARIABLE):
        return Path(named)
    folder = cache_root() / "peers" / f"mlserver-{VERSION}"
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / "installed").is_file():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=60)
            install = [python, "-m", "pip", "install", "-q", f"mlserver=={VERSION}"]
            subprocess.run(
                install, check=True, timeout=INSTALL_TIMEOUT_S, capture_output=True, text=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            failed = isinstance(error, subprocess.CalledProcessError)
            words = str(error.stderr if failed else error).strip().splitlines()[-1:]
            pytest.skip(f"MLServer {VERSION} cannot be installed here: {' '.join(words)}")
        (folder / "installed").touch()
    return python


@contextmanager
def mlserver(
    folder: Path, models: Mapping[str, tuple[float, ...]], logits: str = LINEAR
) -> Iterator[Mapping[str, str]]:
    """Run it with models of these weights; yields its addresses by protocol.

    Args:
        folder: of its files.
        models: weights of each class, by model.
        logits: how they follow from `weights` and the `totals` of each row's token ids, in Python.
    """
    python = mlserver_python()
    http, grpc, metrics = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "debug": False,
                "metrics_port": metrics, "parallel_workers": 0}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, weights in models.items():
        (folder / name).mkdir()
        module = f"summing_{name.replace('-', '_')}"
        source = MODEL.replace("WEIGHTS", ", ".join(map(str, weights))).replace("LOGITS", logits)
        (folder / name / f"{module}.py").write_text(source)
        about = {"name": name, "implementation": f"{module}.Summing"}
        (folder / name / "model-settings.json").write_text(json.dumps(about))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [python.with_name("mlserver"), "start", folder],
            stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment,
        )  # fmt: skip
        try:
            _wait(process, f"http://127.0.0.1:{http}/v2/health/ready", folder / "server.log")
            yield {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"}
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())
