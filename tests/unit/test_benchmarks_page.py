"""The page of benchmarks: tables between markers, from the rows that the benchmarks write."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from client_process import PeerError
from page import COMMANDS, PAGE, ROOT, with_table

MEASURED = {
    "command": "python benchmarks/soak.py",
    "day": "1 May 2026",
    "machine": "a CPU, 2 cores",
    "rows": [
        {"client": "ours", "requests_per_s": 12345.6, "cpu_ratio": 0.5},
        {"client": "peer", "requests_per_s": 10000.0, "cpu_ratio": None},
        {"case": "stall", "recovered": "yes"},
    ],
}
TABLES = """\
before
<!-- begin: soak -->

`python benchmarks/soak.py`, measured on 1 May 2026 (a CPU, 2 cores):

| client | requests per s | cpu ratio |
| :--- | ---: | ---: |
| ours | 12,346 | 0.500 |
| peer | 10,000 | - |

| case | recovered |
| :--- | :--- |
| stall | yes |

<!-- end: soak -->
after
"""


def test_a_benchmark_s_block_is_replaced_and_the_rest_stays():
    page = "before\n<!-- begin: soak -->\nold\n<!-- end: soak -->\nafter\n"
    assert with_table(page, "soak", MEASURED) == TABLES
    assert with_table(TABLES, "soak", MEASURED) == TABLES


def test_a_page_without_the_block_is_an_error_that_names_it():
    with pytest.raises(PeerError, match="no block for soak"):
        with_table("nothing here", "soak", MEASURED)


def test_the_page_has_a_block_for_every_benchmark_and_every_script_is_there():
    page = PAGE.read_text("utf-8")
    for name, command in COMMANDS.items():
        assert with_table(page, name, MEASURED) != page
        assert (ROOT / "benchmarks" / command.split()[0]).is_file()
