"""The simulated queues are a benchmark's: the study and the tests are to speak of the same ones."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
