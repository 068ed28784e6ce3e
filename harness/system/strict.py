"""What all sections of a study share: strictness, names, counts, paths beside the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationInfo
from pydantic_core import core_schema

from harness.errors import UsageError

_Value = TypeVar("_Value")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
PositiveInt = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Unknown keys and wrong types are refused; a section never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def written(read: Callable[[str], _Value], write: Callable[[_Value], str]) -> GetPydanticSchema:
    """A field that a study writes as one line of text and everything else knows as a value.

    It is read when the file is, and written back when the study is stored; the JSON schema says
    that it is a text.

    Args:
        read: raises UsageError on a text that is none of these.
        write: what `read` reads as this value.
    """
    return written_with_paths(lambda text, _: read(text), write)


def written_with_paths(
    read: Callable[[str, ValidationInfo], _Value], write: Callable[[_Value], str]
) -> GetPydanticSchema:
    """Write a text that may name files; `read` finds them by `resolve`."""

    def checked(text: str, info: ValidationInfo) -> _Value:
        try:
            return read(text, info)
        except UsageError as error:
            step = f": {error.next_step}" if error.next_step else ""
            raise ValueError(f"{error}{step}") from error

    schema = core_schema.with_info_after_validator_function(
        checked,
        core_schema.str_schema(),
        serialization=core_schema.plain_serializer_function_ser_schema(
            write, return_schema=core_schema.str_schema()
        ),
    )
    return GetPydanticSchema(lambda _source, _handler: schema)


def resolve(path: Path, info: ValidationInfo) -> Path:
    """A path as the study file means it: relative to its own folder."""
    base: Path = (info.context or {}).get("base", Path.cwd())
    return (base / path.expanduser()).resolve()
