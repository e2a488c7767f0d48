"""`gridsweep run` in a terminal that is closed, with a hang-up, with readers that go away, and under any umask."""

from __future__ import annotations

import os
import pty
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import attempts, lines, until
from gridsweep.errors import DONE, SIGNALLED
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.mending import verify

SPEC = """
name: terminal
model: tiny-qwen2
dataset: {id: stdlib, train_samples: 64, validation_samples: 32}
recipe: {steps: 40, batch_size: 4, checkpoint_every: 2}
space: {r: [4, 8], alpha: [16], lr: [1e-4], dropout: [0.05]}
design: grid
carbon: {provider: static, zone: 200}
policy: immediate
devices: 2
estimates: {duration: 20m, power_w: 15}
rungs: none
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC.replace("{provider: static, zone: 200}", "{provider: trace, file: solar-valley}")
                    + 'clock: {replay: {from: "2024-06-10T16:00:00Z", speed: 1000}}\n')  # fmt: skip
    monkeypatch.setenv("GRIDSWEEP_WORKER", "gridsweep.testing")
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.05")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def command(spec: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "gridsweep", "run", str(spec), "--folder", str(spec.parent / "run")]


def at_work(folder: Path) -> bool:
    return any(line.step >= 4 for attempt in attempts(folder) for line in lines(attempt))


def goes_on(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stopped is whole, and the same command ends it."""
    folder = spec.parent / "run"
    state = RunFolder(folder).read()
    assert state.left == 2 and not state.active and max(s.step for s in state.standings.values()) >= 4
    assert verify(folder).faults == ()
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.001")
    done = subprocess.run(command(spec), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == DONE and "Traceback" not in done.stderr
    assert {s.status for s in RunFolder(folder).read().standings.values()} == {"done"}


def test_a_hang_up_stops_a_run_at_its_checkpoints(spec, monkeypatch):
    process = subprocess.Popen(command(spec), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: at_work(spec.parent / "run"))
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == SIGNALLED and "Traceback" not in err and "SIGHUP" in out + err
    goes_on(spec, monkeypatch)


def test_a_terminal_that_is_closed_stops_a_run_at_its_checkpoints(spec, monkeypatch):
    """The kernel sends a hang-up, and whatever is written from then on fails."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command(spec))
    os.set_blocking(terminal, False)
    end = time.monotonic() + 60
    while not at_work(spec.parent / "run"):
        assert time.monotonic() < end
        try:
            os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.02)
    os.close(terminal)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(ended[1]) == SIGNALLED
    goes_on(spec, monkeypatch)


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_a_reader_that_goes_away_does_not_end_a_run(spec, monkeypatch, stream):
    """A run whose progress nobody reads goes on; its exit code says that it is done only if it is."""
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.01")
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: subprocess.PIPE}
    process = subprocess.Popen(command(spec), **streams)
    (process.stderr if stream == "stderr" else process.stdout).close()  # type: ignore[union-attr]  # it is a pipe
    assert process.wait(60) == DONE
    assert RunFolder(spec.parent / "run").read().left == 0


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_a_run_is_the_same_under_any_umask(spec, monkeypatch, mask):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.001")
    done = subprocess.run(command(spec), capture_output=True, text=True, check=False, timeout=60, umask=mask)
    assert done.returncode == DONE, done.stderr
    folder = spec.parent / "run"
    assert verify(folder).faults == ()
    assert stat.S_IMODE((folder / "state").stat().st_mode) == 0o700  # requests and the journal are the user's own
    for path in folder.rglob("*"):
        assert path.is_symlink() or not stat.S_IMODE(path.stat().st_mode) & mask, path
