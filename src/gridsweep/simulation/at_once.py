"""Running at once, for thousands of experiments: the attempts of `loop.drive` under the policy `Immediate`.

The loop asks the policy about all waiting work at every end, which for 5,000 experiments are 25 million works. Without
a deadline, losses and pauses the answer is known: the first works in order take the free devices. So only these are
made here; what they hold, the rungs and the fold are the loop's own functions. `tests/simulation/test_at_once.py`
compares both.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from gridsweep.carbon.spans import hours
from gridsweep.loop import Provider
from gridsweep.policy.situation import Work
from gridsweep.schedule.worklist import PackKey, _dealt, _order, _pack_key, _work, size_of
from gridsweep.selection.joining import added
from gridsweep.selection.rung_decisions import ranked
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Added, Ended, Event, Ranked, Requested, Submitted
from gridsweep.state.observations import observed
from gridsweep.state.overdue import overdue_by
from gridsweep.state.standings import ALIVE, Standing
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device, Member, Stint
from gridsweep.sweep.sweep import Sweep


def at_once(
    sweep: Sweep,
    start: datetime,
    provider: Provider,
    executor: Simulated,
    foreseen: tuple[Added, ...],
) -> State | None:
    """Run a sweep without a deadline at once, as `rehearse` does with `Immediate`; None if it would never end.

    `foreseen` holds the additions, each after a rung or the end. The provider's answers are live.
    """
    assert sweep.finish_by is None, "a deadline may force starts in another order"
    assert not any(event.request for event in foreseen), "what users add comes at a time, not after a rung"
    state = State([Submitted(start, sweep)])
    state.foreseen = foreseen
    queue, now = _Queue(state), start
    while True:
        closed = list(executor.observe(state, now))
        queue.fold(closed)
        queue.decide(now)
        starts = queue.starts(now)
        queue.fold(starts)
        end = executor.next_end(state)
        if end is None:
            break
        now = max(now, end)
    if not state.finished:
        return None
    for event in observed(state, provider.read(now), now):
        state.apply(event)
    return state


Key = tuple[tuple[int, datetime, str], str]


@dataclass(slots=True)
class _Group:
    """Waiting experiments that may be trained together, in order; `ready` counts them by when they became ready."""

    step: int
    kind: PackKey
    members: list[Key] = field(default_factory=list)
    ready: Counter[datetime] = field(default_factory=Counter)

    def put(self, sweep: Sweep, standing: Standing) -> None:
        insort(self.members, (_order(sweep, standing), standing.experiment.id))
        self.ready[standing.ready_at] += 1

    def take(self, standings: Sequence[Standing]) -> None:
        """Remove experiments, in most cases the first ones."""
        ids = [standing.experiment.id for standing in standings]
        if [id for _, id in self.members[: len(ids)]] == ids:
            del self.members[: len(ids)]
        else:
            gone = set(ids)
            self.members = [member for member in self.members if member[1] not in gone]
        for standing in standings:
            self.ready[standing.ready_at] -= 1
        self.ready = +self.ready

    def packs(self, size: int, most: int) -> list[Sequence[Key]]:
        """Return the first packs in order, or all if their order is not that of their members."""
        count = -(-len(self.members) // size)
        if len(self.ready) > 1 or count <= most:
            return _dealt(self.members, size)
        edges = [len(self.members) * i // count for i in range(most + 1)]
        return [self.members[a:b] for a, b in pairwise(edges)]


class _Queue:
    """The waiting work of a state that is folded here only, kept sorted from event to event."""

    def __init__(self, state: State):
        self.state = state
        self.groups: dict[tuple[int, PackKey], _Group] = {}
        self.kinds: dict[str, PackKey] = {}  # of those alive
        self.alive: Counter[PackKey] = Counter()
        self.contending: Counter[float] = Counter()  # those alive that a rung may stop, by how far they are
        self.levels: dict[str, float] = {}
        self.reached: set[str] = set()
        self._touch(state.standings)

    def fold(self, events: Iterable[Event]) -> None:
        """Add events to the state, and what they change to the queue."""
        for event in events:
            self.state.apply(event)
            if isinstance(event, Ended):
                self._touch(outcome.experiment for outcome in event.outcomes)
            elif isinstance(event, Ranked):
                self._touch((*event.stopped, *event.kept))
            elif isinstance(event, Added):
                self._touch(experiment.id for experiment in event.experiments)

    def _touch(self, ids: Iterable[str]) -> None:
        """Take up what became of experiments. One that waits is put into its group; `starts` takes it out."""
        sweep = self.state.sweep
        for id in ids:
            standing = self.state.standings[id]
            if (before := self.kinds.pop(id, None)) is not None:
                self.alive[before] -= 1
            if (before_at := self.levels.pop(id, None)) is not None:
                self.contending[before_at] -= 1
            self.reached.discard(id)
            if standing.status not in ALIVE:
                continue
            kind = self.kinds[id] = _pack_key(sweep, standing)
            self.alive[kind] += 1
            if standing.experiment.repeats is None:
                level = self.levels[id] = sweep.level(standing.experiment, standing.step)
                self.contending[level] += 1
            if standing.status == "reached":
                self.reached.add(id)
            elif standing.status == "waiting":
                group = self.groups.setdefault((standing.step, kind), _Group(standing.step, kind))
                group.put(sweep, standing)

    def decide(self, now: datetime) -> None:
        """Decide the rungs that can be decided, and add the experiments that were added after them."""
        before = len(self.state.rankings)
        if self._rung_due():
            self.fold(ranked(self.state, now))
        new = len(self.state.rankings) > before
        if self.state.foreseen and (new or not +self.contending):
            self.fold(added(self.state, now))

    def _rung_due(self) -> bool:
        """Return whether a rung may be decided: where all wait for one another, none is on its way to it."""
        rungs = self.state.sweep.rungs
        if rungs is None or not self.reached:
            return False
        decided = {event.step for event in self.state.rankings}
        least = min(level for level, count in self.contending.items() if count)
        steps = {self.levels[id] for id in self.reached if id in self.levels}
        return not rungs.together or any(step in decided or least >= step for step in steps)

    def starts(self, now: datetime) -> list[Event]:
        """Return the starts on all free devices: the first works in order, each on the first device it may use."""
        state, sweep = self.state, self.state.sweep
        taken = {attempt.device for attempt in state.active.values()}
        free = [device for device in sweep.devices if device.name not in taken]
        events: list[Event] = []
        if not free:
            return events
        for work, group, standings in self._first([device.name for device in free]):
            device = next((d for d in free if work.device in (None, d.name)), None)
            if device is not None:
                free.remove(device)
                events.append(_requested(state, work, device, now))
                group.take(standings)
        self.groups = {key: group for key, group in self.groups.items() if group.members}
        return events

    def _first(self, free: Sequence[str]) -> list[tuple[Work, _Group, list[Standing]]]:
        """Return the works that may come first, in order: of each group as many as there are free devices for it."""
        state, sweep = self.state, self.state.sweep
        found = []
        for group in self.groups.values():
            kind = group.kind
            if kind.device is not None and kind.device not in free:
                continue
            most = len(free) if kind.device is None else 1
            for pack in group.packs(size_of(sweep, self.alive, kind), most):
                standings = [state.standings[id] for _, id in pack]
                found.append((_work(sweep, standings, group.step, kind.stage, 1.0), group, standings))
        return sorted(found, key=lambda one: one[0].order)


def _requested(state: State, work: Work, device: Device, now: datetime) -> Requested:
    """Return the start of a work, worded as `schedule.step` does."""
    stint = Stint(tuple(Member(id, work.from_step, work.to_step) for id in work.members))
    why = "runs at once"
    if late := overdue_by(state, work.members, now):
        why = f"overdue by {hours(late)}: {why}"
    due = now >= work.latest_start - state.sweep.min_wait
    return Requested(now, f"{stint.id}/{state.tries.get(stint.id, 0) + 1}", stint, device.name, why, due)
