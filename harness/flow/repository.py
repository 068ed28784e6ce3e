"""What a model repository offers to a load test: its variants, each with payloads to send it.

`harness export` leaves both beside the model that Triton loads: `<variant>/manifest.json` and
`<variant>/payloads.npz`. Whoever has the repository then needs no run folder to send it load.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError

MANIFEST, PAYLOADS = "manifest.json", "payloads.npz"


def variants_in(repository: Path) -> dict[str, Path]:
    """The payload file of each variant of a repository, by the variant's name, in their order.

    A folder without one of the two files is none: hand-written models lie there too. A repository
    that does not exist, or cannot be read, has none.
    """
    try:
        folders = sorted(one for one in repository.iterdir() if (one / MANIFEST).is_file())
    except OSError:
        return {}
    return {one.name: one / PAYLOADS for one in folders if (one / PAYLOADS).is_file()}


def payloads_of(repository: Path, variant: str) -> Path:
    """The payload file of one variant.

    Raises:
        UsageError: the repository has no such variant, or has no payloads for it.
    """
    found = variants_in(repository)
    if variant in found:
        return found[variant]
    if (repository / variant / MANIFEST).is_file():
        problem = f"{repository / variant} has no {PAYLOADS}"
        raise UsageError(problem, next_step="export it again: harness export STUDY writes both")
    known = ", ".join(found) or "none: harness export STUDY makes them"
    raise UsageError(
        f"{repository} has no variant '{variant}'", next_step=f"those that it has: {known}"
    )
