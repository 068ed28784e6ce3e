"""What fails in a stack, and where it says so; each beside a load that goes on, or before any."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.error

import pytest
from load import (
    VARIANTS,
    WORKERS,
    histograms,
    merged,
    recorded,
    serving,
    start_test,
    state,
    successes_at_triton,
    total,
    wait_until_stopped,
)
from stack import Stack


def wait_for_load(stack: Stack) -> None:
    """Until the test that was just started has answers; the one before it is over."""
    stack.wait_for(
        lambda: (shown := serving(stack))["running"] and shown["totals"]["requests"] > 20, "load"
    )


def test_a_worker_killed_mid_test_is_named_and_its_trial_is_invalid(stack: Stack) -> None:
    start_test(stack, VARIANTS[0], seconds=12)
    wait_for_load(stack)
    killed = stack.containers("locust-worker")[0]
    stack.engine.do("kill", killed)
    wait_until_stopped(stack)
    try:
        assert [one["lost"] for one in histograms(stack)["workers"]].count(True) == 1
        assert "is gone; the test goes on" in stack.logs("locust-master")
        assert merged(stack)["ok"] > 20
        verdict = serving(stack)["verdict"]
        assert verdict["decision"] == "invalid"
        assert any("was lost" in one for one in verdict["reasons"])
    finally:
        stack.engine.do("start", killed)
        stack.wait_for(lambda: workers_ready(stack) == WORKERS, "the worker's return")


def workers_ready(stack: Stack) -> int:
    found = stack.get("LOCUST_PORT", "stats/requests")["workers"]
    return sum(one["state"] in {"ready", "running"} for one in found)


def test_a_test_goes_on_without_prometheus(stack: Stack) -> None:
    (prometheus,) = stack.containers("prometheus")
    start_test(stack, VARIANTS[0], seconds=10, records="/tmp/records/unwatched")
    wait_for_load(stack)
    stack.engine.do("stop", "--time=5", prometheus)
    try:
        with pytest.raises(OSError):  # noqa: PT011  (which one depends on the engine)
            stack.query("up")
        wait_until_stopped(stack)
        assert total(recorded(stack, "/tmp/records/unwatched")) == merged(stack)
        assert set(merged(stack)) == {"ok"}
    finally:
        stack.engine.do("start", prometheus)
    stack.wait_for(lambda: stack.query("up"), "Prometheus' return")


def test_triton_restarted_under_load_fails_requests_for_a_while_and_totals_stay_right(
    stack: Stack,
) -> None:
    model, folder = VARIANTS[1], "/tmp/records/restarted"
    (triton,) = stack.containers("triton")
    start_test(stack, model, seconds=45, objective="p95 < 5 s", records=folder)
    wait_for_load(stack)
    # Not `restart`: podman refuses it of a container whose dependency, the export, has ended.
    stack.engine.do("stop", "--time=5", triton)
    stack.wait_for(lambda: serving(stack)["totals"]["failed"], "requests that fail")
    stack.engine.do("start", triton)
    stack.wait_for(lambda: successes_at_triton(stack, model) > 20, "load after the restart")
    wait_until_stopped(stack)
    counted = merged(stack)
    assert counted["ok"] > 40
    assert sum(counted.values()) > counted["ok"]
    assert total(recorded(stack, folder)) == counted
    # The server began to count anew: it cannot know of the requests before.
    assert successes_at_triton(stack, model) < counted["ok"]
    shown = serving(stack)
    assert shown["server"]["resets"] == 1
    assert any("counters" in one["text"] for one in shown["notices"])
    assert shown["verdict"]["decision"] == "invalid"
    assert any("counters were reset" in one for one in shown["verdict"]["reasons"])


def test_a_model_that_cannot_be_loaded_is_named_and_the_others_are_served(stack: Stack) -> None:
    spoil = (
        f"cp -r /model_repository/{VARIANTS[0]} /model_repository/broken && "
        f"cd /model_repository/broken && sed -i s/{VARIANTS[0]}/broken/ config.pbtxt *.json && "
        "echo no-graph > 1/model.onnx"
    )
    stack.compose("run", "--rm", "--no-deps", "--entrypoint", "sh", "export", "-c", spoil)
    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.post("TRITON_HTTP_PORT", "v2/repository/models/broken/load")
    assert "load failed for model 'broken'" in refused.value.read().decode()
    assert "broken" in stack.logs("triton")
    assert stack.text("TRITON_HTTP_PORT", f"v2/models/{VARIANTS[0]}/ready") == ""

    with pytest.raises(AssertionError, match="broken"):
        start_test(stack, "broken", seconds=5)
    assert state(stack) != "running"


def test_a_study_that_is_not_there_ends_the_export_with_its_name(lone_stack: Stack) -> None:
    lone_stack.variables["STUDY"] = "no-such-study.yaml"
    lone_stack.compose("up", "--no-build", "export", exit_code=None)
    assert "no-such-study.yaml" in lone_stack.logs("export")
    (export,) = lone_stack.containers("export", all_of_them=True)
    assert lone_stack.inspect(export)["State"]["ExitCode"] == 2


def test_a_port_in_use_is_named_by_up(lone_stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lone_stack.ports["PROMETHEUS_PORT"] = port
        told = lone_stack.compose("up", "-d", "prometheus", exit_code=None)
    assert "address already in use" in told
    assert str(port) in told
    assert not lone_stack.containers("prometheus")


def test_an_image_that_cannot_be_had_is_named_by_up(lone_stack: Stack) -> None:
    missing = "localhost:1/nowhere/prometheus:v2.55.1"
    file = lone_stack.checkout / "missing.yaml"
    file.write_text(json.dumps({"services": {"prometheus": {"image": missing}}}))
    lone_stack.files += (file.name,)
    told = lone_stack.compose("up", "-d", "prometheus", exit_code=None)
    assert missing in told
    assert not lone_stack.containers("prometheus")


@pytest.mark.skipif(bool(shutil.which("nvidia-smi")), reason="this machine has a GPU")
def test_profile_gpu_without_a_gpu_is_refused_by_the_engine(lone_stack: Stack) -> None:
    told = lone_stack.compose(
        "--profile=gpu", "up", "-d", "--no-deps", "triton-gpu", exit_code=None
    )
    assert "nvidia" in told.lower()
    assert not lone_stack.containers("triton-gpu")
