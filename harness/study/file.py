"""Reading a study file: every problem at once, each with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.errors import StudyError
from harness.study import Study


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        StudyError: with every problem of the file, each with its place.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        raise StudyError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(str(path), [f"is not YAML: {error}"]) from error
    if not isinstance(data, dict):
        raise StudyError(
            str(path), ["holds no study"], next_step="harness schema prints what one looks like"
        )
    return parse_study(data, source=str(path), base=path.resolve().parent, tree=tree)


def parse_study(
    document: dict[str, Any],
    *,
    source: str,
    base: Path | None = None,
    tree: yaml.Node | None = None,
) -> Study:
    """Check a study given as JSON values.

    `source` names it in messages, relative paths start at `base`, and `tree` (the composed YAML)
    gives problems their lines.

    Raises:
        StudyError: with every problem, each with its place.
    """
    try:
        # By way of JSON, because pydantic's strict mode then still takes lists and enum values.
        return Study.model_validate_json(
            json.dumps(document, default=str), strict=True, context={"base": base or Path.cwd()}
        )
    except ValidationError as error:
        raise StudyError(source, problems_of(error, tree)) from error


def problems_of(error: ValidationError, tree: yaml.Node | None = None) -> list[str]:
    """Each problem in words, with its place; with its line where the composed YAML is given."""
    problems = []
    for item in error.errors():
        place, line = _place(item["loc"], tree)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        at = f"line {line}: " if line else ""
        problems.append(f"{at}{place}{message}".replace("\n", "\n      "))
    return problems


def _place(loc: tuple[int | str, ...], tree: yaml.Node | None) -> tuple[str, int | None]:
    """Path of a problem as the user would write it, and its line.

    pydantic puts the chosen member of a union into the path ('task', 'causal-lm', 'text'): such
    parts are no keys of the file and are left out.
    """
    node: yaml.Node | None = tree
    path = ""
    line = tree.start_mark.line + 1 if tree else None
    for part in loc:
        child = _child(node, part)
        if child is None and part != loc[-1]:
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        if child is not None:
            node, line = child, child.start_mark.line + 1
    return (f"{path}: " if path else ""), line


def _child(node: yaml.Node | None, part: int | str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part] if part < len(node.value) else None
    return None
