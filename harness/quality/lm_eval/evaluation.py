"""One lm-eval task put to one served model, and its results in lm-eval's own shape."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.metrics import TASK_SEPARATOR, described
from harness.quality.lm_eval.model import RequestCounts
from harness.quality.lm_eval.tasks import FEWSHOT_SEED, LoadedTask, lm_eval_quiet
from harness.quality.token_scores import ScoringCounts
from harness.system.storage import replace_text, storage_errors, utc_now
from harness.types import ModelVariant

BOOTSTRAP_ITERATIONS = 1000
"""Iterations for lm-eval's own standard errors, where it has no closed form; our intervals are
beside it."""


class Answerer(Protocol):
    """A model behind the endpoint, as lm-eval takes it."""

    counts: RequestCounts
    max_length: int

    @property
    def answers(self) -> ScoringCounts:
        """How many answers were asked for, and how many were known."""
        ...


Results = Mapping[str, Any]
"""lm-eval's document: results, configs, versions, n-shot, n-samples, samples, ..."""


def evaluate_task(lm: Answerer, task: LoadedTask, variant: ModelVariant) -> dict[str, Any]:
    """Ask everything a task asks, and let lm-eval score it.

    A document with an unanswered request is scored as wrong where a metric is a share of right
    answers, and left out where there is nothing to be wrong about (a likelihood, an F1's pair).

    Raises:
        ServerError: not one request was answered.
    """
    from lm_eval.evaluator import evaluate

    with lm_eval_quiet(), _unanswered_is_wrong(task):
        for one in task.tasks.values():
            one.set_fewshot_seed(seed=FEWSHOT_SEED)
        results: dict[str, Any] = evaluate(
            lm=lm,
            task_dict=dict(task.loaded),
            limit=task.limit,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            apply_chat_template=task.chat is not None,
            fewshot_as_multiturn=task.chat is not None and task.chat.multiturn,
        )
    counts = lm.counts
    results["config"] = {
        "model": "triton",
        "model_args": {"variant": variant.name, "source": variant.source, "sha256": variant.sha256},
        "limit": task.limit,
        "bootstrap_iters": BOOTSTRAP_ITERATIONS,
        "fewshot_seed": FEWSHOT_SEED,
        "apply_chat_template": task.chat is not None,
        "fewshot_as_multiturn": task.chat is not None and task.chat.multiturn,
        "requests": counts.requests,
        "unanswered": counts.unanswered,
        "truncated": counts.truncated,
        "windowed": counts.windowed,
        "from_cache": lm.answers.kept,
        "asked": lm.answers.asked,
    }
    results["model_name"] = variant.name
    results["max_length"] = lm.max_length
    results["lm_eval_version"] = version("lm_eval")
    results["date"] = utc_now()
    return results


def write_results(folder: Path, name: str, results: Results) -> dict[str, Path]:
    """Write `results_<name>.json`, and `samples_<task>.jsonl` of each task, as lm-eval does.

    Returns:
        The samples' files, by task.

    Raises:
        StorageError: they cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for task, samples in results["samples"].items():
        files[task] = folder / f"samples_{_file_name(task)}.jsonl"
        replace_text(files[task], "".join(_json(sample) + "\n" for sample in samples))
    summary = {key: value for key, value in results.items() if key != "samples"}
    replace_text(folder / f"results_{_file_name(name)}.json", _json(summary, indent=2) + "\n")
    return files


def read_samples(file: Path) -> list[dict[str, Any]]:
    """The samples of one task, as `write_results` left them; none where there is no file."""
    if not file.is_file():
        return []
    # Not `splitlines`: a text may hold what Unicode calls the end of a line (U+2028, U+0085).
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _file_name(name: str) -> str:
    """A task's name as a file's; of a task file its own."""
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name.replace("/", "_")


def _json(document: object, indent: int | None = None) -> str:
    text = json.dumps(document, indent=indent, default=_serializable, ensure_ascii=False)
    # NaN stands for an unanswered request, and is not JSON: only then is the document walked.
    return text if "NaN" not in text else json.dumps(_without_nan(json.loads(text)), indent=indent)


def _serializable(value: object) -> object:
    """What lm-eval writes of a value that JSON lacks, but of an array its numbers, and no text.

    A Brier score is computed from the probabilities of all choices, and ours is from what was
    written.
    """
    from lm_eval.utils import handle_non_serializable

    return value.tolist() if isinstance(value, np.ndarray) else handle_non_serializable(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def _unanswered_is_wrong(task: LoadedTask) -> Iterator[None]:
    """Give every task its say on what an unanswered document counts for."""
    with ExitStack() as restore:
        for one in task.tasks.values():
            restore.callback(setattr, one, "process_results", one.process_results)
            one.process_results = _counting(one, one.process_results)
        yield


def _counting(
    task: Any, process: Callable[[Any, Sequence[Any]], Mapping[str, Any]]
) -> Callable[[Any, Sequence[Any]], Mapping[str, Any]]:
    def process_results(document: Any, results: Sequence[Any]) -> Mapping[str, Any]:
        metrics = process(document, results)
        if not any(map(_is_unanswered, results)):
            return metrics
        higher = task.higher_is_better()
        return {
            name: 0.0
            for name, value in metrics.items()
            if higher.get(name) and isinstance(value, int | float) and _is_right_or_wrong(name)
        }

    return process_results


def _is_right_or_wrong(metric: str) -> bool:
    """Whether a wrong answer counts 0 in one of lm-eval's metrics."""
    known = described(f"task{TASK_SEPARATOR}{metric}")
    return known is not None and known.right_or_wrong


def _is_unanswered(result: Any) -> bool:
    value = result[0] if isinstance(result, tuple | list) and result else result
    return isinstance(value, float) and math.isnan(value)
