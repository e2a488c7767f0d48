"""The lines a worker writes during its work: progress and energy, rate-limited."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from gridsweep.energy.meters import Meter
from gridsweep.records.attempts import AttemptFolder, EnergyLine, Progress, now

JOULES_PER_KWH = 3_600_000
PROGRESS_EVERY = 0.5  # seconds
ENERGY_EVERY = 1.0


class Diary:
    """Appends progress and energy lines to the attempt's folder; one diary serves all members."""

    def __init__(self, folder: AttemptFolder, meter: Meter):
        self.folder = folder
        self._told = 0.0
        self._start, self._moment, self._joules = now(), time.monotonic(), 0.0
        self._use(meter)

    def measure_with(self, meter: Meter, step: int) -> None:
        """Close the current meter's lap and continue with `meter`."""
        self.close(step)
        self._use(meter)

    def close(self, step: int) -> None:
        """Write the last lap."""
        self.lap(step)
        self.meter.close()

    def tell(
        self,
        phase: Literal["loading", "training", "evaluating"],
        step: int,
        losses: Mapping[str, float] | None = None,
        *,
        surely: bool = False,
        constants: Mapping[str, str] | None = None,
    ) -> None:
        """Write a progress line; skip it if the last line was written just now, unless `surely`."""
        moment = time.monotonic()
        if surely or moment - self._told >= PROGRESS_EVERY:
            self.folder.append(Progress(now(), phase, step, dict(losses or {}), dict(constants) if constants else None))
            self._told = moment
        if moment - self._moment >= ENERGY_EVERY and phase != "loading":
            self.lap(step)

    def lap(self, step: int) -> None:
        """Write the energy since the last lap, with the step reached."""
        moment, joules = time.monotonic(), self.meter.joules()
        kwh = (joules - self._joules) / JOULES_PER_KWH
        seconds = moment - self._moment
        self.folder.append(EnergyLine(self._start, seconds, kwh, self.meter.source, step))
        self._start, self._moment, self._joules = now(), moment, joules

    def _use(self, meter: Meter) -> None:
        self.meter = meter
        self._start, self._moment, self._joules = now(), time.monotonic(), meter.joules()
