"""Exact placement of the remaining work on the forecast: any start times, lengths and devices.

`postponing` counts in stints of one length, which is an approximation if lengths differ; this is exact. It takes
milliseconds for a sweep of the usual size, so it is used if the work is small, or if `exact` is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gridsweep.carbon.traces import DAY, Trace
from gridsweep.errors import DeadlineError
from gridsweep.optima import Job, Piece, bound
from gridsweep.policy.backlog import lanes
from gridsweep.policy.planner.postponing import extended
from gridsweep.policy.situation import Situation


def placed(situation: Situation, path: Trace) -> Sequence[Piece] | None:
    """Return the placement of each waiting stint; None if not all deadlines can be met.

    `path` holds the current slot and the forecast after it, gCO2eq/kWh; it may be short and have holes.
    """
    now, waiting = situation.now, situation.waiting
    if situation.deadline is not None and situation.deadline <= now:
        return None
    line = lanes(situation)
    devices = [
        replace(device, power_w=1000 * lane.power_kw) for device, lane in zip(situation.devices, line, strict=True)
    ]
    jobs = [Job(work.experiment, work.duration, max(now, work.latest_start), device=work.device) for work in waiting]
    slowest = min(device.speed for device in devices)
    until = max(work.latest_start + work.duration / slowest for work in waiting) + DAY
    taken = {lane.name: free.free_at for lane, free in zip(devices, line, strict=True)}
    try:
        found = bound(jobs, devices, extended(path, now, until), now, finish_by=situation.deadline, free_at=taken)
    except DeadlineError:
        return None
    return found.pieces
