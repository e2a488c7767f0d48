"""Checks of every decision: devices, deadlines, and order among equal work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gridsweep.errors import PolicyError
from gridsweep.policy.situation import Busy, Decision, Pause, Situation, Start, Wait, Work
from gridsweep.schedule.deadlines import Pressure
from gridsweep.sweep.stints import device_named

LATEST = "latest start reached"


def checked(seen: Situation, decisions: Sequence[Decision], *, forced: bool = True) -> list[Decision]:
    """Return the decisions, corrected where needed.

    Raises `PolicyError` for a device that is taken or unknown, work that is not waiting, or an attempt that is not
    running. Corrected: if `forced`, work whose latest start is reached, or that must start for the deadline to hold,
    starts on a free device; work that was started because of its latest start is not paused; of equal work, the first
    in order starts.
    """
    starts, known = _Starts(seen), {work.experiment for work in seen.waiting}
    running = {busy.attempt: busy for busy in seen.running}
    kept: list[Decision] = []
    for decision in decisions:
        match decision:
            case Start():
                starts.take(decision)
            case Pause(attempt):
                if _may_pause(running, attempt):
                    kept.append(decision)
            case Wait(experiment):
                if experiment not in known:
                    raise PolicyError(f"the policy holds back {experiment}, which is not waiting")
                kept.append(decision)
    if forced:
        starts.force_overdue()
        starts.force_for_deadline()
    if not starts.taken:
        return kept
    ordered = _in_order(seen, starts.taken)
    ids = {id for start in ordered for id in start.members}
    waits = [d for d in kept if not (isinstance(d, Wait) and d.experiment in ids)]
    return [*ordered, *waits]


class _Starts:
    """The starts `taken` so far, the work `left` and the devices `free` after them."""

    def __init__(self, seen: Situation):
        self.seen = seen
        self.taken: list[Start] = []
        self.left = {work.experiment: work for work in seen.waiting}
        self.free = {device.name: device for device in seen.free}

    def take(self, start: Start) -> None:
        """Add a start of the policy. Raise `PolicyError` if its device is taken or its work is not waiting for it."""
        device = start.device
        if not start.members:
            raise PolicyError(f"the policy started nothing on {device}; a Start needs at least one member")
        if device not in self.free:
            raise PolicyError(f"the policy started {', '.join(start.members)} on {device}, which is not free")
        for id in start.members:
            work = self.left.pop(id, None)
            # No step may remain if a worker was killed between its last checkpoint and its result.
            if work is None or not min(work.from_step + 1, work.to_step) <= start.to_step <= work.to_step:
                raise PolicyError(f"the policy started {id} up to step {start.to_step}, which is not waiting for it")
            if work.device not in (None, device):
                raise PolicyError(f"the policy started {id} on {device}, but it may only run on {work.device}")
        del self.free[device]
        self.taken.append(start)

    def force_overdue(self) -> None:
        """Start work whose latest start is reached, on a free device that may run it."""
        for work in self.seen.waiting:
            if work.experiment in self.left and self.seen.now >= work.latest_start:
                name = next((name for name in self.free if work.device in (None, name)), None)
                if name is not None:
                    del self.free[name], self.left[work.experiment]
                    self.taken.append(Start((work.experiment,), work.to_step, name, LATEST))

    def force_for_deadline(self) -> None:
        """Start work that must start now for all work to end by the deadline."""
        seen = self.seen
        if seen.deadline is None or not self.free or not self.left:
            return
        left = [work for work in seen.waiting if work.experiment in self.left]
        ends = {busy.device: busy.expected_end for busy in seen.running}
        for start in self.taken:
            longest = max(work.duration for work in seen.waiting if work.experiment in start.members)
            ends[start.device] = seen.now + longest / device_named(seen.devices, start.device).speed
        why = "must start now so that all work ends by the deadline"
        for work, name in Pressure(seen.now, seen.deadline, seen.tick, left, seen.devices, ends).forced():
            self.taken.append(Start((work.experiment,), work.to_step, name, why, True))


def _may_pause(running: Mapping[str, Busy], attempt: str) -> bool:
    """Whether an attempt may pause: not if it was due or is pausing. Raise `PolicyError` if it is not running."""
    busy = running.get(attempt)
    if busy is None:
        raise PolicyError(f"the policy paused {attempt}, which is not running")
    return not (busy.due or busy.pausing)


def _in_order(seen: Situation, starts: list[Start]) -> list[Start]:
    """Replace started work by the first in order of equal waiting work (tier, remaining steps, device, size)."""

    def kind(work: Work) -> tuple[str, int, int, str | None, int]:
        return (work.tier.name, work.from_step, work.to_step, work.device, len(work.members))

    works = {work.experiment: work for work in seen.waiting}
    chosen = {start.members[0] for start in starts if len(start.members) == 1}
    packed = {id for start in starts if len(start.members) > 1 for id in start.members}
    queues: dict[object, list[Work]] = {}
    for work in seen.waiting:
        if work.experiment not in packed:
            queues.setdefault(kind(work), []).append(work)
    ordered = []
    for start in starts:
        if start.members[0] in chosen:
            first = queues[kind(works[start.members[0]])].pop(0)
            start = replace(start, members=(first.experiment,))
        ordered.append(start)
    return ordered
