"""`docker compose up` and what follows, on real containers: `make test-stack`."""

from __future__ import annotations

import json
import urllib.error

import pytest
from conftest import WORKERS
from engine import Stack

from harness import hdr
from harness.runs import read_run

pytestmark = pytest.mark.timeout(1800)

VARIANTS = ("own-teacher-fp32", "own-student-fp32")
COUNT_RECORDS = (
    "import glob, pyarrow.parquet as p; "
    "print(sum(p.read_metadata(one).num_rows for one in glob.glob('{}/*.parquet')))"
)


def start_test(stack: Stack, model: str, *, seconds: int, **form: str) -> None:
    answer = stack.post(
        "LOCUST_PORT",
        "swarm",
        user_count="4",
        spawn_rate="4",
        run_time=f"{seconds}s",
        host="grpc://triton:8001",
        model=model,
        payloads=f"/model_repository/{model}/payloads.npz",
        **form,
    )
    assert answer["success"], answer


def wait_until_stopped(stack: Stack) -> None:
    stack.wait_for(
        lambda: stack.get("LOCUST_PORT", "stats/requests")["state"] == "stopped", "the test's end"
    )


def successes(stack: Stack, model: str) -> int:
    """Triton's own count of requests."""
    statistics = stack.get("TRITON_HTTP_PORT", f"v2/models/{model}/stats")["model_stats"][0]
    return int(statistics["inference_stats"]["success"]["count"])


def answered(stack: Stack) -> int:
    """Requests in the merged histograms of the test that ended."""
    document = stack.get("LOCUST_PORT", "hdr-histograms.json")
    return sum(
        hdr.total(hdr.decode(phase["ok"]["response"]["encoded"])) for phase in document["phases"]
    )


def test_every_variant_is_exported_loaded_and_offered_on_the_page(stack: Stack) -> None:
    for variant in VARIANTS:
        assert stack.text("TRITON_HTTP_PORT", f"v2/models/{variant}/ready") == ""
    page = stack.text("LOCUST_PORT")
    assert all(variant in page for variant in VARIANTS)


def test_only_loopback_ports_are_published(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for container in stack.containers()
        for bindings in json.loads(stack.run("inspect", container))[0]["NetworkSettings"][
            "Ports"
        ].values()
        for binding in bindings or ()
    ]
    assert len(published) >= 5
    assert set(published) == {"127.0.0.1"}


def test_a_test_from_the_page_sums_its_workers_exactly_and_both_sides_are_scraped(
    stack: Stack,
) -> None:
    model = VARIANTS[1]
    before = successes(stack, model)
    start_test(stack, model, seconds=30, records="/tmp/records")
    stack.wait_for(
        lambda: stack.query(f'rate(nv_inference_request_success{{model="{model}"}}[15s]) > 0'),
        "Triton's series while the test runs",
    )
    stack.wait_for(
        lambda: stack.query("sum(rate(harness_requests_total[15s])) > 0"),
        "the harness's series while the test runs",
    )
    wait_until_stopped(stack)
    merged = answered(stack)
    by_worker = [
        int(stack.run("exec", one, "python", "-c", COUNT_RECORDS.format("/tmp/records")))
        for one in stack.containers("locust-worker")
    ]
    assert len(by_worker) == WORKERS
    assert all(by_worker)
    assert sum(by_worker) == merged
    # Beside these there are the preflight's few, which are no part of the test.
    assert 0 <= successes(stack, model) - before - merged < 20


def test_a_test_goes_on_without_prometheus_and_without_one_worker(stack: Stack) -> None:
    start_test(stack, VARIANTS[0], seconds=15)
    stack.wait_for(lambda: stack.get("LOCUST_PORT", "stats/requests")["total_rps"] > 0, "load")
    stack.run("stop", "--time=1", *stack.containers("prometheus"))
    killed = stack.containers("locust-worker")[0]
    stack.run("kill", killed)
    wait_until_stopped(stack)
    document = stack.get("LOCUST_PORT", "hdr-histograms.json")
    assert [one["lost"] for one in document["workers"]].count(True) == 1
    assert "is gone; the test goes on" in stack.logs("locust-master")
    assert answered(stack) > 0
    stack.run("start", killed, *stack.containers("prometheus", all_of_them=True))


def test_the_command_line_measures_the_stack_and_leaves_its_run_outside(stack: Stack) -> None:
    (stack.checkout / "runs").mkdir(exist_ok=True)
    stack.compose(
        *("run", "--rm", "harness", "load", "studies/study.yaml", "--variant", VARIANTS[1]),
        *("--url", "grpc://triton:8001", "--duration", "3", "--out", "runs/from-the-stack"),
    )
    (trial,) = read_run(stack.checkout / "runs" / "from-the-stack").trials
    assert trial.load.requests > 0


def test_a_model_that_cannot_be_loaded_is_named_and_the_others_are_served(stack: Stack) -> None:
    spoil = (
        f"cp -r /model_repository/{VARIANTS[0]} /model_repository/broken && "
        f"sed -i s/{VARIANTS[0]}/broken/ /model_repository/broken/config.pbtxt && "
        "echo no-graph > /model_repository/broken/1/model.onnx"
    )
    stack.compose("run", "--rm", "--no-deps", "--entrypoint", "sh", "export", "-c", spoil)
    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.post("TRITON_HTTP_PORT", "v2/repository/models/broken/load")
    assert "failed to load 'broken'" in refused.value.read().decode()
    assert "broken" in stack.logs("triton")
    assert stack.text("TRITON_HTTP_PORT", f"v2/models/{VARIANTS[0]}/ready") == ""


def test_a_study_that_is_not_there_ends_the_export_with_its_name(stack: Stack) -> None:
    with pytest.raises(AssertionError, match="no-such-study"):
        stack.compose("run", "--rm", "--no-deps", "export", "export", "studies/no-such-study.yaml")
