"""The commands by name: each is imported when it is called, so none pays for another's options."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

MODULES = {
    "demo": "run",
    "init": "study_file",
    "run": "run",
    "export": "export",
    "serve": "serve",
    "evaluate": "evaluate",
    "card": "card",
    "profile": "profile",
    "load": "load",
    "sweep": "run",
    "worker": "worker",
    "plan": "plan",
    "autoscale": "autoscale",
    "batch": "batch",
    "route": "route",
    "rollout": "rollout",
    "report": "report",
    "track": "report",
    "schema": "study_file",
    "compare": "compare",
    "decide": "decide",
    "cost": "cost",
    "doctor": "doctor",
}
"""The module of `harness.cli` with each command, a function of the command's name."""


class Commands(TyperGroup):
    """The group of all commands; only the one that is called is imported."""

    def __init__(self, **settings: Any) -> None:
        commands = {name: TyperCommand(name) for name in MODULES}
        super().__init__(**settings | {"commands": commands})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is called."""
        name = args[0]
        if name in MODULES:
            self.commands[name] = imported(name)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with its summary."""
        for name in MODULES:
            self.commands[name] = TyperCommand(name, help=summary(name))
        super().format_help(ctx, formatter)


def imported(name: str) -> Any:
    """A command with its options, as its module defines them."""
    module = importlib.import_module(f"{__package__}.{MODULES[name]}")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command = getattr(module, name)
    # A paragraph is wrapped where the terminal ends, not where the source does.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    alone.command(name, help="\n\n".join(" ".join(one.split()) for one in paragraphs))(command)
    return get_command(alone)


def summary(name: str) -> str:
    """The first line of a command's docstring, read from its source without importing it."""
    source = Path(__file__).with_name(f"{MODULES[name]}.py").read_text(encoding="utf-8")
    functions = (one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef))
    command = next(one for one in functions if one.name == name)
    return (ast.get_docstring(command) or "").partition("\n")[0]
