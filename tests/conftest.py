"""For all tests: no deadline an example (the machine may be busy), no GPU for stand-in workers; commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from gridsweep.cli import main

settings.register_profile("gridsweep", deadline=None)
settings.load_profile("gridsweep")


@pytest.fixture(autouse=True)
def fast_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in worker takes five milliseconds a step, and behaves."""
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.005")
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE", raising=False)


@pytest.fixture
def gridsweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[object, str, str]]:
    """Run a command in an empty folder, with the stand-in worker and a cache of its own.

    `code, out, err = gridsweep("check", "x.yaml")`
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRIDSWEEP_WORKER", "gridsweep.testing")
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.01")

    def call(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["gridsweep", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call
