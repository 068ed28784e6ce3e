"""Reading a study file: every problem at once, each with its line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from harness.errors import StudyError, did_you_mean
from harness.study import Study
from harness.study.document import study_schema


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
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise StudyError(str(path), [f"{line}is not YAML: {said}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(str(path), [f"is not YAML: {error}"]) from error
    if not isinstance(data, dict):
        raise StudyError(
            str(path), ["holds no study"], next_step="harness schema prints what one looks like"
        )
    if _holds_itself(tree):
        raise StudyError(
            str(path), ["a section holds itself, by an alias (*name) within its anchor"]
        )
    repeated = list(_repeated_keys(tree))
    try:
        study = parse_study(data, source=str(path), base=path.resolve().parent, tree=tree)
    except StudyError as error:
        raise StudyError(str(path), [*repeated, *error.problems]) from error
    if repeated:
        raise StudyError(str(path), repeated)
    return study


def _holds_itself(node: yaml.Node | None, above: tuple[int, ...] = ()) -> bool:
    """Whether a section is among those that it holds, as YAML's aliases can write."""
    if not isinstance(node, yaml.CollectionNode):
        return False
    if id(node) in above:
        return True
    parts = node.value if isinstance(node, yaml.SequenceNode) else [two for _, two in node.value]
    return any(_holds_itself(one, (*above, id(node))) for one in parts)


def _repeated_keys(
    node: yaml.Node | None, path: str = "", known: set[int] | None = None
) -> Iterator[str]:
    """Keys that a section has twice, of which YAML's reader would take the last.

    What an alias (`*name`) stands for is a node that is `known` by then.
    """
    known = set() if known is None else known
    if node is None or id(node) in known:
        return
    known.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            yield from _repeated_keys(item, f"{path}[{place}]", known)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        inner = f"{path}.{key.value}" if path else str(key.value)
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value in first:
            yield f"line {line}: {inner}: is there twice, first in line {first[key.value]}"
        elif isinstance(key, yaml.ScalarNode):
            first[key.value] = line
        yield from _repeated_keys(value, inner, known)


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
        message = _message(item)
        at = f"line {line}: " if line else ""
        problems.append(f"{at}{place}{message}".replace("\n", "\n  "))
    return problems


_QUOTED = re.compile(r"'([^']+)'")


def _message(item: ErrorDetails) -> str:
    """What is wrong, in words; a name that is none, with the one that was probably meant."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + _meant(str(item["loc"][-1]), _known_keys(item["loc"][:-1]))
    if kind == "missing":
        return "is missing"
    if kind in {"enum", "literal_error", "union_tag_invalid"}:
        given = context.get("tag", item["input"])
        of = f"{context['discriminator']} " if "discriminator" in context else ""
        expected = str(context.get("expected", context.get("expected_tags", "")))
        meant = _meant(str(given), _QUOTED.findall(expected))
        return f"{of}{given!r} is not known, only {expected}{meant}"
    return _taken_for_another(kind, item["input"]) or item["msg"].removeprefix("Value error, ")


def _taken_for_another(kind: str, value: object) -> str:
    """What to do where YAML made another kind of a value than it looks like; empty for others."""
    if kind == "string_type" and isinstance(value, bool):
        said = "true or false (as which it takes yes, no, on and off)"
        return f"YAML reads {said} where a text should stand: put it between quotes"
    if kind == "string_type" and isinstance(value, int | float):
        return f"YAML reads the number {value} where a text should stand: put it between quotes"
    if kind in {"float_type", "int_type"} and _is_number(value):
        return (
            f"YAML reads {value!r} as a text: write the number in digits, without quotes and "
            "without an exponent"
        )
    return ""


def _is_number(value: object) -> bool:
    """Whether a text would be a number to anybody but YAML: `1e3` lacks a point there."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _meant(word: str, known: Collection[str]) -> str:
    question = did_you_mean(word, known)
    return f": {question}" if question else ""


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of a section, from the study's JSON schema."""
    whole = study_schema()
    nodes = list(_alternatives(whole, whole))
    for part in loc:
        inner = [found for node in nodes for found in _inside(node, part, whole)]
        nodes = inner or nodes  # the name of a union's member is a part without a node
    return sorted({key for node in nodes for key in node.get("properties", {})})


def _inside(node: dict[str, Any], part: int | str, whole: dict[str, Any]) -> Iterator[Any]:
    """What a schema says of one of its keys or items, or of the member of a union so called."""
    if isinstance(part, int):
        child = node.get("items")
    else:
        mapping = node.get("discriminator", {}).get("mapping", {})
        child = node.get("properties", {}).get(part) or (
            {"$ref": mapping[part]} if part in mapping else None
        )
    if isinstance(child, dict):
        yield from _alternatives(child, whole)


def _alternatives(node: dict[str, Any], whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema, and each of those that it refers to or is a choice of."""
    yield node
    if name := node.get("$ref"):
        yield from _alternatives(whole["$defs"][name.removeprefix("#/$defs/")], whole)
    # A union that is told apart by a key is gone into by the member's name.
    either = () if "discriminator" in node else node.get("oneOf", ())
    for one in (*node.get("anyOf", ()), *either):
        yield from _alternatives(one, whole)


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
