"""Our calls of TensorRT against its real bindings: every name, argument and type, by mypy.

The wheel is the one of the release in NVIDIA's Triton image. What the calls do is not seen here:
that takes a GPU.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tensorrt_bindings_copy import copy_bindings

OURS = Path(__file__).parents[2] / "harness" / "export" / "tensorrt.py"
WRITE_STUBS = """
import os, sys
sys.setdlopenflags(os.RTLD_LAZY)
from pybind11_stubgen import main
main(["tensorrt", "--output-dir", sys.argv[1], "--ignore-all-errors"])
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> Path:
    """A folder with the stubs of the real bindings, as mypy looks for them."""
    found = importlib.util.find_spec("tensorrt_bindings")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the wheel tensorrt-cu12-bindings is not installed")
    folder = tmp_path_factory.mktemp("bindings")
    copy_bindings(Path(found.submodule_search_locations[0]), folder)
    stubs = tmp_path_factory.mktemp("stubs")
    subprocess.run(
        [sys.executable, "-c", WRITE_STUBS, str(stubs)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=True,
        capture_output=True,
        timeout=120,
    )
    stub = stubs / "tensorrt" / "tensorrt.pyi"
    stub.write_text("\n".join(map(legal, stub.read_text().splitlines())))
    return stubs


def legal(line: str) -> str:
    """A line of the stub as Python takes it: C++ knows an `in`, and defaults before none."""
    line = re.sub(r"\bin: ", "in_: ", line)
    if not line.lstrip().startswith("def "):
        return line
    try:
        ast.parse(f"{line.strip()} ...")
    except SyntaxError:
        return re.sub(r" = \w+", "", line)
    return line


CONFIGURATION = """
[mypy]
strict = true
ignore_missing_imports = true
follow_imports = silent
# Without the types of PyTorch, which take most of the time, a comment that they need is unused.
warn_unused_ignores = false

[mypy-torch.*,transformers.*]
follow_imports = skip
"""


def errors_of(sources: Sequence[Path], stubs: Path, scratch: Path) -> dict[Path, list[str]]:
    """What mypy says of each file, with TensorRT's types instead of Any."""
    configuration = scratch / "mypy.ini"
    configuration.write_text(CONFIGURATION)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", f"--config-file={configuration}"),
            *(f"--cache-dir={os.devnull}", *map(str, sources)),
        ],
        env={**os.environ, "MYPYPATH": f"{stubs}{os.pathsep}{OURS.parents[2]}"},
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    return {
        source: [one for one in errors if Path(one.split(":")[0]).name == source.name]
        for source in sources
    }


MISSPELT = {
    "create_builder_config(": "create_build_config(",
    "ignore_mismatch=False": "ignore_mismatches=False",
    "BuilderFlag.TF32": "BuilderFlag.TF23",
    "trt.OnnxParser(network, log)": "trt.OnnxParser(log)",
    "execute_async_v3(stream.cuda_stream)": "execute_async_v3()",
}


def test_every_call_of_tensorrt_is_one_that_its_bindings_have(stubs, tmp_path):
    assert "class Builder" in (stubs / "tensorrt" / "tensorrt.pyi").read_text()
    text = OURS.read_text()
    spoilt = {}
    for number, (right, wrong) in enumerate(MISSPELT.items()):
        assert right in text
        path = tmp_path / f"spoilt_{number}.py"
        path.write_text(text.replace(right, wrong))
        spoilt[path] = wrong
    found = errors_of([OURS, *spoilt], stubs, tmp_path)
    assert found[OURS] == []
    for path, wrong in spoilt.items():
        lines = {int(one.split(":")[1]) for one in found[path]}
        (line,) = (n for n, one in enumerate(path.read_text().splitlines(), 1) if wrong in one)
        assert lines == {line}, f"{wrong} went unseen, or another call with it"
