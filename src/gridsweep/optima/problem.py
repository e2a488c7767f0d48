"""The scheduling problem as arrays, in whole ticks (microseconds) after the start, so that ends meet starts exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import HOUR, Column, Trace, utc
from gridsweep.errors import DeadlineError, TraceError
from gridsweep.sweep.counting import counted
from gridsweep.sweep.stints import Device

TICK = timedelta(microseconds=1)
TICKS_PER_HOUR = HOUR // TICK
FINE = 2.0**40
"""Costs are rounded to this fraction of the costliest run: sums are exact, equal costs stay equal, ties run now."""

NOTHING = 1e-250
"""Grams below which all runs cost the same, since fractions of them underflow."""

Ticks = npt.NDArray[np.int64]
Run = tuple[int, int, int, int]
"""Job, device, start and end, in ticks."""


@dataclass(frozen=True, slots=True)
class Job:
    """One stint to place. `length` is at device speed 1; `power_w` is its own power, or None for the device's.

    Without `latest_start` it only has to end within the window; `device` names the only device it may run on.
    """

    name: str
    length: timedelta
    latest_start: datetime | None = None
    ready_at: datetime | None = None
    power_w: float | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A job on a device over `[start, end)`."""

    job: str
    device: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Optimum:
    """The lowest possible emissions, and a schedule that achieves them.

    `emissions_g` includes `idle_g`; `until` is the end of the searched window. If not `proven`, the schedule is
    the best one found, and the optimum may be lower.
    """

    emissions_g: float
    idle_g: float
    pieces: tuple[Piece, ...]
    finish: datetime
    until: datetime
    proven: bool


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Jobs on devices under a trace, as arrays: times in ticks after the start, power in kW.

    `edges` (slots + 1) and `levels` (slots, gCO2eq/kWh) cover the window `[0, edges[-1])`. `ready` and `ends`
    (latest ends if pausing is allowed) have shape (jobs,); `lengths`, `power`, `latest` (starts) and `allowed` have
    shape (jobs, devices); `idle` and `free` (when the device is first free, at least 0) have shape (devices,).
    """

    edges: Ticks
    levels: Column
    ready: Ticks
    ends: Ticks
    lengths: Ticks
    power: Column
    latest: Ticks
    allowed: npt.NDArray[np.bool_]
    idle: Column
    free: Ticks

    @property
    def jobs(self) -> int:
        return len(self.ready)

    @property
    def devices(self) -> int:
        return len(self.idle)

    @property
    def alike(self) -> bool:
        """Whether all jobs draw the same power, and all devices are identical."""
        same = (self.power == self.power[0, 0]).all() and (self.idle == self.idle[0]).all()
        return bool(same and self.allowed.all() and (self.lengths == self.lengths[:, :1]).all())

    def exposure(self, ticks: Ticks) -> Column:
        """Return the integral of the intensity from the start to each instant, gCO2eq/kWh x h."""
        hours = np.diff(self.edges) / TICKS_PER_HOUR
        return np.interp(ticks, self.edges, np.concatenate(([0.0], np.cumsum(self.levels * hours))))

    def only(self, jobs: Sequence[int]) -> Problem:
        """Return the same problem with only these jobs."""
        rows = np.asarray(jobs, dtype=np.intp)
        parts = {name: getattr(self, name)[rows] for name in ("ready", "ends", "lengths", "power", "latest", "allowed")}
        return replace(self, **parts)

    def emissions(self, runs: Iterable[Run]) -> tuple[float, float]:
        """Return the total emissions of runs, idle power until the last end included, and the idle part, g."""
        if not (table := list(runs)):
            return 0.0, 0.0
        job, device, start, end = np.array(table, dtype=np.int64).T
        met = self.exposure(end) - self.exposure(start)
        idle = float(self.idle.sum() * self.exposure(end.max(keepdims=True))[0] - (self.idle[device] * met).sum())
        idle = idle if self.idle.any() else 0.0
        return float((self.power[job, device] * met).sum()) + idle, idle


def problem_of(
    jobs: Sequence[Job],
    devices: Sequence[Device],
    trace: Trace,
    start: datetime,
    finish_by: datetime | None,
    free_at: Mapping[str, datetime] | None = None,
) -> Problem:
    """Return the problem of at least one job. The window ends with the last latest end, `finish_by`, or the trace.

    `free_at` holds, by name, when devices in use become free.

    Raises `ValueError` for no device, a length or a speed that is not positive, or an unknown power; `TraceError` if
    the window's intensity is unknown; `DeadlineError` for a job that cannot end in time even alone.
    """
    start = utc(start)
    _check(jobs, devices)
    lengths, allowed = _lengths(jobs, devices), _allowed(jobs, devices)
    window = (_window_end(trace, start, finish_by) - start) // TICK
    slowest = np.where(allowed, lengths, 0).max(axis=1)
    start_by = np.array(
        [window if j.latest_start is None else (j.latest_start - start) // TICK for j in jobs], np.int64
    )
    ends = np.minimum(start_by + slowest, window)
    until = int(ends.max())
    taken = free_at or {}
    free = np.array([(utc(taken.get(d.name, start)) - start) // TICK for d in devices], np.int64).clip(0, until)
    ready = np.array([0 if j.ready_at is None else max(0, (j.ready_at - start) // TICK) for j in jobs], np.int64)
    latest = np.minimum(start_by[:, None], until - lengths)
    able = allowed & (latest >= np.maximum(ready[:, None], free))
    for job, fits, begin, end in zip(jobs, able.any(axis=1), ready, ends, strict=True):
        if not fits:
            raise _does_not_fit(job, start + int(begin) * TICK, start + int(end) * TICK)
    edges, levels = _slots(trace, start, until)
    return Problem(
        edges=edges,
        levels=levels,
        ready=ready,
        ends=ends,
        lengths=lengths,
        power=_power(jobs, devices) / 1000,
        latest=latest,
        allowed=able,
        idle=np.array([d.idle_power_w for d in devices]) / 1000,
        free=free,
    )


def _check(jobs: Sequence[Job], devices: Sequence[Device]) -> None:
    """Raise `ValueError` for no device, a length or a speed that is not positive, or a job bound to no device here."""
    if not devices:
        raise ValueError("no device to place jobs on; give at least one")
    for job in jobs:
        if job.length < TICK:
            raise ValueError(f"job {job.name} has length {job.length}; give a positive one")
        if job.device is not None and all(device.name != job.device for device in devices):
            raise ValueError(f"job {job.name} may only run on {job.device}, which is not among the devices")
    for device in devices:
        if not device.speed > 0:
            raise ValueError(f"device {device.name} has speed {device.speed:g}; give a positive one")


def _lengths(jobs: Sequence[Job], devices: Sequence[Device]) -> Ticks:
    """Return how long each job takes on each device, shape (jobs, devices), at least one tick."""
    spans = {key: max(1, key[0] / key[1] // TICK) for key in {(job.length, d.speed) for job in jobs for d in devices}}
    speeds = [device.speed for device in devices]
    return np.array([[spans[job.length, speed] for speed in speeds] for job in jobs], dtype=np.int64)


def _allowed(jobs: Sequence[Job], devices: Sequence[Device]) -> npt.NDArray[np.bool_]:
    """Return which job may run on which device, shape (jobs, devices)."""
    names = np.array([device.name for device in devices])
    allowed = np.ones((len(jobs), len(devices)), dtype=np.bool_)
    for i, job in enumerate(jobs):
        if job.device is not None:
            allowed[i] = names == job.device
    return allowed


def _window_end(trace: Trace, start: datetime, finish_by: datetime | None) -> datetime:
    """Return the earlier of the trace's end and `finish_by`. Raise `TraceError` if the trace lacks `start`."""
    last = min(trace.end, trace.end if finish_by is None else utc(finish_by))
    if start < trace.start or last <= start:
        raise TraceError(
            f"the optimum from {start:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC needs a trace of that period; this "
            f"one runs from {trace.start:%Y-%m-%d %H:%M} to {trace.end:%Y-%m-%d %H:%M}"
        )
    return last


def _slots(trace: Trace, start: datetime, until: int) -> tuple[Ticks, Column]:
    """Return the edges and levels of the slots in `[0, until)`. Raise `TraceError` where a level is unknown."""
    seen = trace.between(start, start + until * TICK)
    edges = (seen.start - start) // TICK + np.arange(len(seen) + 1, dtype=np.int64) * (seen.step // TICK)
    if not np.isfinite(seen.values).all():
        raise TraceError(
            f"{int((~np.isfinite(seen.values)).sum())} slots from {seen.start:%Y-%m-%d %H:%M} to "
            f"{seen.end:%Y-%m-%d %H:%M} UTC are unknown; the optimum needs every slot"
        )
    return edges.clip(0, until), seen.values


def _does_not_fit(job: Job, begin: datetime, end: datetime) -> DeadlineError:
    """Return the error for a job that cannot end in time on any device, even alone."""
    return DeadlineError(
        f"job {job.name} takes {job.length} and does not fit from {begin:%Y-%m-%d %H:%M} to "
        f"{end:%Y-%m-%d %H:%M} UTC; move its latest start or finish_by"
    )


def rounded(costs: Column, scale: float) -> Column:
    """Return costs rounded to whole units, `scale` units per gram."""
    return np.rint(costs * scale)


def scale_of(problem: Problem) -> float:
    """Return the number of cost units per gram, such that the costliest possible run is `FINE` units."""
    hours = float(problem.lengths.max()) / TICKS_PER_HOUR
    power = max(float(problem.power.max()), float(problem.idle.max()))
    dearest = float(np.abs(problem.levels).max()) * power * hours
    return FINE / dearest if dearest > NOTHING else 1.0


def too_much(problem: Problem, *, certain: bool = True) -> DeadlineError:
    """Return the error for work that does not fit or, if not `certain`, for which no schedule was found."""
    hours = problem.lengths.min(axis=1).sum() / TICKS_PER_HOUR
    window = problem.edges[-1] / TICKS_PER_HOUR
    return DeadlineError(
        f"{problem.jobs} jobs of {hours:.1f} h in total {'do not fit' if certain else 'could not be placed'} on "
        f"{counted(problem.devices, 'device')} by their deadlines within {window:.1f} h; move the deadlines "
        "or add devices"
    )


def _power(jobs: Sequence[Job], devices: Sequence[Device]) -> Column:
    """Return the power of each job on each device in W, shape (jobs, devices)."""
    of_devices = np.array([np.nan if device.power_w is None else device.power_w for device in devices], np.float64)
    of_jobs = np.array([np.nan if job.power_w is None else job.power_w for job in jobs], np.float64)
    power = np.where(np.isnan(of_jobs)[:, None], of_devices, of_jobs[:, None])
    if np.isnan(power).any():
        j, d = np.argwhere(np.isnan(power))[0]
        raise ValueError(f"neither job {jobs[j].name} nor device {devices[d].name} has a power; give power_w")
    return power
