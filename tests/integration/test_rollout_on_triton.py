"""`harness rollout RUN` on the real server: promoted, rolled back, held; killed and gone on with.

How often each student is right is known beforehand: the labels are the teacher's own answers
(tests/routed_study.py). `fair` is right on 81% of the rows and `poor` on 48%; asked for is 70%.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import psutil
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from harness.cli.main import run_command
from harness.errors import ServerError
from harness.planning.rollout.stages import in_student_share
from harness.runs.documents import documents_of, read_document
from harness.runs.folder import read_run
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.router import ServedPair, load_split, make_split, write_split
from harness.types import ServingConfig
from harness.types.rollout import RolloutLook, RolloutRecord, RolloutStatus, RolloutStep
from tests.held_up import PATIENCE_S
from tests.routed_study import LONGEST, STUDENTS_ORDER, TEACHER, bare_answers, texts

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment")]

QUALITY = ["--slo", "error_rate < 5%, accuracy >= 70% of teacher"]
SHORT = ["--stages", "50%,100%", "--requests", "150", "--in-flight", "4"]


@pytest.fixture
def run(routed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(routed / "scored", folder)
    return folder


def rollout(run: Path, routed: Path, student: str, *asked: str) -> int:
    repository = ["--repository", str(routed / "repository")]
    named = ["--student", f"{student}-fp32"]
    return run_command(["rollout", str(run), *named, *QUALITY, *SHORT, *repository, *asked])


def record_of(run: Path) -> RolloutRecord:
    found = read_document(run, "rollout", RolloutRecord)
    assert found is not None
    return found


def last_of(record: RolloutRecord) -> RolloutLook:
    assert record.state.last is not None
    return record.state.last


def test_a_bad_student_is_rolled_back_at_the_first_look_and_says_why(
    run: Path, routed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rollout(run, routed, "poor") == 3
    record = record_of(run)
    assert record.state.status is RolloutStatus.ROLLED_BACK
    assert (record.state.looks, record.state.share) == (1, 0.0)
    (finding,) = [one for one in last_of(record).findings if one.guardrail.startswith("accuracy")]
    assert finding.breaches
    assert finding.value is not None
    # The teacher is always right, so the value is the student's share of wrong answers: 52%.
    assert finding.value.low < 0.52 < finding.value.high
    assert finding.value.low > 0.3
    assert record.rollback is not None
    assert (record.rollback.requests, record.rollback.by_student) == (50, 0)
    said = " ".join(capsys.readouterr().out.split())
    assert "poor-fp32 was rolled back at 50% of the traffic, at look 1: certainly beyond" in said
    assert "The teacher answered all of the 50 requests sent after it." in said
    html, markdown = ((run / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert 'id="rollout"' in html
    for page in (html, markdown):
        assert "poor-fp32 was rolled back" in page


@pytest.mark.parametrize("split", ["router", "client"])
def test_a_good_student_takes_over(
    run: Path, routed: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rollout(run, routed, "fair", "--split", split, "--json") == 0
    record = record_of(run)
    assert record.state.status is RolloutStatus.TAKEN_OVER
    assert [one.step for one in record.state.changes] == [RolloutStep.PROMOTE] * 2
    assert [one.stage for one in record.state.changes] == [0, 1]
    (size,) = [one for one in record.planned if one.guardrail.startswith("accuracy")]
    assert size.requests is not None
    assert json.loads(capsys.readouterr().out)["state"]["status"] == "taken over"
    # At 100% the student answers every request and the teacher is asked it too.
    (finding,) = [one for one in last_of(record).findings if one.guardrail.startswith("accuracy")]
    last_stage = [one for one in record.looks if one.stage == 1]
    assert finding.requests == 150 * len(last_stage)
    if split == "router":
        front = routed / "repository" / "fair-fp32-rollout" / "config.pbtxt"
        config = text_format.Parse(front.read_text(), pb.ModelConfig())
        assert config.parameters["share"].string_value == "1.0"


def test_in_shadow_mode_the_teacher_answers_everything_and_the_student_is_compared(
    run: Path, routed: Path
) -> None:
    assert rollout(run, routed, "poor", "--mode", "shadow", "--agreement", "70%") == 3
    record = record_of(run)
    agreement = next(one for one in last_of(record).findings if one.guardrail == "agreement >= 0.7")
    assert agreement.breaches
    assert record.rollback is not None
    assert record.rollback.by_student == 0


def test_what_cannot_be_told_yet_is_held_and_gone_on_with(
    run: Path, routed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One look of ten requests; then the same rollout to its end. Another plan is refused."""
    few = ["--requests", "10"]
    assert rollout(run, routed, "fair", *few, "--looks", "1") == 4
    held = record_of(run)
    assert (held.state.looks, last_of(held).step) == (1, RolloutStep.HOLD)
    assert held.rollback is None
    assert rollout(run, routed, "fair", *few, "--looks", "2", "--resume") == 4
    more = record_of(run)
    assert more.looks[:1] == held.looks
    assert more.state.looks == 3
    seen = [look.findings[0].requests for look in more.looks]
    assert seen == sorted(seen)
    assert seen[0] < seen[-1] <= 30
    assert len(documents_of(run, "rollout")) == 1
    capsys.readouterr()
    assert rollout(run, routed, "fair", "--requests", "20", "--resume") == 2
    assert "has another plan or other models" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (["--resume"], "has no rollout to go on with"),
        (["--mode", "canary", "--agreement", "90%"], "no request goes to both models"),
        (["--stages", "50%,10%"], "must grow from above 0% to at most 100%"),
        (["--own", "refunds < 2%; bad: x; all: y"], "--own counts requests by a Prometheus"),
        (["--slo", "mean < 5 s"], "there is no guardrail"),
        (["--error", "0%"], "--error 0%: a share is above 0%"),
        (["--own", "refunds < 200%; bad: x; all: y"], "is always kept or never"),
        (["--slo", "error_rate < 1%, error_rate < 2%"], "error_rate is bounded twice"),
        (
            [*("--own", "a < 2%; bad: x; all: y"), *("--own", "a < 3%; bad: x; all: y")],
            "'a' is the name of 2 guardrails",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_before_a_server_starts(
    run: Path,
    routed: Path,
    asked: list[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EmbeddedTriton, "__enter__", lambda self: pytest.fail("a server started"))
    capsys.readouterr()
    assert rollout(run, routed, "fair", *asked) == 2
    assert problem in " ".join(capsys.readouterr().err.split())
    assert documents_of(run, "rollout") == {}


class Counters:
    """A Prometheus whose two counters grow by what is asked for at each reading of `all`."""

    def __init__(self, bad: float, all_: float) -> None:
        self.grows = {"bad_total": bad, "all_total": all_}
        self.stand = {"bad_total": 0.0, "all_total": 0.0}

    def answer(self, query: str) -> list[dict[str, object]]:
        if query not in self.stand:
            return []
        self.stand[query] += self.grows[query]
        return [{"metric": {}, "value": [0, str(self.stand[query])]}]


@pytest.fixture
def prometheus() -> Iterator[tuple[str, Counters]]:
    counters = Counters(30, 100)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            query = form["query"][0]
            found: dict[str, object] = {"resultType": "vector", "result": counters.answer(query)}
            if query == "time()":
                found = {"resultType": "scalar", "result": [time.time(), str(time.time())]}
            body = json.dumps({"status": "success", "data": found}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", counters
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_metric_of_ones_own_in_a_prometheus_takes_a_good_student_back(
    run: Path, routed: Path, prometheus: tuple[str, Counters]
) -> None:
    """30 of 100 refunds between two readings, 2% allowed."""
    url, _ = prometheus
    own = ["--own", "refunds < 2%; bad: bad_total; all: all_total", "--prometheus", url]
    assert rollout(run, routed, "fair", *own) == 3
    record = record_of(run)
    (refunds,) = [one for one in last_of(record).findings if one.guardrail == "refunds"]
    assert (refunds.requests, refunds.breaches) == (100, True)
    assert last_of(record).reason.startswith("certainly beyond the limit: refunds: 30.0% bad (")


def test_a_prometheus_without_data_never_passes(
    run: Path, routed: Path, prometheus: tuple[str, Counters]
) -> None:
    """Of the first all requests are missing, of the second the bad ones."""
    url, _ = prometheus
    own = ["--own", "refunds < 2%; bad: bad_total; all: silent_total", "--prometheus", url]
    own += ["--own", "returns < 2%; bad: silent_total; all: all_total"]
    assert rollout(run, routed, "fair", *own, "--looks", "3") == 4
    record = record_of(run)
    assert record.state.stage == 0
    assert {one.reason for one in record.looks} == {
        "no requests were counted for refunds, returns in this look"
    }


@pytest.mark.slow
def test_killed_in_the_middle_it_leaves_no_process_and_goes_on(run: Path, routed: Path) -> None:
    command = [
        *(sys.executable, "-m", "harness", "rollout", str(run), "--student", "fair-fp32"),
        *("--slo", "accuracy >= 70% of teacher", "--stages", "1%,100%", "--requests", "20"),
        *("--repository", str(routed / "repository")),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    deadline = time.monotonic() + 300
    children: list[psutil.Process] = []
    while time.monotonic() < deadline and process.poll() is None:
        found = read_document(run, "rollout", RolloutRecord)
        if found is not None and found.state.looks >= 2:
            children = psutil.Process(process.pid).children(recursive=True)
            break
        time.sleep(0.05)
    assert children, "it ended before it was killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive
    before = record_of(run)
    assert before.state.status is RolloutStatus.RUNNING
    gone_on = [*command[3:], "--resume", "--looks", "1"]
    assert run_command(gone_on) == 4
    after = record_of(run)
    assert after.looks[: len(before.looks)] == before.looks
    assert after.state.looks == before.state.looks + 1


@pytest.fixture(scope="module")
def client(
    routed: Path, server_environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonClient]:
    """A server on the repository with teacher and student loaded."""
    log = tmp_path_factory.mktemp("log") / "triton.log"
    split = make_split(pair_of(routed), mode="canary", salt="s")
    write_split(split, 0.0)
    with (
        EmbeddedTriton(server_environment, routed / "repository", log_file=log) as server,
        TritonClient(server.endpoint) as connected,
    ):
        split.pair.load(connected)
        yield connected


def pair_of(routed: Path) -> ServedPair:
    by_name = {one.name: one for one in read_run(routed / "scored").variants}
    serving = ServingConfig(max_batch_size=8, queue_delay_us=0, instance_count=1)
    names = ("fair-fp32", f"{TEACHER}-fp32")
    return ServedPair(*(by_name[name] for name in names), serving, serving, STUDENTS_ORDER)


def inputs_of(routed: Path, rows: int) -> dict[str, np.ndarray]:
    """The tensors of the first texts, as the bare tokenizer makes them."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(routed / TEACHER)
    encoded = tokenizer(
        texts()[:rows],
        padding="max_length",
        max_length=LONGEST,
        return_token_type_ids=True,
        return_tensors="np",
    )
    return {name: array.astype(np.int64) for name, array in encoded.items()}


def keys_of(rows: int) -> np.ndarray:
    return np.array([[f"user-{number}".encode()] for number in range(rows)], object)


@pytest.mark.parametrize("mode", ["canary", "mirror", "shadow"])
def test_a_request_is_answered_by_the_model_that_its_key_goes_to(
    routed: Path, client: TritonClient, mode: str
) -> None:
    """Eight rows a request, each with its own key; answers against transformers alone."""
    split = make_split(pair_of(routed), mode=mode, salt="s")
    load_split(client, split, 0.5)
    rows, keys = 8, keys_of(8)
    said = client.infer(split.variant.name, {**inputs_of(routed, rows), "KEY": keys})
    chosen = np.array([in_student_share(key.decode(), 0.5, salt="s") for key in keys[:, 0]])
    assert 0 < chosen.sum() < rows
    served = chosen if mode != "shadow" else np.zeros(rows, dtype=bool)
    assert said["SERVED_BY"][:, 0].astype(bool).tolist() == served.tolist()
    student = bare_answers(routed, "fair")[:rows]
    teacher = bare_answers(routed, TEACHER)[:rows]
    assert said["logits"] == pytest.approx(np.where(served[:, None], student, teacher), abs=1e-4)
    other = np.where(served[:, None], teacher, student)
    asked = chosen & (mode != "canary")
    assert said["OTHER"][asked] == pytest.approx(other[asked], abs=1e-4)
    assert np.isnan(said["OTHER"][~asked]).all()
    teacher_ms, student_ms = said["MODEL_MS"].T
    assert (student_ms > 0).tolist() == chosen.tolist()
    assert (teacher_ms > 0).tolist() == (~chosen | (mode != "canary")).tolist()


@pytest.mark.slow
def test_a_key_stays_where_it_is_while_the_share_grows_and_none_stays_at_0(
    routed: Path, client: TritonClient
) -> None:
    split = make_split(pair_of(routed), mode="canary", salt="s")
    one = inputs_of(routed, 1)
    ours: set[bytes] = set()
    for share in (0.1, 0.4, 1.0):
        load_split(client, split, share)
        by_student = set()
        for key in keys_of(40)[:, 0]:
            asked = {**one, "KEY": np.array([[key]], object)}
            answers = {int(client.infer(split.variant.name, asked)["SERVED_BY"][0, 0])} | {
                int(client.infer(split.variant.name, asked)["SERVED_BY"][0, 0])
            }
            assert len(answers) == 1
            by_student |= {key} if answers == {1} else set()
        assert ours <= by_student
        ours = by_student
    assert len(ours) == 40
    load_split(client, split, 0.0)
    every = {**inputs_of(routed, 8), "KEY": keys_of(8)}
    assert not client.infer(split.variant.name, every)["SERVED_BY"].any()


def test_a_copy_that_fails_is_no_failure_of_the_request(routed: Path, client: TritonClient) -> None:
    """The student is gone: in shadow mode nobody notices; in a canary its keys fail by name."""
    split = make_split(pair_of(routed), mode="shadow", salt="s")
    load_split(client, split, 1.0)
    asked = {**inputs_of(routed, 1), "KEY": keys_of(1)}
    client.unload("fair-fp32")
    try:
        said = client.infer(split.variant.name, asked)
        assert said["logits"] == pytest.approx(bare_answers(routed, TEACHER)[:1], abs=1e-4)
        assert said["MODEL_MS"][0, 1] == -2.0
        load_split(client, make_split(pair_of(routed), mode="canary", salt="s"), 1.0)
        with pytest.raises(ServerError, match="fair-fp32"):
            client.infer(split.variant.name, asked)
    finally:
        split.pair.load(client)
