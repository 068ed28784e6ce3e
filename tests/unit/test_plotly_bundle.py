"""plotly.js comes with an installation: from npm where it is, else from the wheel of `plotly`."""

import gzip
import hashlib
import importlib.util
import io
import sys
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from harness.errors import EnvironmentFailure
from harness.report import page

ROOT = Path(__file__).parents[2]
SCRIPT = b"/* plotly.js, cartesian */"


@pytest.fixture
def build(monkeypatch, tmp_path):
    """hatch_build.py, with a stand-in for the build tool that is only there while one builds."""
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = dict  # subscriptable, and can be a base class
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / module.TARGET).parent.mkdir(parents=True)
    return module


def packed(content):
    """An npm package with the bundle in it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/plotly-cartesian.min.js")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def npm(build, monkeypatch, content):
    def run(command, cwd, **options):
        assert command[1:] == ["pack", "--silent", build.PARTIAL]
        (Path(cwd) / "plotly.tgz").write_bytes(packed(content))

    monkeypatch.setattr(build.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(build.subprocess, "run", run)


def bundle(build, tmp_path):
    build.make_bundle(tmp_path)
    return gzip.decompress((tmp_path / build.TARGET).read_bytes())


def test_npm_s_partial_bundle_is_taken_by_its_digest(build, monkeypatch, tmp_path):
    npm(build, monkeypatch, SCRIPT)
    monkeypatch.setattr(build, "SHA256", hashlib.sha256(SCRIPT).hexdigest())
    assert bundle(build, tmp_path) == SCRIPT


def test_a_file_with_another_digest_ends_the_build(build, monkeypatch, tmp_path):
    npm(build, monkeypatch, SCRIPT)
    with pytest.raises(SystemExit, match="its digest differs"):
        build.make_bundle(tmp_path)
    assert not (tmp_path / build.TARGET).exists()


def test_without_npm_the_full_bundle_of_the_wheel_is_taken(build, monkeypatch, tmp_path):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    wheel = tmp_path / "plotly"
    (wheel / "package_data").mkdir(parents=True)
    (wheel / "package_data" / "plotly.min.js").write_bytes(b"/* all of it */")
    found = SimpleNamespace(origin=str(wheel / "__init__.py"))
    monkeypatch.setattr(build, "find_spec", lambda name: found)
    assert bundle(build, tmp_path) == b"/* all of it */"


def test_a_bundle_that_is_there_is_left_alone(build, monkeypatch, tmp_path):
    (tmp_path / build.TARGET).write_bytes(b"made before")
    npm(build, monkeypatch, SCRIPT)
    build.make_bundle(tmp_path)
    assert (tmp_path / build.TARGET).read_bytes() == b"made before"


def test_an_installation_without_any_bundle_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "_TEMPLATES", tmp_path)
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match=r"plotly\.js") as caught:
        page.compressed_plotly()
    assert "pip install" in caught.value.next_step


@pytest.mark.parametrize("image", sorted((ROOT / "docker").glob("*.Dockerfile")))
def test_an_image_that_installs_the_harness_has_what_its_build_needs(image):
    text = image.read_text()
    if "COPY harness harness" in text:
        assert "hatch_build.py" in text
        assert "!hatch_build.py" in (ROOT / ".dockerignore").read_text().splitlines()
