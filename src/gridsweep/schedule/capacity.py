"""The least time a sweep takes, and the checks that reject an infeasible sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import heapify, heapreplace

from gridsweep.carbon.spans import hours
from gridsweep.errors import DeadlineError, SpecError
from gridsweep.schedule import worklist
from gridsweep.state.standings import ALIVE
from gridsweep.state.state import State
from gridsweep.sweep.counting import counted
from gridsweep.sweep.experiments import Experiment
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
        raise _too_much(sweep, f"{counted(len(sweep.experiments), 'experiment')}", work, deadline - now)


def check_remaining(state: State, sweep: Sweep, new: Sequence[Experiment], now: datetime) -> None:
    """Raise `DeadlineError` if what is left of a sweep, and what is new, cannot end by another deadline than before.

    `sweep` is the state's sweep with changed keys. What an experiment has trained shortens it; where rungs would stop
    some, they are counted as in a sweep of those that are left.
    """
    deadline = sweep.deadline(state.submitted_at)
    if deadline is None or sweep.finish_by == state.sweep.finish_by:
        return
    if deadline <= now:
        raise DeadlineError(
            f"finish_by is {deadline:%Y-%m-%d %H:%M} UTC, which is past: the sweep's time is {now:%Y-%m-%d %H:%M} UTC; "
            "move finish_by"
        )
    alive = [standing for standing in state.standings.values() if standing.status in ALIVE]
    left = (*(standing.experiment for standing in alive), *new)
    if not left:
        return
    steps = sum(sweep.total_steps - sweep.level(s.experiment, s.step) for s in alive) + sweep.total_steps * len(new)
    work = least_makespan(replace(sweep, experiments=left), now) * (steps / (sweep.total_steps * len(left)))
    if now + work > deadline:
        raise _too_much(sweep, f"what is left of {counted(len(left), 'experiment')}", work, deadline - now)


def _too_much(sweep: Sweep, what: str, work: timedelta, room: timedelta) -> DeadlineError:
    """Return the error for work that takes longer than there is room; to the minute where hours would look alike."""
    told = hours if hours(work) != hours(room) else _minutes
    return DeadlineError(
        f"{what} of {hours(sweep.estimates.duration)} on {counted(len(sweep.devices), 'device')} take {told(work)}, "
        f"and finish_by leaves {told(room)}; move finish_by, add devices, or sample fewer experiments"
    )


def _minutes(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    exact = f" {seconds % 60} s" if seconds % 60 else ""
    return f"{seconds // 3600} h {seconds // 60 % 60} min{exact}"


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
