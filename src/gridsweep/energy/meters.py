"""Meters: the energy that a worker has drawn since its meter was created, in joules.

Sources, from the best to the last resort:

    nvml        the GPU's own energy counter: the whole board, without the host
    nvml power  the same board, with its power sampled and integrated, if it has no energy counter
    rapl        the energy counters of the processor packages; the process gets the share of its CPU time
    modelled    a stated wattage times the busy time

A meter that fails during a run never fails the work: the remaining energy is modelled, and `source` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol  # pynvml has no types, and tests may replace it with a double

import pynvml

from gridsweep.energy.modelled import ModelledMeter
from gridsweep.energy.nvml import NvmlMeter
from gridsweep.energy.rapl import POWERCAP, RaplMeter
from gridsweep.sweep.stints import Device

CORE_W = 15.0  # One busy core of a laptop or server, with its share of the package; an assumption, not measured.
ACCELERATOR_W = 300.0  # One busy data-centre GPU; an assumption, not measured.


class Meter(Protocol):
    """An energy counter; `source` names the origin of the numbers, and may change if a meter is lost."""

    @property
    def source(self) -> str: ...

    def joules(self) -> float:
        """Return the joules since the meter was created; the value never decreases."""
        ...

    def close(self) -> None:
        """Release the resources of the meter; `joules` must not be called afterwards."""
        ...


def meter_for(
    device: Device,
    accelerator_index: int | str | None = None,
    powercap: Path = POWERCAP,
    nvml: Any = pynvml,
) -> Meter:
    """Return the best available meter for work on `device`; never fails.

    With an accelerator (`accelerator_index`, see `nvml_index`): NVML, or else the stated power times wall-clock
    time, because RAPL does not measure the accelerator. Without one: RAPL, or else the stated power times CPU
    time. The stated power is the device's `power_w`, or a default.
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
    except Exception:  # Work continues without its meter, whatever a driver or the kernel raises.
        return modelled


def _watts(device: Device, otherwise: float) -> float:
    return otherwise if device.power_w is None else device.power_w


class LastingMeter:
    """A measured meter that is replaced by a model for good if it fails; the measured energy stays counted."""

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
                # The offset that lets the model continue from the last good reading.
                self._base = self._total - modelled
                return self._total
            except Exception:  # Any failure of a driver or a kernel file; it must not affect the work.
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
        except Exception:  # Closing a driver that is gone may fail too.
            return
