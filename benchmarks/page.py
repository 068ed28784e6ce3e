"""Rewrites the tables of docs/benchmarks.md: runs each benchmark and puts its rows on the page.

Every table stands between two markers that name its benchmark; the text around it is left alone.
Above a table stand the command that printed it, the day and the machine.

    python benchmarks/page.py                              # everything: about an hour
    python benchmarks/page.py --only generator_capacity fidelity
    python benchmarks/page.py --from runs/benchmarks       # only writes the page again
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from client_process import PeerError
from rows import cell, run_as_command

from harness.system.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "runs" / "benchmarks"
COMMANDS = {
    "generator_capacity": "generator_capacity.py --rounds 5 --seconds 3",
    "fidelity": "fidelity.py --parts known stall --seconds 4",
    "time_to_answer": "time_to_answer.py --with-model-analyzer",
    "evaluation_speed": "evaluation_speed.py --samples 100 --rounds 3",
    "scale_out": "scale_out.py",
    "server_overhead": "server_overhead.py",
    "generation": "generation.py",
    "stream_cpu": "stream_cpu.py --guidellm guidellm --aiperf aiperf",
    "openai_front_end": "openai_front_end.py",
    "capacity_accuracy": "capacity_accuracy.py",
    "soak": "soak.py --minutes 10",
}
"""What the page shows, and how each is run; every one writes its rows with --json."""


def main() -> int:
    """Run what was asked for, and rewrite its tables."""
    options = _parse(sys.argv[1:])
    results: Path = options.results or RESULTS
    results.mkdir(parents=True, exist_ok=True)
    failed = [] if options.results else [one for one in options.only if not _run(one, results)]
    text = PAGE.read_text("utf-8")
    for name in options.only:
        file = results / f"{name}.json"
        if file.exists() and name not in failed:
            text = with_table(text, name, json.loads(file.read_text("utf-8")))
    PAGE.write_text(text, "utf-8")
    if failed:
        raise PeerError(f"not measured, so their tables stay as they were: {', '.join(failed)}")
    return 0


def _run(name: str, results: Path) -> bool:
    """Run one benchmark and keep its rows with the command, the day and the machine."""
    script, *arguments = COMMANDS[name].split()
    rows = results / f"{name}.rows.json"
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments, "--json", str(rows)]
    print(f"python benchmarks/{COMMANDS[name]}", file=sys.stderr, flush=True)
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return False
    measured = {
        "command": f"python benchmarks/{COMMANDS[name]}",
        "day": f"{datetime.now(UTC):%-d %B %Y}",
        "machine": _machine(),
        "rows": json.loads(rows.read_text("utf-8")),
    }
    (results / f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n", "utf-8")
    return True


def _machine() -> str:
    facts = describe_machine()
    return f"{facts.get('cpu')}, {facts.get('usable_cores')} cores"


def with_table(page: str, name: str, measured: dict[str, object]) -> str:
    """The page with a benchmark's block replaced.

    Args:
        page: docs/benchmarks.md.
        name: the benchmark, as its markers have it.
        measured: `command`, `day`, `machine` and `rows`, as `_run` keeps them.

    Raises:
        PeerError: the page has no such block.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    block = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not block.search(page):
        raise PeerError(f"{PAGE.name} has no block for {name}: {begin} ... {end}")
    rows = measured["rows"]
    assert isinstance(rows, list)  # noqa: S101  (what a benchmark wrote)
    head = f"`{measured['command']}`, measured on {measured['day']} ({measured['machine']}):"
    body = "\n\n".join([begin, head, *_tables(rows), end])
    return block.sub(lambda _: body, page)


def _tables(rows: Sequence[dict[str, str | float | None]]) -> Iterator[str]:
    """Markdown, one table for each run of rows with the same columns."""
    for columns, group in groupby(rows, key=tuple):
        own = list(group)
        sides = ["---:" if _is_number([row[one] for row in own]) else ":---" for one in columns]
        lines = [_line([one.replace("_", " ") for one in columns]), _line(sides)]
        lines += [_line([cell(row[one]) for one in columns]) for row in own]
        yield "\n".join(lines)


def _is_number(values: Sequence[object]) -> bool:
    return all(isinstance(one, int | float) for one in values if one is not None)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument(
        "--from", dest="results", type=Path, metavar="DIR", help="results of an earlier run"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
