"""`docker compose up` and what follows, on real containers: `make test-stack`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from load import (
    VARIANTS,
    WORKERS,
    merged,
    recorded,
    start_test,
    successes_at_triton,
    total,
    wait_until_stopped,
)
from stack import Stack

SITE_PACKAGES = "/opt/harness/lib/python3.11/site-packages"


def test_every_variant_is_exported_loaded_and_offered_on_the_page(stack: Stack) -> None:
    for variant in VARIANTS:
        assert stack.text("TRITON_HTTP_PORT", f"v2/models/{variant}/ready") == ""
    page = stack.text("LOCUST_PORT")
    assert all(variant in page for variant in VARIANTS)


def test_only_loopback_ports_are_published(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for container in stack.containers()
        for bindings in stack.inspect(container)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert len(published) >= 5
    assert set(published) == {"127.0.0.1"}


def test_ours_run_as_other_than_root_and_write_nothing_but_their_volumes(stack: Stack) -> None:
    for container in stack.containers("locust-master") + stack.containers("locust-worker"):
        assert stack.engine.run("exec", container, "id", "-u").strip() == "10001"
        refused = stack.engine.run("exec", container, "touch", "/opt/harness/written")
        assert "Read-only file system" in refused
        assert "torch" not in stack.engine.run("exec", container, "ls", SITE_PACKAGES).split()


def test_a_test_from_the_page_sums_its_workers_exactly_and_both_sides_are_scraped(
    stack: Stack, tell: Callable[[str], None]
) -> None:
    model = VARIANTS[1]
    before = successes_at_triton(stack, model)
    start_test(stack, model, seconds=30, records="/tmp/records/sums")
    stack.wait_for(
        lambda: stack.query(f'rate(nv_inference_request_success{{model="{model}"}}[15s]) > 0'),
        "Triton's series while the test runs",
    )
    stack.wait_for(
        lambda: stack.query("sum(rate(harness_requests_total[15s])) > 0"),
        "the harness's series while the test runs",
    )
    wait_until_stopped(stack)
    folder = "/tmp/records/sums"
    stack.wait_for(lambda: len(recorded(stack, folder)) == WORKERS, "every worker's records")
    by_worker = recorded(stack, folder)
    served = successes_at_triton(stack, model) - before
    told = " + ".join(str(one["ok"]) for one in by_worker)
    tell(f"30 s, {WORKERS} workers: {told} = {merged(stack)['ok']} merged; Triton: {served}")
    assert len(by_worker) == WORKERS
    assert all(one["ok"] for one in by_worker)
    assert total(by_worker) == merged(stack)
    # Beside these there are the preflight's few, which are no part of the test.
    assert 0 <= served - merged(stack)["ok"] < 20


def test_rules_and_targets_are_as_prometheus_wants_them(stack: Stack) -> None:
    groups = stack.get("PROMETHEUS_PORT", "api/v1/rules")["data"]["groups"]
    rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 5
    assert {rule["health"] for rule in rules} == {"ok"}
    targets = stack.get("PROMETHEUS_PORT", "api/v1/targets")["data"]["activeTargets"]
    up = {one["labels"]["job"] for one in targets if one["health"] == "up"}
    assert up >= {"triton", "harness", "prometheus"}
