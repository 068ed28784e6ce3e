"""A first study, written from checkpoints and a data file.

Everything that the file says is looked up rather than asked for: the kind of task in the
checkpoints' configurations, the columns by their names and by what they hold, the lengths by the
teacher's tokenizer, the teacher by its size. The text is then read back and checked as
`harness run` checks it.
"""

from __future__ import annotations

import yaml

from harness.errors import ObjectiveError, StudyError, UsageError
from harness.flow.first_study.asked import FirstStudy
from harness.flow.first_study.checkpoints import choose_teacher, open_checkpoints
from harness.flow.first_study.task import find_task, with_lengths
from harness.flow.first_study.text import study_text
from harness.flow.input_checks import check_inputs
from harness.study import Study
from harness.study.clauses import check_priced
from harness.study.file import parse_study
from harness.study.objective import EXAMPLE, parse_objective
from harness.system.storage import replace_text


def write_first_study(asked: FirstStudy) -> tuple[Study, str]:
    """Look at checkpoints and data, and write a study of them.

    Returns:
        The study as it reads back, checked, and its text.

    Raises:
        UsageError: the file is there already; or the first problem of checkpoints, data, columns
            and labels, with what to do.
        StorageError: the file cannot be written.
    """
    if asked.out.exists():
        raise UsageError(
            f"{asked.out} is there already, and nothing is overwritten",
            next_step="name another file: --out OTHER.yaml",
        )
    _check_objective(asked.objective)
    try:
        found = open_checkpoints(asked)
        teacher = choose_teacher(found, asked)
        task = find_task(asked, teacher)
        task = with_lengths(task, found, teacher)
        text = study_text(asked, found, teacher, task)
        study = _checked(asked, text)
    except UsageError as error:
        raise UsageError(_first_line(error), next_step=_next_step(error)) from error
    replace_text(asked.out, text)
    return study, text


def _check_objective(objective: str | None) -> None:
    """Raises UsageError, in one line, before any checkpoint is opened."""
    try:
        check_priced(parse_objective(objective or EXAMPLE))
    except ObjectiveError as error:
        problem, *_, expected = (line.strip() for line in str(error).splitlines())
        raise UsageError(
            f"--slo {objective}: {problem}; {expected}", next_step=error.next_step
        ) from error


def _checked(asked: FirstStudy, text: str) -> Study:
    """The text as `harness run` would read and check it.

    Raises:
        StudyError: with every problem.
    """
    source, base = str(asked.out), asked.out.resolve().parent
    study = parse_study(yaml.safe_load(text), source=source, base=base)
    check_inputs(study)
    return study


def _first_line(error: UsageError) -> str:
    """The first problem of an error, on one line, and how many more there are."""
    head, *problems = str(error).splitlines()
    if not problems:
        return head
    lines = " ".join(" ".join(problems).split()).removeprefix("- ").split(" - ")
    if isinstance(error, StudyError):
        lines = [" ".join(one.split()) for one in error.problems]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"{head.rpartition(':')[0]}: {lines[0]}{more}"


def _next_step(error: UsageError) -> str:
    if "labels do not match" in str(error):
        return (
            "name the classes in the order of the model's outputs: --labels NAME,NAME,...; or the "
            "right column: --column label=COLUMN"
            + (
                "; or what stands between labels: --set separator='|'"
                if "separator" in error.next_step
                else ""
            )
        )
    if "'pooling'" in error.next_step or "has no modules.json" in str(error):
        return (
            "say it as the model was trained: --set pooling=mean (or cls, max, last), and --set "
            "normalised=true where its vectors have length 1"
        )
    return error.next_step or "correct it and run harness init again"
