import errno
from pathlib import Path

import pytest

from harness.errors import ServerEnvironmentError
from harness.serving.embedded import installation
from harness.serving.embedded.installation import check_room, explain, step_count, storage_faults

FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
OFFLINE = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<pip...>: Failed
to establish a new connection: [Errno 111] Connection refused')': /simple/numpy/
ERROR: Could not find a version that satisfies the requirement numpy==1.26.4 (from versions: none)
"""
UNFIT = """\
ERROR: Could not find a version that satisfies the requirement nvidia-pytriton==0.7.0
ERROR: No matching distribution found for nvidia-pytriton==0.7.0
"""


@pytest.mark.parametrize(
    ("output", "message", "next_step"),
    [
        (FULL, "disk full", "HARNESS_CACHE_DIR"),
        (OFFLINE, "no network", "PIP_INDEX_URL"),
        (UNFIT, "no wheel that fits this machine", "--url"),
        ("ERROR: something new", "something new", "repeat the command"),
    ],
)
def test_pips_complaints_are_explained(tmp_path: Path, output, message, next_step):
    error = explain(output, tmp_path / "environment")
    assert message in str(error)
    assert next_step in error.next_step


def test_room_is_checked_before_anything_is_fetched(tmp_path: Path, monkeypatch):
    check_room(tmp_path)
    monkeypatch.setattr(installation, "REQUIRED_BYTES", 1 << 62)
    with pytest.raises(ServerEnvironmentError, match=rf"disk full: .* in {tmp_path} \("):
        check_room(tmp_path)


def test_forbidden_folder_is_named(tmp_path: Path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    folder = blocker / "environment"
    with pytest.raises(ServerEnvironmentError, match="cannot be written"), storage_faults(folder):
        folder.mkdir(parents=True)


def test_full_disk_is_told_from_other_faults(tmp_path: Path):
    with pytest.raises(ServerEnvironmentError, match="disk full"), storage_faults(tmp_path / "e"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_steps_are_the_packages_and_their_installation(tmp_path: Path):
    path = tmp_path / "requirements.txt"
    path.write_text("# a comment\none==1\ntwo==2  # why\n")
    assert step_count(path) == 3


def test_every_requirement_is_pinned():
    lines = Path(installation.__file__).with_name("requirements.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in line for line in packages)
    assert any(line.startswith("numpy==1.") for line in packages)  # numpy 2 breaks Triton's stub
    assert any(line.startswith("onnxruntime==1.19.") for line in packages)
