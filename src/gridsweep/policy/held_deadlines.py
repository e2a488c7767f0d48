"""Start deadlines that hold: start work earlier than a gate would if the devices could not start it in time.

A gate looks at one experiment at a time and lets all experiments of a tier become due together; with more experiments
than devices, the last ones start late. `Held` starts the first ones early enough for the last one to start in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf

from gridsweep.carbon.traces import HOUR
from gridsweep.policy.backlog import Queue, lanes, work_waiting
from gridsweep.policy.situation import Decision, Policy, Situation, Start, Wait

WHY = "must start now so that all experiments start by their latest start"


@dataclass(frozen=True, slots=True)
class Held:
    """Wrap a policy and start its waiting work when the devices could not start it in time later."""

    policy: Policy

    def decide(self, situation: Situation) -> Sequence[Decision]:
        decisions = list(self.policy.decide(situation))
        starts = {d.device: d for d in decisions if isinstance(d, Start)}
        begun = {id for start in starts.values() for id in start.members}
        left = [i for i, work in enumerate(situation.waiting) if work.experiment not in begun]
        if not left:
            return decisions
        spans = {work.experiment: work.duration for work in situation.waiting}
        line = lanes(situation)
        for i, device in enumerate(situation.devices):
            if device.name in starts:
                longest = max(spans[id] for id in starts[device.name].members)
                line[i] = replace(line[i], free_at=situation.now + longest / device.speed)
        stints = work_waiting(situation)
        queue = Queue(situation.now, [stints[i] for i in left], line)
        free = {device.name for device in situation.free} - set(starts)
        forced: list[Start] = []
        soonest = inf
        for lane, device in enumerate(situation.devices):
            if device.name not in free or not queue.left:
                continue
            must, later = queue.must_start(lane, situation.tick / HOUR)
            soonest = min(soonest, later)
            if must is not None:
                work = situation.waiting[left[must]]
                if work.device in (None, device.name):
                    queue.start(lane, must)
                    forced.append(Start((work.experiment,), work.to_step, device.name, WHY, due=True))
        ids = {id for start in forced for id in start.members}
        again = situation.now + timedelta(hours=soonest) if 0 < soonest < inf else None
        return [
            *forced,
            *(
                replace(d, until=min(d.until or again, again)) if isinstance(d, Wait) and again else d
                for d in decisions
                if not (isinstance(d, Wait) and d.experiment in ids)
            ),
        ]
