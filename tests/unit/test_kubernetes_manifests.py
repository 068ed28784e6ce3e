"""deploy/kubernetes: against the API's schemas, and against itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
RELEASES = ("1.29", "1.32")
OPERATORS = "monitoring.coreos.com/v1"
"""Its kinds come with the Prometheus operator: the API's schemas do not know them."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def resources(folder: str) -> list[dict[str, Any]]:
    """What a kustomization names, file by file; patches are parts of resources, and left out."""
    kustomization = documents(FOLDER / folder / "kustomization.yaml")[0]
    found = []
    for name in kustomization["resources"]:
        path = FOLDER / folder / name
        found += documents(path) if path.is_file() else resources(f"{folder}/{name}")
    return found


def pods(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"] for one in of if one["kind"] in {"Deployment", "Job"}]


def containers(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    specs = [pod["spec"] for pod in pods(of)]
    return [one for spec in specs for one in (*spec.get("initContainers", ()), *spec["containers"])]


def validate(resource: dict[str, Any]) -> None:
    if resource["apiVersion"] != OPERATORS:
        for release in RELEASES:
            kubernetes_validate.validate(resource, release, strict=True)


def labels_match(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@pytest.fixture(scope="module")
def base() -> list[dict[str, Any]]:
    return resources("base")


@pytest.fixture(scope="module")
def with_sweep(base: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return base + resources("sweep")


@pytest.mark.parametrize("folder", ["base", "monitoring", "sweep"])
def test_every_resource_is_what_the_api_takes(folder: str) -> None:
    found = resources(folder)
    assert found
    for resource in found:
        validate(resource)


def test_a_misspelt_field_would_be_refused(base: list[dict[str, Any]]) -> None:
    deployment = next(one for one in base if one["kind"] == "Deployment")
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong)


@pytest.mark.parametrize("folder", ["base", "gpu", "monitoring", "sweep"])
def test_kustomize_renders_what_the_api_takes(folder: str) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl, whose kustomize renders the overlays")
    command = ["kubectl", "kustomize", str(FOLDER / folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = [one for one in yaml.safe_load_all(rendered.stdout) if one]
    for resource in found:
        validate(resource)
    assert {one["metadata"].get("namespace", "harness") for one in found} == {"harness"}
    images = [one["image"] for one in containers(found)]
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_the_gpu_overlay_patches_resources_that_the_base_has(base: list[dict[str, Any]]) -> None:
    names = {(one["kind"], one["metadata"]["name"]): one for one in base}
    overlay = documents(FOLDER / "gpu" / "kustomization.yaml")[0]
    for patch in overlay["patches"]:
        (change,) = documents(FOLDER / "gpu" / patch["path"])
        target = names[change["kind"], change["metadata"]["name"]]
        known = {one["name"] for one in containers([target])}
        for container in containers([change]):
            assert container["name"] in known
            assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}


def test_no_container_is_privileged_unlimited_or_root(with_sweep: list[dict[str, Any]]) -> None:
    for pod in pods(with_sweep):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] >= 1000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in containers(with_sweep):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_servers_have_probes_and_services_reach_their_ports(base: list[dict[str, Any]]) -> None:
    for service in (one for one in base if one["kind"] == "Service"):
        (pod,) = (
            pod
            for pod in pods(base)
            if labels_match(service["spec"]["selector"], pod["metadata"]["labels"])
        )
        (container,) = pod["spec"]["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        assert_reached(service, container)


def assert_reached(service: dict[str, Any], container: dict[str, Any]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for port in service["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]


def test_workers_find_a_sweep_and_otherwise_the_page_by_the_same_secret(
    with_sweep: list[dict[str, Any]],
) -> None:
    """In this order; and the Job listens where the Service of that name leads."""
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in with_sweep}
    (worker,) = containers([by_name["Deployment", "locust-worker"]])
    asked = [one.removeprefix("--join=") for one in worker["args"]]
    assert asked == ["sweep:5557", "locust-master:5557"]
    (master,) = containers([by_name["Deployment", "locust-master"]])
    (sweep,) = containers([by_name["Job", "sweep"]])
    assert_reached(by_name["Service", "sweep"], sweep)
    assert "--listen=0.0.0.0:5557" in sweep["args"]
    secrets = [
        env["valueFrom"]["secretKeyRef"]
        for container in (worker, master, sweep)
        for env in container["env"]
        if env["name"] == "HARNESS_JOIN_TOKEN"
    ]
    assert secrets == 3 * [{"name": "join", "key": "token"}]


def test_volumes_are_claimed(with_sweep: list[dict[str, Any]]) -> None:
    claims = {
        one["metadata"]["name"] for one in with_sweep if one["kind"] == "PersistentVolumeClaim"
    }
    for pod in pods(with_sweep):
        volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
        wanted = {
            one["persistentVolumeClaim"]["claimName"]
            for one in volumes.values()
            if "persistentVolumeClaim" in one
        }
        assert wanted <= claims
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()


def test_service_monitors_and_policies_select_what_is_there(
    with_sweep: list[dict[str, Any]],
) -> None:
    services = [one for one in with_sweep if one["kind"] == "Service"]
    for monitor in resources("monitoring"):
        assert monitor["apiVersion"] == OPERATORS
        (service,) = (
            one
            for one in services
            if labels_match(monitor["spec"]["selector"]["matchLabels"], one["metadata"]["labels"])
        )
        names = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= names
    for policy in (one for one in with_sweep if one["kind"] == "NetworkPolicy"):
        chosen = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(labels_match(chosen, pod["metadata"]["labels"]) for pod in pods(with_sweep))
