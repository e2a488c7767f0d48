"""Set a GPU's power limit through NVML while a worker trains, and restore it afterwards.

The limit belongs to the board, not to the process, and setting it needs root. Therefore a note file records the
previous limit and stays locked for the lifetime of the worker. An unlocked note was left by a worker that was killed;
the next worker on this board restores the limit first. A reboot clears the folder of the notes, as it clears the limit.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # pynvml has no types, and tests may replace it with a double

import pynvml

from gridsweep.energy.nvml import handle_of
from gridsweep.errors import SpecError
from gridsweep.sweep.stints import Device

NOTES = Path("/run/gridsweep/power")


@dataclass(frozen=True, slots=True)
class Limits:
    """A board's current limit, its default, and the minimum and maximum it allows, all in W.

    `left` is the limit before a worker that was killed without restoring it. `busy` is true if a live worker has set
    the limit.
    """

    now: float
    usual: float
    least: float
    most: float
    left: float | None = None
    busy: bool = False


@contextmanager
def limited(device: Device, index: int | str | None, nvml: Any = pynvml, notes: Path | None = None) -> Iterator[str]:
    """Limit the GPU's power to `device.power_limit_w` during the block, if a limit is given and can be set.

    Yields a message on the outcome, "" if there is nothing to report; without a GPU or without permission the block
    still runs. `index` is NVML's index or UUID of the GPU. Raises `SpecError` if the board does not allow such a limit.
    """
    with ExitStack() as undo:
        try:
            told = _begin(device, index, nvml, notes or NOTES, undo)
        except nvml.NVMLError as error:
            told = f"not set: NVML says {error}" if device.power_limit_w is not None else ""
        yield told


def _begin(device: Device, index: int | str | None, nvml: Any, notes: Path, undo: ExitStack) -> str:
    watts = device.power_limit_w
    if index is None:
        return "not set: there is no NVIDIA GPU here" if watts is not None else ""
    board = _Board(index, nvml, notes)
    undo.callback(board.close)
    before = board.limits()
    if watts is not None and not before.least <= watts <= before.most:
        raise SpecError(
            f"{device.name}: power_limit_w is {watts:g}, and this GPU allows {before.least:g} to {before.most:g} W; "
            "choose one of these, or leave it out"
        )
    told = []
    if before.left is not None:
        told.append(f"a worker that was killed had left {before.now:g} W")
        try:
            board.set(before.left)
            board.forget()
            before = board.limits()
            told[-1] += f", put back to {before.now:g} W"
        except nvml.NVMLError as error:
            told[-1] += f", and putting {before.left:g} W back failed: {error}"
    if watts is None:
        return "; ".join(told)
    if before.busy or not board.note(before.now, watts):
        return "; ".join([f"not set: another worker has set this GPU's, {before.now:g} W", *told])
    try:
        board.set(watts)
    except nvml.NVMLError as error:
        board.forget()
        return "; ".join([f"not set: {error}, it needs root; trained at {before.now:g} W", *told])
    undo.callback(board.put_back, before.now)
    after = board.limits().now
    took = f"{after:g} W" if after == watts else f"{watts:g} W asked for, {after:g} W in force"
    return "; ".join([f"{took}, {before.now:g} W before", *told])


def seen(
    index: int | str, nvml: Any = pynvml, notes: Path | None = None, *, trying: bool = False
) -> tuple[Limits, bool]:
    """Return a GPU's limits, and whether they can be set; False without `trying`, as this is then unknown.

    `trying` sets the current limit again, which changes nothing. Raises NVML's error if the limits cannot be read.
    """
    board = _Board(index, nvml, notes or NOTES)
    try:
        limits, may = board.limits(), False
        if trying:
            with suppress(nvml.NVMLError):
                board.set(limits.now)
                may = True
        return limits, may
    finally:
        board.close()


class _Board:
    """One GPU and its note. The note is locked when needed, and stays locked until `close`."""

    def __init__(self, index: int | str, nvml: Any, notes: Path):
        self.nvml = nvml
        nvml.nvmlInit()
        try:
            self.handle = handle_of(index, nvml)
            self.file = notes / f"{nvml.nvmlDeviceGetUUID(self.handle)}.json"
        except nvml.NVMLError:
            nvml.nvmlShutdown()
            raise
        self.lock: int | None = None

    def limits(self) -> Limits:
        ask = self.nvml
        now = ask.nvmlDeviceGetPowerManagementLimit(self.handle) / 1000
        usual = ask.nvmlDeviceGetPowerManagementDefaultLimit(self.handle) / 1000
        least, most = (w / 1000 for w in ask.nvmlDeviceGetPowerManagementLimitConstraints(self.handle))
        before = self._noted(now)
        busy = before is not None and not self._locked()
        return Limits(now, usual, least, most, None if busy else before, busy)

    def set(self, watts: float) -> None:
        self.nvml.nvmlDeviceSetPowerManagementLimit(self.handle, round(1000 * watts))

    def note(self, before: float, watts: float) -> bool:
        """Record the limit to restore before a new one is set; return False if another worker holds the note."""
        if not self._locked():
            return False
        if self.lock is not None:
            self.forget()
            os.pwrite(self.lock, json.dumps({"before_w": before, "set_w": watts}).encode(), 0)
            os.fsync(self.lock)
        return True

    def forget(self) -> None:
        if self.lock is not None:
            os.ftruncate(self.lock, 0)

    def put_back(self, watts: float) -> None:
        """Restore the limit; if that fails the note stays, and the next worker tries again."""
        try:
            self.set(watts)
            self.forget()
        except self.nvml.NVMLError as error:
            print(f"the power limit could not be put back to {watts:g} W: {error}", flush=True)

    def close(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
        self.nvml.nvmlShutdown()

    def _noted(self, now: float) -> float | None:
        """Return the previous limit in W, if the note is about the current limit; else None."""
        try:
            told = json.loads(self.file.read_text())
            return float(told["before_w"]) if told["set_w"] == now != told["before_w"] else None
        except (OSError, ValueError, KeyError, TypeError):  # no note
            return None

    def _locked(self) -> bool:
        """Lock the note. Also return True if no file can be created: without root, no limit can be set either."""
        if self.lock is not None:
            return True
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self.lock = lock
        return True
