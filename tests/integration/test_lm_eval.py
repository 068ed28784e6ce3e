"""lm-eval through a real Triton scores as stock lm-eval scores the same checkpoint in process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ServerError
from harness.export.checkpoint import open_checkpoint
from harness.export.variants import ExportJob, export_variants
from harness.quality.lm_eval.evaluation import evaluate_task
from harness.quality.lm_eval.model import ServedLM
from harness.quality.lm_eval.tasks import LoadedTask, TaskRequest, lm_eval_quiet, load_tasks
from harness.quality.token_scores import AnswerCache, TokenScorer
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.repository import write_config
from harness.study import CausalLanguageModelling, CsvData, Model
from harness.tasks.loading import encode
from harness.tasks.samples import Samples
from harness.tasks.tokenizers import load_tokenizer
from harness.types import ModelVariant, Role, ServingConfig
from tests.lm_tasks import write_tasks
from tests.tiny_models import LINES, make_language_model

pytestmark = pytest.mark.triton

POSITIONS = 40
"""Fewer than the longest texts have tokens: contexts are cut, texts are windowed."""
TASKS = ("local_mc", "local_ppl", "local_gen")


@dataclass(frozen=True)
class Served:
    client: TritonClient
    variant: ModelVariant
    checkpoint: Path
    tasks: Mapping[str, LoadedTask]

    def lm(self, predictor: Any = None, cache: AnswerCache | None = None) -> ServedLM:
        tokenizer = load_tokenizer(self.checkpoint)
        scorer = TokenScorer(
            self.variant,
            predictor or self.client,
            pad_token_id=tokenizer.pad_token_id,
            cache=cache,
            rows_per_request=8,
        )
        return ServedLM(scorer, tokenizer, max_length=POSITIONS, progress=lambda done, total: None)

    def results(self, task: str, lm: ServedLM) -> dict[str, Any]:
        return evaluate_task(lm, self.tasks[task], self.variant)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def served(
    request: pytest.FixtureRequest,
    server_environment: ServerEnvironment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """A model with learned positions, which end where its texts do not, and one with rotary."""
    folder = tmp_path_factory.mktemp(f"lm_eval-{request.param}")
    checkpoint = make_language_model(
        folder / "lm", architecture=request.param, max_positions=POSITIONS
    )
    variant = _export(checkpoint, folder / "repository")
    names = load_tasks(TaskRequest(TASKS, (write_tasks(folder / "tasks"),)))
    with (
        EmbeddedTriton(
            server_environment, folder / "repository", log_file=folder / "log"
        ) as server,
        TritonClient(server.endpoint) as client,
    ):
        client.load(variant.name)
        yield Served(client, variant, checkpoint, {task.name: task for task in names})


def _export(checkpoint: Path, repository: Path) -> ModelVariant:
    repository.mkdir()
    task = CausalLanguageModelling(
        kind="causal-lm", data=CsvData(source="csv", path=__file__), max_length=24
    )
    samples = Samples(texts=LINES, pairs=None, digest="", rows=tuple(range(len(LINES))), seed=0)
    model = Model(name="lm", role=Role.TEACHER, checkpoint=str(checkpoint))
    (variant,) = export_variants(
        ExportJob(
            model,
            open_checkpoint(model, folder=None),
            task,
            family="texts",
            repository=repository,
            samples=samples,
            encoded=encode(task, samples, checkpoint),
        ),
        lambda step: None,
    )
    write_config(variant, ServingConfig(max_batch_size=8))
    return variant


@pytest.fixture(scope="module")
def stock(served: Served) -> dict[str, Any]:
    """lm-eval's own word on the checkpoint: `--model hf`, in this process."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks = str(served.checkpoint.parent / "tasks")
    with lm_eval_quiet():
        results = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(served.checkpoint), "dtype": "float32"},
            tasks=list(TASKS),
            device="cpu",
            batch_size=4,
            task_manager=TaskManager(include_path=tasks, include_defaults=False),
            bootstrap_iters=0,
        )
    assert results is not None
    return dict(results)


@pytest.mark.parametrize("task", TASKS)
def test_the_endpoint_scores_as_the_checkpoint_does_in_process(
    served: Served, stock: dict[str, Any], task: str
) -> None:
    lm = served.lm()

    ours = served.results(task, lm)

    for key, value in stock["results"][task].items():
        if isinstance(value, float):
            assert ours["results"][task][key] == pytest.approx(value, abs=1e-3, rel=1e-3), key
    for mine, theirs in zip(ours["samples"][task], stock["samples"][task], strict=True):
        assert mine["doc_hash"] == theirs["doc_hash"]
        _assert_alike(mine["filtered_resps"], theirs["filtered_resps"])
    assert ours["n-samples"][task] == stock["n-samples"][task]
    assert lm.counts.unanswered == 0


def _assert_alike(mine: Any, theirs: Any) -> None:
    if isinstance(mine, list | tuple):
        for one, other in zip(mine, theirs, strict=True):
            _assert_alike(one, other)
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, abs=1e-3)
    else:
        assert mine == theirs


def test_long_contexts_and_texts_are_cut_as_told(served: Served) -> None:
    cut, windowed = served.lm(), served.lm()

    served.results("local_mc", cut)
    served.results("local_ppl", windowed)

    assert cut.counts.truncated > 0
    assert windowed.counts.windowed > 0
    assert windowed.counts.truncated == 0


def test_a_repeated_task_asks_nothing_twice(served: Served, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, served.variant.sha256)
    first = {task: served.results(task, served.lm(cache=cache)) for task in TASKS}

    again = {task: served.results(task, served.lm(_Nobody(), cache)) for task in TASKS}

    for task in TASKS:
        assert again[task]["results"] == first[task]["results"]


class _Nobody:
    def infer(self, model: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("the endpoint was asked again")


class _Faulty:
    """The endpoint, but the first request fails and the second answers no numbers."""

    def __init__(self, client: TritonClient, *, always: bool = False) -> None:
        self.client = client
        self.asked = 0
        self.always = always

    def infer(self, model: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1 or self.always:
            raise ServerError("the queue is full")
        outputs = self.client.infer(model, inputs)
        if self.asked == 2:
            logprobs = np.full_like(outputs["token_logprobs"], np.nan)
            return outputs | {"token_logprobs": logprobs}
        return outputs


def test_what_the_endpoint_does_not_answer_is_counted_and_wrong(served: Served) -> None:
    lm = served.lm(_Faulty(served.client))
    sound = served.results("local_mc", served.lm())["samples"]["local_mc"]

    results = served.results("local_mc", lm)

    samples = results["samples"]["local_mc"]
    answers = [answer for sample in samples for answer in sample["filtered_resps"]]
    assert lm.counts.unanswered == sum(np.isnan(answer[0]) for answer in answers) > 0
    assert results["config"]["unanswered"] == lm.counts.unanswered
    for sample, before in zip(samples, sound, strict=True):
        lost = any(np.isnan(answer[0]) for answer in sample["filtered_resps"])
        assert sample["acc"] == (0.0 if lost else before["acc"])
    assert results["results"]["local_mc"]["acc,none"] == np.mean([one["acc"] for one in samples])


def test_unanswered_texts_are_left_out_and_counted(served: Served) -> None:
    lm = served.lm(_Faulty(served.client))

    results = served.results("local_ppl", lm)

    left = [one for one in results["samples"]["local_ppl"] if one["metrics"]]
    assert len(left) == 24 - lm.counts.unanswered < 24
    assert results["results"]["local_ppl"]["word_perplexity,none"] > 0
    json.dumps(results["results"], allow_nan=False)


@pytest.mark.parametrize("task", ["local_mc", "local_gen"])
def test_an_endpoint_that_answers_nothing_ends_the_evaluation(served: Served, task: str) -> None:
    with pytest.raises(ServerError, match=r"answered none of .* requests: the queue is full"):
        served.results(task, served.lm(_Faulty(served.client, always=True)))
