"""Options in groups: a command takes a dataclass, and typer reads its fields as options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeGuard, get_type_hints


def with_option_groups(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """The command as typer is to read it: each dataclass among its parameters field by field.

    A group's field is an option as a parameter would be: its annotation says the help, its default
    the default. A field that is a dataclass itself is a group within the group. Names are those of
    the fields, so no two groups of a command may share one.
    """
    own = signature(command, eval_str=True).parameters
    groups = {name: one.annotation for name, one in own.items() if _is_group(one.annotation)}
    flat = [
        parameter
        for name, one in own.items()
        for parameter in (_options_of(groups[name]) if name in groups else [one])
    ]

    @wraps(command)
    def called(**typed: Any) -> int | None:
        gathered = {name: _gather(group, typed) for name, group in groups.items()}
        return command(**typed, **gathered)

    keywords = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in flat]
    called.__signature__ = Signature(keywords)  # type: ignore[attr-defined]  # inspect looks for it
    return called


def _is_group(annotation: object) -> TypeGuard[type]:
    return isinstance(annotation, type) and is_dataclass(annotation)


def _options_of(group: type) -> Iterator[Parameter]:
    for field, annotation in _annotated_fields(group):
        if _is_group(annotation):
            yield from _options_of(annotation)
        else:
            yield Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=_default(field), annotation=annotation
            )


def _gather(group: type, typed: dict[str, Any]) -> Any:
    """Take the group's options out of what was typed."""
    return group(
        **{
            field.name: _gather(annotation, typed)
            if _is_group(annotation)
            else typed.pop(field.name)
            for field, annotation in _annotated_fields(group)
        }
    )


def _annotated_fields(group: type) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(group, include_extras=True)
    return ((field, hints[field.name]) for field in fields(group))


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return Parameter.empty if field.default is MISSING else field.default
