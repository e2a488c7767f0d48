"""The least time a sweep takes, and the checks that reject an infeasible sweep."""

from __future__ import annotations

from datetime import datetime, timedelta
from heapq import heapify, heapreplace

from gridsweep.carbon.spans import hours
from gridsweep.errors import DeadlineError, SpecError
from gridsweep.schedule import worklist
from gridsweep.sweep.counting import counted
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import Sweep


def check_work(sweep: Sweep) -> None:
    """Raise `SpecError` if the sweep has no device, or an estimated duration that is not positive."""
    if not sweep.devices:
        raise SpecError(f"{sweep.name} has no device to run on; add at least one")
    if sweep.estimates.duration <= timedelta(0):
        raise SpecError(f"the estimated duration is {hours(sweep.estimates.duration)}; give a positive estimate")


def check_deadline(sweep: Sweep, now: datetime) -> None:
    """Raise `DeadlineError` if the sweep cannot end by its deadline even if all work starts at once."""
    check_work(sweep)
    deadline = sweep.deadline(now)
    if deadline is None:
        return
    if deadline <= now:
        raise DeadlineError(
            f"finish_by is {deadline:%Y-%m-%d %H:%M} UTC, which is {hours(now - deadline)} before the sweep begins; "
            "move finish_by"
        )
    work = least_makespan(sweep, now)
    if now + work > deadline:
        raise DeadlineError(
            f"{counted(len(sweep.experiments), 'experiment')} of {hours(sweep.estimates.duration)} on "
            f"{counted(len(sweep.devices), 'device')} take {hours(work)}, and finish_by leaves "
            f"{hours(deadline - now)}; move finish_by, add devices, or sample fewer experiments"
        )


def least_makespan(sweep: Sweep, now: datetime) -> timedelta:
    """Return the shortest makespan: each experiment on the device where it ends first; stages one after another."""
    if sweep.staged:
        return worklist.staged_makespan(sweep, now)
    spans = {device.name: sweep.estimates.duration / device.speed for device in sweep.devices}
    last = timedelta(0)
    pinned = {e.device for e in sweep.experiments}
    for only in pinned:
        free = [device for device in sweep.devices if only in (None, device.name)] or [Device(str(only))]
        ends = [(spans.get(device.name, sweep.estimates.duration), i) for i, device in enumerate(free)]
        heapify(ends)
        for _ in (e for e in sweep.experiments if e.device == only):
            end, i = ends[0]
            last = max(last, end)
            heapreplace(ends, (end + spans.get(free[i].name, sweep.estimates.duration), i))
    return last


def reach_of(sweep: Sweep, now: datetime) -> timedelta:
    """Return how long after the submission the sweep should have ended at the latest."""
    latest = max(tier.max_delay for tier in sweep.tiers) + least_makespan(sweep, now)
    deadline = sweep.deadline(now)
    return latest if deadline is None else max(least_makespan(sweep, now), min(latest, deadline - now))
