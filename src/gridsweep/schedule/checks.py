"""What no policy may get wrong: devices, deadlines, and who goes first among equals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gridsweep.errors import PolicyError
from gridsweep.policy.situation import Decision, Pause, Situation, Start, Wait, Work
from gridsweep.schedule.deadlines import Pressure


def checked(seen: Situation, decisions: Sequence[Decision], *, forced: bool = True) -> list[Decision]:
    """The decisions, with what no policy may get wrong put right, or refused.

    Refused (`PolicyError`): a device that is taken or unknown, work that does not wait, an attempt that does not run.
    Put right: work whose latest start has come, or without which the deadline would not hold, goes to a device left
    free (if `forced`); work that was started because
    of its latest start is not paused; of equal work the first in order starts.
    """
    works = {work.experiment: work for work in seen.waiting}
    known = frozenset(works)
    free = {device.name: device for device in seen.free}
    active = {busy.attempt: busy for busy in seen.running}
    kept: list[Decision] = []
    started: list[Start] = []
    for decision in decisions:
        match decision:
            case Start(members, to_step, device):
                if not members:
                    raise PolicyError(f"the policy started nothing on {device}")
                if device not in free:
                    raise PolicyError(f"the policy started {', '.join(members)} on {device}, which is not free")
                for id in members:
                    work = works.pop(id, None)
                    # No step may remain: of a worker killed between its last checkpoint and its result.
                    if work is None or not min(work.from_step + 1, work.to_step) <= to_step <= work.to_step:
                        raise PolicyError(f"the policy started {id} up to step {to_step}, which does not wait for that")
                    if work.device not in (None, device):
                        raise PolicyError(f"the policy started {id} on {device}; it may only run on {work.device}")
                del free[device]
                started.append(decision)
            case Pause(attempt):
                if attempt not in active:
                    raise PolicyError(f"the policy paused {attempt}, which does not run")
                if not (active[attempt].due or active[attempt].pausing):
                    kept.append(decision)
            case Wait(experiment):
                if experiment not in known:
                    raise PolicyError(f"the policy waits with {experiment}, which does not wait")
                kept.append(decision)
    for work in seen.waiting:
        if forced and work.experiment in works and seen.now >= work.latest_start:
            name = next((name for name in free if work.device in (None, name)), None)
            if name is not None:
                del free[name], works[work.experiment]
                started.append(Start((work.experiment,), work.to_step, name, "its latest start has come"))
    if forced and seen.deadline is not None and free and works:
        left = [work for work in seen.waiting if work.experiment in works]
        ends = {b.device: b.expected_end for b in seen.running}
        for start in started:
            speed = next(device.speed for device in seen.devices if device.name == start.device)
            longest = max(work.duration for work in seen.waiting if work.experiment in start.members)
            ends[start.device] = seen.now + longest / speed
        for work, name in Pressure(seen.now, seen.deadline, seen.tick, left, seen.devices, ends).forced():
            started.append(Start((work.experiment,), work.to_step, name, "or not all would end by the deadline", True))
    if not started:
        return kept
    starts = _in_order(seen, started)
    ids = {id for start in starts for id in start.members}
    waits = [d for d in kept if not (isinstance(d, Wait) and d.experiment in ids)]
    return [*starts, *waits]


def _in_order(seen: Situation, starts: list[Start]) -> list[Start]:
    """Of equal waiting work (tier, remaining steps, device, size), those first in order are the ones that start."""

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
