"""`harness route RUN --serve` on the real server: answers, verdict, report, and what is refused.

What the router must answer is told by transformers alone: the student's answer to each text, and
below the threshold the teacher's.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import scipy

from harness.cli.main import run_command
from harness.errors import ServerError
from harness.quality.collection import read_outcomes
from harness.runs.documents import read_document
from harness.runs.folder import read_run, samples_file
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.router import ServedPair, load_router, make_router, write_router
from harness.types import Decision, ServingConfig
from harness.types.routing import DeployedRouter, Route
from tests.held_up import unhurried
from tests.routed_study import LONGEST, ROWS, STUDENTS_ORDER, TEACHER, bare_answers, texts
from tests.server_processes import servers_on

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment", "undisturbed")]

STUDENT = "fair-fp32"
ROUTER = f"{STUDENT}-router"
CLOSE_CALL = 1e-3
"""Of a confidence to the threshold, or of two logits: there two runtimes may answer otherwise."""


@pytest.fixture(scope="module")
def run(routed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the scored run, on which the router was served."""
    folder = tmp_path_factory.mktemp("router") / "run"
    shutil.copytree(routed / "scored", folder)
    asked = ["--student", STUDENT, "--keep", "90%", "--serve"]
    repository = ["--repository", str(routed / "repository")]
    with unhurried():
        assert run_command(["route", str(folder), *asked, *repository]) == 0
    return folder


@pytest.fixture(scope="module")
def found(run: Path) -> Route:
    route = read_document(run, "route", Route)
    assert route is not None
    return route


def deployed(route: Route) -> DeployedRouter:
    assert route.deployed is not None
    return route.deployed


def expected(routed: Path, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By transformers alone: the classes, which rows go to the teacher, which are close calls."""
    student, teacher = bare_answers(routed, "fair"), bare_answers(routed, TEACHER)
    confidence = scipy.special.softmax(student, axis=1).max(axis=1)
    below = confidence < threshold
    logits = np.where(below[:, None], teacher, student)
    best = np.sort(logits, axis=1)
    close = np.abs(confidence - threshold) < CLOSE_CALL
    return logits.argmax(axis=1), below, close | (best[:, -1] - best[:, -2] < CLOSE_CALL)


def test_every_row_is_answered_by_the_model_that_it_belongs_to(
    routed: Path, run: Path, found: Route
) -> None:
    classes, below, close = expected(routed, found.chosen.threshold)
    assert 0.05 < below.mean() < 0.9
    assert close.mean() < 0.05
    answers = read_outcomes(samples_file(run, ROUTER))
    assert (answers.predictions == classes)[~close].all()
    one = deployed(found)
    assert one.rows == ROWS
    assert one.otherwise <= close.sum()
    assert one.routed == pytest.approx(below.mean(), abs=close.mean() + 1e-9)


def test_what_is_kept_is_counted_on_the_rows_held_out(run: Path, found: Route) -> None:
    one = deployed(found)
    order = np.random.default_rng(found.seed).permutation(ROWS)[ROWS // 2 :]
    right = read_outcomes(samples_file(run, ROUTER)).correct[order].mean()
    teacher = read_outcomes(samples_file(run, f"{TEACHER}-fp32")).correct[order].mean()
    assert one.accuracy.value == pytest.approx(right)
    assert one.kept is not None
    assert one.kept.value == pytest.approx(right / teacher)
    assert right > read_outcomes(samples_file(run, STUDENT)).correct[order].mean()
    assert one.keeps in {Decision.PASS, Decision.UNDECIDED}


def test_it_is_load_tested_as_deployed_and_the_search_never_reads_it(
    run: Path, found: Route
) -> None:
    one, stored = deployed(found), read_run(run)
    own = [each for each in stored.trials if each.trial.variant == ROUTER]
    assert {(each.trial.stage, each.sha256) for each in own} == {("router", one.sha256)}
    trial = next(each for each in own if each.trial.trial_id == one.trials[-1])
    assert trial.requests > 0
    assert trial.failures == 0
    assert trial.throughput_inferences_per_s == pytest.approx(4 * trial.throughput_requests_per_s)
    # Payloads are drawn from all rows, so the teacher is asked about as many of them.
    assert one.routed_under_load == pytest.approx(one.routed, abs=0.15)
    assert one.decision is Decision.PASS
    assert stored.verdicts == ()


def test_report_and_decision_page_show_what_was_measured(
    run: Path, found: Route, capsys: pytest.CaptureFixture[str]
) -> None:
    html, markdown = ((run / f"report.{kind}").read_text() for kind in ("html", "md"))
    for page in (html, markdown):
        assert f"Deployed as {ROUTER}" in page
    assert 'id="router"' in html
    assert run_command(["decide", str(run), "--json"]) == 4  # no variant was load-tested
    page = json.loads(capsys.readouterr().out)
    (candidate,) = [
        one for matrix in page["matrices"] for one in matrix["candidates"] if one["name"] == ROUTER
    ]
    kept = next(one for one in candidate["figures"] if one["metric"] == "accuracy")
    one = deployed(found)
    assert one.kept is not None
    assert kept["estimate"]["value"] == pytest.approx(one.kept.value)
    assert {each["decision"] for each in candidate["limits"]} == {"pass"}


def test_a_second_time_nothing_is_measured_again(
    run: Path, routed: Path, found: Route, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--student", STUDENT, "--keep", "90%", "--serve", "--json"]
    repository = ["--repository", str(routed / "repository")]
    before = len(read_run(run).trials)
    assert run_command(["route", str(run), *asked, *repository]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["deployed"]["sha256"] == deployed(found).sha256
    assert again["deployed"]["trials"] == list(deployed(found).trials)
    assert again["deployed"]["routed_under_load"] == deployed(found).routed_under_load
    assert len(read_run(run).trials) == before


@pytest.mark.usefixtures("run")
def test_no_server_is_left(routed: Path) -> None:
    assert not servers_on(routed / "repository", below=psutil.Process())


@pytest.fixture(scope="module")
def client(routed, server_environment, tmp_path_factory, found):
    """The router in a server on the repository, the teacher taking no more than 2 rows at once."""
    by_name = {one.name: one for one in read_run(routed / "scored").variants}
    serving = ServingConfig(max_batch_size=8, queue_delay_us=0, instance_count=1)
    pair = ServedPair(
        by_name[STUDENT],
        by_name[f"{TEACHER}-fp32"],
        serving,
        ServingConfig(max_batch_size=2, queue_delay_us=0, instance_count=1),
        columns=STUDENTS_ORDER,
    )
    router = make_router(pair, found.chosen.threshold)
    write_router(router)
    log = tmp_path_factory.mktemp("log") / "triton.log"
    with (
        EmbeddedTriton(server_environment, routed / "repository", log_file=log) as server,
        TritonClient(server.endpoint) as connected,
    ):
        load_router(connected, router)
        yield connected


def payloads(routed: Path, rows: int) -> dict[str, np.ndarray]:
    """The tensors of the first texts, as the bare tokenizer makes them."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(routed / TEACHER)
    encoded = tokenizer(
        texts()[:rows],
        truncation=True,
        max_length=LONGEST,
        padding="max_length",
        return_token_type_ids=True,
        return_tensors="np",
    )
    return {name: array.astype(np.int64) for name, array in encoded.items()}


def test_many_requests_at_once_get_each_its_own_rows_back(routed, client, found) -> None:
    """Of 1 to 8 rows, joined by the router's batcher and taken apart again; the teacher in twos."""
    classes, _, close = expected(routed, found.chosen.threshold)
    every = payloads(routed, ROWS)
    sizes = [1, 8, 3, 5, 2, 8, 7, 6] * 5
    ends = np.cumsum(sizes)
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def ask(rows: slice) -> np.ndarray:
        own = {name: array[rows] for name, array in every.items()}
        return client.infer(ROUTER, own)["logits"].argmax(axis=1)

    with ThreadPoolExecutor(8) as pool:
        answers = np.concatenate(list(pool.map(ask, slices)))
    assert len(answers) == 200
    assert (answers == classes[:200])[~close[:200]].all()


def test_a_teacher_that_is_gone_fails_the_request_by_name(routed, client) -> None:
    client.unload(f"{TEACHER}-fp32")
    try:
        with pytest.raises(ServerError, match=f"{TEACHER}-fp32"):
            client.infer(ROUTER, {name: one[:8] for name, one in payloads(routed, 8).items()})
    finally:
        client.load(f"{TEACHER}-fp32")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (["--student", "nobody"], "has no student 'nobody'"),
        (["--student", STUDENT, "--keep", "99.9%"], "cannot show 99.9% of the teacher's"),
    ],
)
def test_what_cannot_be_routed_is_refused_before_a_server_starts(
    routed: Path, tmp_path: Path, asked: list[str], problem: str, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(
        EmbeddedTriton, "__enter__", lambda self: pytest.fail("a server was started")
    )
    folder = tmp_path / "run"
    shutil.copytree(routed / "scored", folder)
    capsys.readouterr()
    assert run_command(["route", str(folder), *asked, "--serve"]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())
