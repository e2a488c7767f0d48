"""Meters: the energy a worker has drawn since it began to count, in joules.

What is counted, from the best source to the last resort:

    nvml        the GPU's own energy counter: the whole board, and nothing of the host
    nvml power  the same board, its power sampled and integrated, where there is no counter
    rapl        the processor packages' counters, of which the process gets the share of its CPU time
    modelled    a stated wattage times the time something was busy

A meter that fails while it runs never fails the work: the rest is modelled, and the source says so.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psutil
import pynvml

from gridsweep.sweep.stints import Device

POWERCAP = Path("/sys/class/powercap")
CORE_W = 15.0  # One busy core of a laptop or a server with its share of the package; stated, not measured.
ACCELERATOR_W = 300.0  # One busy data-centre GPU; stated, not measured.
PACKAGE_LIMIT_W = 1000.0  # No package draws more: a counter that says so was reset, and did not wrap around.
SAMPLE_EVERY_S = 0.4

Seconds = Callable[[], float]


class Meter(Protocol):
    """Counts energy; `source` names where the numbers come from, and may change when a meter is lost."""

    @property
    def source(self) -> str: ...

    def joules(self) -> float:
        """Joules since the meter was made; never decreasing."""
        ...

    def close(self) -> None:
        """Let go of what the meter holds; `joules` is not to be asked afterwards."""
        ...


def meter_for(
    device: Device,
    accelerator_index: int | str | None = None,
    powercap: Path = POWERCAP,
    nvml: Any = pynvml,
) -> Meter:
    """The best meter there is for work on `device`, which never fails.

    With an accelerator (`accelerator_index`, see `nvml_index`): NVML, else its stated power while the time
    runs, for RAPL cannot see it. Without: RAPL, else stated power times CPU time. The stated power is the
    device's.
    """
    measured: Callable[[], Meter]
    if accelerator_index is not None:
        modelled = ModelledMeter(_watts(device, ACCELERATOR_W), time.monotonic)
        measured = partial(NvmlMeter, accelerator_index, nvml)
    else:
        modelled = ModelledMeter(_watts(device, CORE_W))
        measured = partial(RaplMeter, powercap)
    try:
        return LastingMeter(measured(), modelled)
    except Exception:  # Whatever a driver or a kernel answers, work goes on without its meter.
        return modelled


def _watts(device: Device, otherwise: float) -> float:
    return otherwise if device.power_w is None else device.power_w


def nvml_index(cuda_visible_devices: str | None) -> int | str | None:
    """What NVML calls a process's first CUDA device: an index, a UUID, or None where every GPU is hidden.

    `cuda_visible_devices` is the value of CUDA_VISIBLE_DEVICES; None, where it is not set, is GPU 0. Numbers
    count as NVML does only under CUDA_DEVICE_ORDER=PCI_BUS_ID; where GPUs differ, whoever starts workers must
    set it.
    """
    if cuda_visible_devices is None:
        return 0
    first = cuda_visible_devices.split(",")[0].strip()
    if first.isdecimal():
        return int(first)
    return first if first.startswith(("GPU-", "MIG-")) else None


def cpu_seconds() -> float:
    """CPU time, user and system, of this process, its living descendants, and all that it has waited for."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    try:
        for child in psutil.Process().children(recursive=True):
            try:
                spent = child.cpu_times()
            except psutil.Error:
                continue  # It has ended meanwhile; its time is in its parent's sum as soon as that one waits.
            total += spent.user + spent.system + spent.children_user + spent.children_system
    except (psutil.Error, OSError):
        pass  # Where processes cannot be listed (a hardened /proc), the own time is what can be known.
    return total


def busy_seconds() -> float:
    """CPU time that all cores of the machine have spent on anything but waiting, since it started."""
    spent = psutil.cpu_times()
    return float(sum(getattr(spent, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq")))


class ModelledMeter:
    """`watts` times the seconds that `busy` counts: CPU time of this process tree unless told otherwise."""

    source = "modelled"

    def __init__(self, watts: float, busy: Seconds = cpu_seconds):
        self._watts = watts
        self._busy = busy
        self._first = self._last = busy()

    def joules(self) -> float:
        # CPU time dips while a child has ended and is not yet waited for: nothing is counted twice.
        self._last = max(self._last, self._busy())
        return self._watts * (self._last - self._first)

    def close(self) -> None: ...


class LastingMeter:
    """A measured meter that a model takes over for good when it fails; what was measured stays counted."""

    def __init__(self, measured: Meter, modelled: Meter):
        self._measured = measured
        self._modelled = modelled
        self._base = measured.joules() - modelled.joules()
        self._total = 0.0
        self._lost = ""

    @property
    def source(self) -> str:
        return f"{self._modelled.source} ({self._lost} lost)" if self._lost else self._measured.source

    def joules(self) -> float:
        modelled = self._modelled.joules()
        if not self._lost:
            try:
                self._total = max(self._total, self._measured.joules())
                # Where the model would stand had it counted all along: it goes on from the last good reading.
                self._base = self._total - modelled
                return self._total
            except Exception:  # Any failure of a driver or a kernel file; the work must not notice.
                self._lost = self._measured.source
                self._close_measured()
        self._total = max(self._total, self._base + modelled)
        return self._total

    def close(self) -> None:
        if not self._lost:
            self._close_measured()

    def _close_measured(self) -> None:
        try:
            self._measured.close()
        except Exception:  # Closing a driver that has gone away may fail, too.
            return


class NvmlMeter:
    """The energy of one NVIDIA board: the driver's millijoule counter, or its power sampled at 2.5 Hz.

    `index` is NVML's index or a UUID, which may be shortened as CUDA allows. The board is one worker's by
    design, so all of it counts, idle power too. Raises `nvml.NVMLError` where there is no such GPU or it says
    nothing.
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
            except nvml.NVMLError:  # Before Volta there is no counter, but there is power.
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
        # The counter starts again when the driver is loaded again: what it lost then nobody knows.
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
                # One sample missed is bridged by the next; a lost GPU shows when `joules` is asked.
                continue


def handle_of(index: int | str, nvml: Any) -> Any:
    """NVML's handle of a GPU by its number or UUID, even the beginning of one. Raises NVML's error."""
    if isinstance(index, int):
        return nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        return nvml.nvmlDeviceGetHandleByUUID(index)
    except nvml.NVMLError:
        # CUDA takes the beginning of a UUID where it is unambiguous, NVML only the whole.
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        found = [handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(index)]
        if len(found) != 1:
            raise
        return found[0]


class RaplMeter:
    """This process tree's share of what the processor packages draw, by RAPL's microjoule counters.

    All processes draw from a package, so of each interval between two readings the tree gets its CPU time
    over the CPU time of all: who is busy carries the idle power too. Memory counts only where the package
    includes it. A counter wraps around after 10 to 60 minutes of load, and a second time unseen: read it
    every few minutes. Raises `OSError` or `ValueError` where no package can be read (the files are root's by
    default).
    """

    source = "rapl"

    def __init__(
        self,
        root: Path = POWERCAP,
        own: Seconds = cpu_seconds,
        busy: Seconds = busy_seconds,
        clock: Seconds = time.monotonic,
    ):
        self._own, self._busy, self._clock = own, busy, clock
        self._packages = [_Package(path) for path in _package_folders(root)]
        if not self._packages:
            raise FileNotFoundError(f"{root}: no processor package counts its energy here")
        self._spent, self._machine, self._at = own(), busy(), clock()
        self._total = 0.0

    def joules(self) -> float:
        at = self._clock()
        drawn = [package.drawn(at - self._at) for package in self._packages]
        spent, machine = max(self._spent, self._own()), max(self._machine, self._busy())
        everyone = machine - self._machine
        share = min(1.0, (spent - self._spent) / everyone) if everyone > 0 else 0.0
        self._total += share * sum(drawn)
        self._spent, self._machine, self._at = spent, machine, at
        return self._total

    def close(self) -> None: ...


def _package_folders(root: Path) -> list[Path]:
    """Each package once: no part of one, no `psys` (the whole platform), no second driver of the same."""
    folders = sorted(p for p in root.glob("intel-rapl:*") if re.fullmatch(r"intel-rapl:\d+", p.name))
    named = {(path / "name").read_text().strip(): path for path in reversed(folders)}
    return [path for name, path in sorted(named.items()) if name.startswith("package")]


class _Package:
    def __init__(self, folder: Path):
        self._counter = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = self._read()

    def _read(self) -> int:
        return int(self._counter.read_text())

    def drawn(self, seconds: float) -> float:
        """Joules since the last reading, `seconds` ago."""
        now = self._read()
        drawn = now - self._last
        self._last = now
        if drawn < 0:
            drawn += self._range
            if not 0 <= drawn / 1e6 <= PACKAGE_LIMIT_W * seconds:
                return 0.0  # Not wrapped around but set back, as after a suspend: the interval is unknown.
        return drawn / 1e6
