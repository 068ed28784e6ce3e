"""Samples per second of an lm-eval task: through the endpoint, and by stock lm-eval in process.

Both score the same checkpoint on the same documents and cores, in alternation, and must come to
the same score. Loading is left out on both sides (checkpoint, export, server); making tokens and
requests is not. Contender: lm-eval's own `hf` model with its batch of 16.

    python benchmarks/evaluation_speed.py --json rows.json
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import yaml
from rows import Row, run_as_command, show, skip

from harness.errors import HarnessError
from harness.flow.lm_evaluation import ROWS_PER_REQUEST, evaluation_serving
from harness.flow.options import RunSettings, ignore_progress
from harness.flow.preparation import prepare_alone
from harness.flow.serving import serve
from harness.quality.lm_eval.model import ServedLM
from harness.quality.lm_eval.tasks import LoadedTask, TaskRequest, lm_eval_quiet, load_tasks
from harness.quality.token_scores import TokenScorer
from harness.reference.build import build_reference
from harness.serving.embedded.environment import ensure_server_environment
from harness.study.file import load_study
from harness.system.storage import bundled
from harness.tasks.tokenizers import load_tokenizer
from harness.types import Precision, Progress

FAMILY, MODEL = "prose", "prose-teacher"
FEWEST_WORDS = 12
"""Of a paragraph: half is the beginning, the rest an ending."""
LENGTH = 64
"""Tokens the reference's language models take."""
Run = Callable[[LoadedTask], float]
"""Scores a task once; returns its metric."""


def main() -> int:
    """Measure both clients on both tasks and show the rows."""
    options = _parse(sys.argv[1:])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        tasks = load_tasks(TaskRequest(_write_tasks(Path(folder)), limit=options.samples))
        with _served(Path(folder), options) as (ours, checkpoint):
            clients: dict[str, Run] = {"harness-endpoint": ours}
            try:
                clients["lm-eval-hf"] = _stock(checkpoint)
            except ImportError as error:
                skip("lm-eval-hf", error)
            for task in tasks:
                rows += _compare(task, clients, options)
    show(f"lm-eval samples per second (median of {options.rounds} rounds)", rows, options.json)
    return 0


def _compare(task: LoadedTask, clients: dict[str, Run], options: argparse.Namespace) -> list[Row]:
    """A row a client; the first round of each is not counted."""
    samples = len({one.doc_id for one in next(iter(task.tasks.values())).instances})
    speeds: dict[str, list[float]] = {name: [] for name in clients}
    scores: dict[str, float] = {}
    for turn in range(options.rounds + 1):
        for name, run in clients.items():
            started = time.perf_counter()
            scores[name] = run(task)
            if turn:
                speeds[name].append(samples / (time.perf_counter() - started))
    if not all(
        math.isclose(score, scores["harness-endpoint"], rel_tol=1e-3) for score in scores.values()
    ):
        raise HarnessError(f"the clients disagree on {task.name}: {scores}")
    return [
        {
            "client": name,
            "task": next(iter(task.tasks)),
            "samples": samples,
            "samples_per_s": statistics.median(found),
            "low": min(found),
            "high": max(found),
            "score": scores[name],
        }
        for name, found in speeds.items()
    ]


@contextmanager
def _served(folder: Path, options: argparse.Namespace) -> Iterator[tuple[Run, Path]]:
    """The reference's teacher behind the endpoint, and where its checkpoint lies."""
    study = load_study(bundled("studies/reference.yaml"))

    def tell(step: Progress) -> None:
        print(step.stage, step.note, file=sys.stderr)

    alone = f"{MODEL}-{Precision.FP32}"
    prepared = prepare_alone(study, alone, repository=folder / "models", progress=tell)
    checkpoint = build_reference([MODEL], seed=study.seed, progress=tell).checkpoints[MODEL]
    environment = ensure_server_environment(tell)
    settings = RunSettings(folder / "models", progress=tell)
    with serve([prepared], environment, settings, log_file=folder / "log") as served:
        (variant,) = prepared.variants
        serving = evaluation_serving("cpu")
        served.load(variant, serving)
        tokenizer = load_tokenizer(checkpoint)

        def run(task: LoadedTask) -> float:
            scorer = TokenScorer(
                variant, served.site.client, pad_token_id=tokenizer.pad_token_id,
                rows_per_request=ROWS_PER_REQUEST, in_flight=options.in_flight,
            )  # fmt: skip
            return _score(ServedLM(scorer, tokenizer, max_length=LENGTH), task)

        yield run, checkpoint


def _stock(checkpoint: Path) -> Run:
    from lm_eval.models.huggingface import HFLM

    with lm_eval_quiet():
        lm = HFLM(str(checkpoint), device="cpu", dtype="float32", batch_size=16, max_length=LENGTH)
    return lambda task: _score(lm, task)


def _score(lm: Any, task: LoadedTask) -> float:
    from lm_eval.evaluator import evaluate

    # Stock lm-eval draws bars whatever it is told.
    with lm_eval_quiet(), redirect_stderr(io.StringIO()):
        results = evaluate(lm=lm, task_dict=dict(task.loaded), limit=task.limit, bootstrap_iters=0)
    values = next(iter(results["results"].values()))
    return float(next(value for name, value in values.items() if name.endswith(",none")))


def _write_tasks(folder: Path) -> tuple[str, ...]:
    """Which of four endings follows a paragraph's beginning, and the paragraphs' perplexity."""
    study = load_study(bundled("studies/reference.yaml"))
    bundle = build_reference([MODEL], seed=study.seed, progress=ignore_progress)
    lines = bundle.data[FAMILY].read_text(encoding="utf-8").splitlines()
    paragraphs = [json.loads(line)["text"].split() for line in lines]
    texts = [words for words in paragraphs if len(words) >= FEWEST_WORDS]
    documents = [
        {
            "begin": " ".join(words[:-6]),
            "endings": [
                " ".join(texts[(number + step) % len(texts)][-6:]) for step in (0, 7, 13, 29)
            ],
            "text": " ".join(words),
        }
        for number, words in enumerate(texts)
    ]
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")
    common = {
        "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
    }  # fmt: skip
    return (
        _write(folder, {
            "task": "endings", **common, "output_type": "multiple_choice",
            "doc_to_text": "{{begin}}", "doc_to_choice": "{{endings}}", "doc_to_target": 0,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }),
        _write(folder, {
            "task": "paragraphs", **common, "output_type": "loglikelihood_rolling",
            "doc_to_text": "", "doc_to_target": "{{text}}",
            "metric_list": [{
                "metric": "byte_perplexity", "aggregation": "weighted_perplexity",
                "higher_is_better": False,
            }],
        }),
    )  # fmt: skip


def _write(folder: Path, task: dict[str, Any]) -> str:
    path = folder / f"{task['task']}.yaml"
    path.write_text(yaml.safe_dump(task), encoding="utf-8")
    return str(path)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=200, help="documents of each task")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=4, help="requests at once")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
