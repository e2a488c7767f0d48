"""What is left, placed by the exact optimum on the expected path: any instants, any lengths, any devices.

`postponing` counts in stints of one length; where lengths differ that is a guess, and this is not. It costs
milliseconds for a sweep of the usual size, so it is asked where the work is small, or where `exact` is set.
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
    """Where each waiting stint belongs; None where not all deadlines can be kept.

    `path` holds the present slot and what is expected after it, gCO2eq/kWh; it may be short, and have holes.
    """
    now, waiting = situation.now, situation.waiting
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
