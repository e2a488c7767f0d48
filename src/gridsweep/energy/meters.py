"""Meters: the energy a worker has drawn since it began to count, in joules.

What is counted, from the best source to the last resort:

    nvml        the GPU's own energy counter: the whole board, and nothing of the host
    nvml power  the same board, its power sampled and integrated, where there is no counter
    rapl        the processor packages' counters, of which the process gets the share of its CPU time
    modelled    a stated wattage times the time something was busy

A meter that fails while it runs never fails the work: the rest is modelled, and the source says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol  # pynvml has no types, and a double may take its place

import pynvml

from gridsweep.energy.modelled import ModelledMeter
from gridsweep.energy.nvml import NvmlMeter
from gridsweep.energy.rapl import POWERCAP, RaplMeter
from gridsweep.sweep.stints import Device

CORE_W = 15.0  # One busy core of a laptop or a server with its share of the package; stated, not measured.
ACCELERATOR_W = 300.0  # One busy data-centre GPU; stated, not measured.


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
