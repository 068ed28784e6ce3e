"""lm-evaluation-harness's tasks, by name or from YAML files, read and checked before anything runs.

A task is loaded whole (data, prompts of every document within the limit) where a mistake still
costs nothing: what would fail after minutes of serving fails here, in one line.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError
from harness.quality.lm_eval.generation import not_kept
from harness.quality.lm_eval.hub import hub_or_cache
from harness.system.libraries import quiet, require_extra

_TALKATIVE = ("lm_eval", "datasets", "huggingface_hub")
_ONE_PROCESS = "DISABLE_MULTIPROC"
"""lm-eval's: its bootstrap would fork this process, which holds gRPC channels."""


@contextmanager
def lm_eval_quiet() -> Iterator[None]:
    """Mute logs below error, prints and bars; keep lm-eval's bootstrap in this process."""
    from tqdm import tqdm

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    drawing = tqdm.__init__
    before = os.environ.get(_ONE_PROCESS)
    os.environ[_ONE_PROCESS] = "1"
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        tqdm.__init__ = partialmethod(drawing, disable=True)
        # It prints when it bootstraps: our own standard output is a document, with --json.
        with quiet(), redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm.__init__ = drawing
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if before is None:
            os.environ.pop(_ONE_PROCESS, None)
        else:
            os.environ[_ONE_PROCESS] = before


FEWSHOT_SEED = 1234
"""lm-eval's own default: the same examples stand in the prompts."""
LOCAL_BUILDERS = frozenset({"arrow", "csv", "json", "pandas", "parquet", "text", "webdataset"})
"""What `dataset_path` may name without a hub; else it is a folder, or a data set of the hub's."""
_YAML = (".yaml", ".yml")
_EMPTY = ("corresponds to no data", "did not find any docs", "for dataset of size 0")
"""How the libraries report an empty file; an empty JSON lines file ends in a bare StopIteration."""
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class TaskRequest:
    """What was asked for on the command line."""

    names: tuple[str, ...]
    """Tasks, groups, tags or patterns by lm-eval's name, or paths of YAML files."""
    include_paths: tuple[Path, ...] = ()
    """Folders with task files, searched before lm-eval's own."""
    limit: int | None = None
    """Documents a task, the first ones."""
    num_fewshot: int | None = None
    chat: Chat | None = None


@dataclass(frozen=True)
class Chat:
    """Prompts go into the chat template of each model's own tokenizer (`--apply_chat_template`)."""

    multiturn: bool = False
    """Examples are turns of their own (`--fewshot_as_multiturn`), not text of one message."""


@dataclass(frozen=True)
class LoadedTask:
    """One of the names, ready to be asked: a task, or a group with its tasks."""

    name: str
    loaded: Mapping[str, Any]
    """As `lm_eval.evaluator.evaluate` takes it: tasks, groups, group_map."""
    limit: int | None
    digest: str
    """SHA-256 of every request it makes: what a finished answer is known by."""
    chat: Chat | None = None
    """None: prompts are plain texts."""

    @property
    def tasks(self) -> Mapping[str, Any]:
        """lm-eval's task objects, by name."""
        tasks: Mapping[str, Any] = self.loaded["tasks"]
        return tasks

    @property
    def generations(self) -> tuple[Mapping[str, Any], ...]:
        """The settings of its generations, each once, in lm-eval's normal form."""
        settings = (
            _settings(one.args[1])
            for task in self.tasks.values()
            for one in task.instances
            if one.request_type == "generate_until"
        )
        return tuple({json.dumps(one, default=str): one for one in settings}.values())

    @property
    def generated_tokens(self) -> int:
        """Most new tokens a request asks for; 0 where nothing is generated."""
        return max((one["max_gen_toks"] for one in self.generations), default=0)


def load_tasks(request: TaskRequest) -> tuple[LoadedTask, ...]:
    """Load and check tasks.

    Raises:
        DataError: with every problem of every task: unknown names, missing columns, empty splits,
            a hub that cannot be reached.
        MissingExtraError: lm_eval is not installed.
    """
    require_extra("lm_eval", extra="quality")
    with lm_eval_quiet():
        manager, names = _find(request)
        with hub_or_cache(needed=_needs_hub(manager, names)) as hub:
            loaded = [_load(manager, name, request, hub.missing) for name in names]
    problems = [one for one in loaded if isinstance(one, str)]
    if problems:
        listed = problems[0] if len(problems) == 1 else "".join(f"\n  - {one}" for one in problems)
        raise DataError(
            f"lm-eval: {listed}",
            next_step="where there is no hub, name task files with local data: --tasks FILE.yaml"
            if hub.missing
            else "",
        )
    tasks = tuple(one for one in loaded if not isinstance(one, str))
    _check_each_once(tasks)
    return tasks


def _check_each_once(loaded: Sequence[LoadedTask]) -> None:
    """Raises UsageError where two of the names have a task of one name: its scores would mix."""
    found: dict[str, str] = {}
    for one in loaded:
        for task in one.tasks:
            if task in found:
                raise UsageError(
                    f"lm-eval's task {task} is in {found[task]} and in {one.name}",
                    next_step="name one of the two, or give one task another name in its file",
                )
            found[task] = one.name


def _find(request: TaskRequest) -> tuple[Any, tuple[str, ...]]:
    """The index that knows all names, and the names with patterns resolved."""
    from lm_eval.tasks import TaskManager

    missing = [str(path) for path in request.include_paths if not path.is_dir()]
    files = [name for name in request.names if name.endswith(_YAML)]
    missing += [name for name in files if not Path(name).is_file()]
    if missing:
        raise UsageError(
            f"no such file or folder: {', '.join(missing)}",
            next_step="--include-path names a folder of task files, --tasks names or YAML files",
        )
    folders = [str(path) for path in request.include_paths]
    groups = {name: group for name in files if (group := _group_of(name))}
    # lm-eval finds a group by its name alone, and its members beside it.
    folders += [str(Path(name).parent) for name in groups]
    wanted = [groups.get(name, name) for name in request.names]
    # lm-eval's own index has thousands of files and takes seconds: read where it is needed.
    manager = TaskManager(include_path=folders, include_defaults=False)
    if not all(_has_all_of(manager, name) for name in wanted if not name.endswith(_YAML)):
        manager = TaskManager(include_path=folders)
    names: list[str] = []
    for name in wanted:
        found = [name] if name.endswith(_YAML) else manager.match_tasks([name])
        if not found:
            raise _unknown(name, manager.all_tasks)
        names += found
    return manager, tuple(dict.fromkeys(names))


def _unknown(name: str, known: Sequence[str]) -> UsageError:
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UsageError(
        f"lm-eval has no task '{name}'",
        next_step=f"{hint}all names: lm-eval ls tasks; your own: --include-path DIR",
    )


def _group_of(file: str) -> str:
    """The group that a YAML file describes; empty of a file that describes a task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return str(load_yaml(file, resolve_func=False, recursive=True).get("group") or "")


def _has_all_of(manager: Any, name: str) -> bool:
    """Whether an index knows a name or pattern, and the members of each group that it names."""
    found = manager.match_tasks([name])
    return bool(found) and all(config for config in _descriptions(manager, found))


def _needs_hub(manager: Any, names: Sequence[str]) -> bool:
    """Whether any data set is not on this machine by its own description."""
    for config in _descriptions(manager, names):
        path = config.get("dataset_path")
        if not isinstance(path, str) or not (path in LOCAL_BUILDERS or Path(path).is_dir()):
            return True
    return False


def _descriptions(manager: Any, items: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """What is written of each task, those of groups and tags included; empty of an unknown one.

    Args:
        manager: the index.
        items: names, paths of YAML files, or objects from a group's list of members.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    for item in items:
        own: Mapping[str, Any] = item if isinstance(item, dict) else {}
        name = own.get("group", own.get("task")) if own else item
        entry = manager.task_index.get(name)
        file = entry.yaml_path if entry else name if name.endswith(_YAML) else None
        known = load_yaml(file, resolve_func=False, recursive=True) if file else {}
        members = known.get("task", own.get("task"))
        if entry and not file:
            members = sorted(entry.tags)
        if isinstance(members, list):
            yield from _descriptions(manager, members)
        elif entry or file or "dataset_path" in own:
            yield {**known, **own}
        else:
            yield {}


def _load(manager: Any, name: str, request: TaskRequest, hub_missing: bool) -> LoadedTask | str:
    """A task, or what is wrong with it."""
    try:
        loaded = manager.load([name])
        for task in loaded["tasks"].values():
            _prepare(task, request)
    except Exception as error:  # noqa: BLE001  (whatever it is, the parent says it)
        return f"task {name}: {_reason(error, hub_missing=hub_missing)}"
    problems = [
        f"task {task_name}: {problem}"
        for task_name, task in loaded["tasks"].items()
        for problem in (*_absent_columns(task), *_not_greedy(task), *_not_scored(task))
    ]
    if problems:
        return "; ".join(problems)
    digest = _digest(loaded["tasks"], request.chat)
    return LoadedTask(name, loaded, request.limit, digest, request.chat)


def _prepare(task: Any, request: TaskRequest) -> None:
    """Examples and requests as lm-eval's `simple_evaluate` and `evaluate` make them."""
    own = task.get_config("num_fewshot")
    if own is None or (request.num_fewshot is not None and own != 0):
        task.set_config(key="num_fewshot", value=request.num_fewshot or 0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    task.build_all_requests(limit=request.limit, rank=0, world_size=1)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def _reason(error: Exception, *, hub_missing: bool) -> str:
    first_line = next((line for line in str(error).splitlines() if line.strip()), repr(error))
    kind = type(error).__name__
    if kind == "UndefinedError":
        return f"its template names what the data lacks: {first_line}"
    if isinstance(error, StopIteration) or any(words in first_line for words in _EMPTY):
        return "its data is empty, or the split that it names is"
    if kind == "KeyError":
        return f"its data has no column or split {first_line}"
    if hub_missing and isinstance(error, OSError | ValueError):
        return (
            "the Hugging Face hub cannot be reached, and the local cache has no copy of its data "
            f"({first_line})"
        )
    return f"{first_line} ({kind})"


def _absent_columns(task: Any) -> Iterator[str]:
    """A bare word that is not a column would be taken for the text itself."""
    features = getattr(task, "features", None) or ()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        value = task.get_config(key)
        if isinstance(value, str) and _NAME.fullmatch(value) and value not in features:
            yield (
                f"{key} names column '{value}', but the data has {', '.join(features)} "
                f"(if it is meant as a text: {{{{'{value}'}}}})"
            )


_TRIED_DOCUMENTS = 100


def _not_scored(task: Any) -> Iterator[str]:
    """Metrics that fail on made-up answers to the first documents, as on those of a model.

    Of likelihoods alone: what a task makes of a text depends on the text. A ValueError may be of
    too few documents, and is left to the scoring itself.
    """
    if task.OUTPUT_TYPE == "generate_until":
        return
    asked: dict[int, list[Any]] = {}
    for one in task.instances:
        if one.doc_id in asked or len(asked) < _TRIED_DOCUMENTS:
            asked.setdefault(one.doc_id, []).append(one)
    rolling = task.OUTPUT_TYPE == "loglikelihood_rolling"
    found: dict[str, list[Any]] = {}
    name = ""
    try:
        for requests in asked.values():
            values = [-1.0 - place for place in range(len(requests))]
            answers = values if rolling else [(value, False) for value in values]
            for metric, value in task.process_results(requests[0].doc, answers).items():
                found.setdefault(metric, []).append(value)
        for name, values in found.items():
            if aggregate := task.aggregation().get(name):
                aggregate(values)
    except ValueError:
        return
    except Exception as error:  # noqa: BLE001  (the task's own code: the parent says it)
        what = f"its metric {name} cannot be aggregated" if name else "its answers cannot be scored"
        yield f"{what}: {str(error) or repr(error)} ({type(error).__name__})"


def _not_greedy(task: Any) -> Iterator[str]:
    if task.OUTPUT_TYPE == "generate_until":
        yield from not_kept(_settings(task.config.generation_kwargs or {}))


def _settings(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    from lm_eval.models.utils import normalize_gen_kwargs

    from harness.quality.lm_eval.model import MAX_GENERATED_TOKENS

    settings: Mapping[str, Any] = normalize_gen_kwargs(dict(asked), MAX_GENERATED_TOKENS)
    return settings


def _digest(tasks: Mapping[str, Any], chat: Chat | None) -> str:
    asked: list[Any] = [
        (name, [(one.request_type, one.args) for one in task.instances], task.dump_config())
        for name, task in sorted(tasks.items())
    ]
    if chat is not None:
        asked.append(asdict(chat))
    return hashlib.sha256(json.dumps(asked, default=_as_text).encode()).hexdigest()


def _as_text(value: object) -> str:
    """Functions by name alone: their address changes with every process."""
    return getattr(value, "__qualname__", None) or str(value)
