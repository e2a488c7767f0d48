"""The loop dies at its commits, renames and syncs, the disk fails under loop and workers: the sweep ends the same.

The calls are intercepted by a library that is compiled here (`tests/faults.c`); `benchmarks/drill.py` takes all of
them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

DRILLING = Path(__file__).parents[1] / "drilling.py"
NO_COMPILER = 77


def drilled(*arguments: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, str(DRILLING), *arguments], capture_output=True, text=True, check=False, timeout=500
    )
    if done.returncode == NO_COMPILER:
        pytest.skip("no C compiler")
    assert done.returncode == 0, done.stderr[-2000:]
    (begun, *cases) = [json.loads(line) for line in done.stdout.splitlines()]
    assert begun["points"] > 100 and cases
    for case in cases:
        assert not case["faults"], case
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kills", "writes"])
def test_a_loop_that_dies_at_any_call_goes_on_to_the_same_end(kind):
    """Before or after the call; with `writes` also within one."""
    cases = drilled(kind, "--every", "37", "--first", "3", "--seconds", "25")
    assert len(cases) >= 4 and all(case["disturbed"] for case in cases[:3])


@pytest.mark.slow
@pytest.mark.parametrize("permille", [10, 30, 100])
def test_a_disk_that_fails_now_and_then_is_no_damage(permille):
    # Calls that open and change files. Where reads and looks fail too, as in `benchmarks/drill.py`, a whole journal is
    # now and then told to be damaged (7) by a reading that the same command repeats well.
    cases = drilled("faults", "--permille", str(permille), "--seconds", "12", "--kinds", "63")
    codes = Counter(code for case in cases for code in case["codes"])
    assert codes.keys() <= {0, 2, 5}  # done, the folder cannot be written, or the disk is at fault
    assert all(case["codes"][-1] == 0 for case in cases)


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_5_and_it_goes_on_when_there_is_room():
    cases = drilled("full", "--every", "23", "--first", "4", "--seconds", "20")
    for case in cases:
        assert set(case["codes"][:-1]) <= {0, 5} and case["codes"][-1] == 0
        assert case["codes"][0] == 0 or "No space left" in case["words"] or "disk" in case["words"], case
