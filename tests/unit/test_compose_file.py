"""compose.yaml without an engine: what can be seen in the file."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OWN = "COMPOSE_PROFILES"
"""Compose reads it itself."""
VARIABLE = re.compile(r"\$\{(\w+)(:-[^}]*)?\}")


def test_only_loopback_is_published_each_port_once() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:${") for port in ports)
    defaults = [re.search(r":-(\d+)\}", port)[1] for port in ports]
    assert len(set(defaults)) == len(defaults)


def test_every_variable_has_a_default_and_stands_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    for name, default in VARIABLE.findall(TEXT):
        assert default, f"{name}: the stack comes up without an .env"
        assert re.search(rf"^#? ?{name}=", example, re.MULTILINE), f"{name} is not in .env.example"


def test_the_example_names_nothing_that_the_file_does_not_take() -> None:
    names = {name for name, _ in VARIABLE.findall(TEXT)}
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#? ?([A-Z_]+)=", example, re.MULTILINE)) - {OWN} == names


def test_no_secret_stands_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", name):
                assert re.fullmatch(r"\$\{\w+:-\}", value)


def test_public_images_are_pinned_to_the_same_release_everywhere() -> None:
    triton = SERVICES["triton"]["image"]
    assert all(re.search(r":v?\d|:local$", service["image"]) for service in SERVICES.values())
    files = (
        "docker/export-gpu.Dockerfile",
        "tests/stack/triton.Dockerfile",
        "deploy/kubernetes/base/triton.yaml",
    )
    for file in files:
        assert triton in (ROOT / file).read_text(), file


def test_every_service_is_limited_unprivileged_and_long_ones_restart() -> None:
    for name, service in SERVICES.items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["cap_drop"] == ["ALL"], name
        if "healthcheck" in service:
            assert service["restart"] == "unless-stopped", name


def test_gpus_are_asked_for_under_profile_gpu_alone() -> None:
    reserving = {
        name for name, one in SERVICES.items() if "reservations" in one["deploy"]["resources"]
    }
    assert reserving == {name for name, one in SERVICES.items() if one.get("profiles") == ["gpu"]}
    assert reserving == {"triton-gpu", "export-gpu"}


def test_files_that_services_mount_and_build_from_are_there() -> None:
    for service in SERVICES.values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("./docker") or (ROOT / source).is_dir()


def test_compose_itself_takes_the_file() -> None:
    command = next(
        (
            found
            for found in (["docker", "compose"], ["docker-compose"])
            if shutil.which(found[0])
            and not subprocess.run([*found, "version"], capture_output=True, check=False).returncode
        ),
        None,
    )
    if command is None:
        pytest.skip("no Docker Compose on this machine")
    done = subprocess.run(
        [*command, "-f", str(ROOT / "compose.yaml"), "--profile", "*", "config", "--services"],
        capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(SERVICES)
