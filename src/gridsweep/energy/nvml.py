"""Energy of NVIDIA GPUs, read from NVML's counter or integrated from its power readings."""

from __future__ import annotations

import os
import threading
import time
from typing import (
    Any,  # pynvml has no types, and tests may replace it with a double
)

import pynvml

from gridsweep.energy.modelled import Seconds

SAMPLE_EVERY_S = 0.4


def nvml_index(cuda_visible_devices: str | None) -> int | str | None:
    """Return NVML's index or UUID of a process's first CUDA device, or None if every GPU is hidden.

    `cuda_visible_devices` is the value of CUDA_VISIBLE_DEVICES; None (the variable is not set) means GPU 0. Numbers
    follow NVML's order only under CUDA_DEVICE_ORDER=PCI_BUS_ID; if the GPUs differ, the launcher of the workers must
    set that variable.
    """
    if cuda_visible_devices is None:
        return 0
    first = cuda_visible_devices.split(",")[0].strip()
    if first.isdecimal():
        return int(first)
    return first if first.startswith(("GPU-", "MIG-")) else None


class NvmlMeter:
    """The energy of one NVIDIA board: the driver's millijoule counter, or its power sampled at 2.5 Hz.

    `index` is NVML's index or a UUID, which may be shortened as CUDA allows. By design, a board belongs to one
    worker, so all of its energy counts, idle power too. Raises `nvml.NVMLError` if the GPU does not exist or reports
    neither energy nor power.
    """

    def __init__(self, index: int | str, nvml: Any = pynvml, clock: Seconds = time.monotonic):
        self._nvml = nvml
        self._clock = clock
        self._total = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None
        nvml.nvmlInit()
        try:
            self._handle = handle_of(index, nvml)
            try:
                self._last = self._counter()
                self.source = "nvml"
            except nvml.NVMLError:  # GPUs before Volta report power but have no energy counter.
                self._last, self._at = self._power(), clock()
                self.source = "nvml power"
        except nvml.NVMLError:
            nvml.nvmlShutdown()
            raise
        if self.source == "nvml power":
            self._sampler = threading.Thread(target=self._sample, name="gridsweep-power", daemon=True)
            self._sampler.start()

    def joules(self) -> float:
        if self._sampler is not None:
            return self._integrate()
        now = self._counter()
        # The counter restarts when the driver is reloaded; the energy of that interval is unknown.
        self._total += max(0.0, now - self._last)
        self._last = now
        return self._total

    def close(self) -> None:
        self._stop.set()
        if self._sampler is not None:
            self._sampler.join()
        self._nvml.nvmlShutdown()

    def _counter(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000

    def _power(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000

    def _integrate(self) -> float:
        """Add the trapezoid since the last sample, in joules."""
        with self._lock:
            power, at = self._power(), self._clock()
            self._total += (self._last + power) / 2 * max(0.0, at - self._at)
            self._last, self._at = power, at
            return self._total

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            try:
                self._integrate()
            except Exception:
                # The next sample bridges a missed one; `joules` raises if the GPU is lost.
                continue


def handle_of(index: int | str, nvml: Any) -> Any:
    """Return NVML's handle of a GPU by its index, UUID or UUID prefix. Raises NVML's error."""
    if isinstance(index, int):
        return nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        return nvml.nvmlDeviceGetHandleByUUID(index)
    except nvml.NVMLError:
        # CUDA accepts an unambiguous prefix of a UUID; NVML accepts only the whole.
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        found = [handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(index)]
        if len(found) != 1:
            raise
        return found[0]


def visible_gpus(nvml: Any = None) -> list[str]:
    """Return the possible entries of CUDA_VISIBLE_DEVICES: those it has, or else the indices of this machine's GPUs."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return []
    return [str(index) for index in range(count)]
