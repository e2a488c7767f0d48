"""The contract of executors, kept by the local and the simulated one."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from builders import START, grid, until
from gridsweep.executors.local import Local
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.state import State
from gridsweep.testing.executor_contract import Bench, ExecutorContract, WorkerContract


class LocalBench(Bench):
    def executor(self, command: Sequence[str]) -> Local:
        return Local(self.store, command, gpus=[])

    def kill(self, attempt: str) -> None:
        folder = self.executor(()).folder(attempt)
        os.kill(folder.pid(), signal.SIGKILL)
        until(lambda: not folder.alive())


class TestLocal(WorkerContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> LocalBench:
        return LocalBench(tmp_path / "store")


class SimulatedBench(Bench):
    """Time passes here only when the contract rests: in quarters of an hour."""

    def __init__(self, store: Path):
        super().__init__(store)
        self.time = START

    def executor(self, command: Sequence[str]) -> Simulated:
        return Simulated()

    def now(self) -> datetime:
        return self.time

    def rest(self, executor, state: State) -> None:
        self.time += timedelta(minutes=15)

    def world(self, executor) -> Virtual:
        return Virtual(self.time, grid(*[100.0] * 48), executor)


class TestSimulated(ExecutorContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> SimulatedBench:
        return SimulatedBench(tmp_path / "store")
