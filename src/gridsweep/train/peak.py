"""Peak memory: of a GPU as torch counts it, or of this process."""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil
import torch


class Peak:
    """Peak memory since construction. A process's peak is known on Linux only; elsewhere `bytes` returns None."""

    def __init__(self, device: torch.device):
        self.device, self.before = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            ctypes.CDLL(None).malloc_trim(0)  # else memory freed earlier makes the peak look too low
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except (OSError, AttributeError):
            return
        self.before = int(psutil.Process().memory_info().rss)

    def bytes(self, held: int) -> int | None:
        """Return torch's peak on a GPU; for a process, `held` (present before) plus the rise since construction."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        highest = self.resident()
        return None if highest is None else held + highest - self.before

    def resident(self) -> int | None:
        """Return the process's largest resident memory since construction; None on a GPU, or if it is not known."""
        if not self.before:
            return None
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
