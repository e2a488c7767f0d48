"""The table of docs/reliability.md: all sixty rows are there, and every test and file that they name."""

import ast
import re
from collections import Counter

import pytest

from builders import PROJECT

PAGE = PROJECT / "docs" / "reliability.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("\n## What is tested\n")[2]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line.startswith("| ")]
ROWS = [row for row in ROWS if row[0].isdigit()]


def test_all_sixty_are_there_in_order():
    assert [int(row[0]) for row in ROWS] == list(range(1, 61))
    assert {len(row) for row in ROWS} == {5}


def test_the_verdicts_are_those_that_the_section_counts():
    found = Counter(row[2] for row in ROWS)
    shown, partly, none = map(int, re.search(r"(\d+) are shown,\s+(\d+) partly,\s+(\d+) not at all", SECTION).groups())
    assert found == {"shown": shown, "partly": partly, "not here": none}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_what_exists_and_what_is_missing(row):
    _, _, verdict, shown, missing = row
    assert bool(shown) is (verdict != "not here") and (missing or verdict == "shown")
    named = re.findall(r"`((?:tests|benchmarks)/[^`]+)`", shown)
    assert named or not shown
    for place in named:
        file, _, name = place.partition("::")
        assert (PROJECT / file).is_file(), place
        tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
        assert not name or name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, place
