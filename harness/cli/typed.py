"""Which options of a command were typed: what does nothing alone is refused, what was asked again.

An option's default does not tell whether it was typed; the context in which typer read it does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import typer

from harness.errors import UsageError

Typed = Mapping[str, object]
"""Values of the options that were typed, by their flags, in the order of the command's help."""


def typed_options(context: typer.Context) -> Typed:
    """The options of a command that were typed, each with its value."""
    options = (one for one in context.command.params if one.opts[0].startswith("-"))
    return {
        one.opts[0]: context.params[one.name]
        for one in options
        if one.name in context.params and _was_typed(context, one.name)
    }


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_without(typed: Typed, needed: str, flags: Collection[str], example: str) -> None:
    """Refuse options that say something of another one, where that was not typed.

    Args:
        typed: what was.
        needed: the flag of which the others say something.
        flags: the others.
        example: `needed` with a value.

    Raises:
        UsageError: they would do nothing.
    """
    alone = [flag for flag in flags if flag in typed]
    if alone and needed not in typed:
        say, them = ("says", "it") if len(alone) == 1 else ("say", "them")
        raise UsageError(
            f"{' and '.join(alone)} {say} something of {needed}, which was not given",
            next_step=f"add {example}, or leave {them} out",
        )


def as_typed(typed: Typed, without: Collection[str] = ()) -> list[str]:
    """The words that give the same options again.

    Args:
        typed: what was typed.
        without: flags that are left out.
    """
    kept = ((flag, value) for flag, value in typed.items() if flag not in without)
    return [word for flag, value in kept for word in _words(flag, value)]


def _words(flag: str, value: object) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from (flag, str(one))
    elif value is True:
        yield flag
    else:
        yield from (flag, str(value).removesuffix(".0") if isinstance(value, float) else str(value))
