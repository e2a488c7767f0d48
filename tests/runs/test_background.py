"""Background runs that end before they hold the folder."""

import json
import sys

import pytest

from gridsweep.errors import (
    DeadlineError,
    ExecutorError,
    JournalError,
    LeaseError,
    SignalError,
    SpecError,
)
from gridsweep.runs.background import detach


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Let the background run be a script of ours."""

    python = sys.executable

    def use(text):
        script = tmp_path / "program"
        script.write_text(f"#!{python}\n{text}")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return use


def test_a_run_that_does_not_start_is_told_with_its_own_words_code_and_remedy(program, tmp_path):
    folder = tmp_path / "run"
    program("import sys; sys.exit('the first run fails')")
    with pytest.raises(ExecutorError):
        detach("sweep.yaml", folder)
    program("import sys; sys.exit('no such device')")
    with pytest.raises(ExecutorError) as told:
        detach("sweep.yaml", folder)
    assert "exit code 1): no such device" in told.value.what and "first run" not in told.value.what
    assert "without --detach" in told.value.remedy and "state/run.log" in told.value.remedy


@pytest.mark.parametrize(
    ("code", "error"), [(2, SpecError), (6, LeaseError), (7, JournalError), (8, SignalError), (124, DeadlineError)]
)
def test_its_exit_code_is_that_of_the_run(program, tmp_path, code, error):
    program(f"raise SystemExit({code})")
    with pytest.raises(error) as told:
        detach("sweep.yaml", tmp_path / "run")
    assert told.value.exit_code == code


def test_a_silent_end_is_told_as_one(program, tmp_path):
    program("raise SystemExit(5)")
    with pytest.raises(ExecutorError, match=r"exit code 5\): no output"):
        detach("sweep.yaml", tmp_path / "run")


def test_a_run_with_nothing_left_to_do_is_no_error(program, tmp_path):
    program("import json, sys; print(json.dumps(sys.argv[1:]))")
    detach("sweep.yaml", tmp_path / "run")
    words = json.loads((tmp_path / "run/state/run.log").read_text())
    assert words == ["-P", "-m", "gridsweep.cli", "run", "sweep.yaml", "--folder", str(tmp_path / "run")]
