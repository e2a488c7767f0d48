"""Commands where the terminal's encoding is not UTF-8, where it is narrow, and where no colour is wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapter_files import run_with_adapters

VERBS = [
    ["status", "done"],
    ["report", "done"],
    ["models", "done"],
    ["best", "done"],
    ["explain", "e01", "done"],
    ["report", "done", "--markdown"],
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made")
    run_with_adapters(made / "done")
    return made


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_what_an_encoding_lacks_is_replaced(place: Path, verb: list[str], encoding: str) -> None:
    variables = os.environ | {"PYTHONIOENCODING": encoding, "NO_COLOR": "1", "COLUMNS": "60"}
    command = [sys.executable, "-m", "gridsweep", *verb]
    done = subprocess.run(command, cwd=place, env=variables, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout and b"\x1b" not in done.stdout
    done.stdout.decode("utf-8" if encoding == "ascii" else encoding)  # click takes ASCII for a missing locale
