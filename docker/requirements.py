"""Print what pyproject.toml requires, one per line; arguments are the extras wanted beside it.

An image installs these before it sees the source, so that a changed line of code costs no second
download.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [project["optional-dependencies"][name] for name in sys.argv[1:]]
sys.stdout.write("\n".join(sum(extras, project["dependencies"])) + "\n")
