"""From a state and a policy to the next events: `step` asks the policy and lets nothing impossible through."""

from __future__ import annotations

from datetime import datetime, timedelta

from gridsweep.carbon.readings import Reading, Rung
from gridsweep.carbon.traces import ceil_to
from gridsweep.policy.gates import blind
from gridsweep.policy.situation import Busy, Pause, Policy, Situation, Start, Wait
from gridsweep.schedule.checks import checked
from gridsweep.schedule.deadlines import Pressure
from gridsweep.schedule.pace import scale
from gridsweep.schedule.watchdog import _all_alike, _silent
from gridsweep.schedule.worklist import ahead, deadline_for, remaining, submitted
from gridsweep.state.events import Answered, Decided, Event, Halted, Observed, Pausing, Requested, Stopping
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device, Member, Stint

SECOND = timedelta(seconds=1)


def busy(state: State, attempt: Attempt) -> Busy:
    """A running attempt as a policy sees it."""
    sweep = state.sweep
    device = device_named(state, attempt.device)
    before = (state.standings[m.experiment].attempts for m in attempt.stint.members)
    pauses = max(sum(state.attempts[id].end == "paused" for id in ids) for ids in before)
    tiers = (sweep.tier(state.standings[m.experiment].experiment.tier) for m in attempt.stint.members)
    best = min(tiers, key=lambda tier: tier.rank)
    since = attempt.running_at or attempt.requested_at
    end = since + sweep.taken(attempt.stint.parts) * scale(state) / device.speed
    pausing = attempt.pausing_since is not None
    return Busy(attempt.id, attempt.device, best, since, end, attempt.due, pausing, pauses)


def device_named(state: State, name: str) -> Device:
    """A device of the sweep; one that is gone from the spec is taken as an ordinary one."""
    return next((device for device in state.sweep.devices if device.name == name), Device(name))


def situation(state: State, reading: Reading, now: datetime) -> Situation:
    """What a policy is shown."""
    running = [busy(state, attempt) for attempt in state.active.values()]
    sweep = state.sweep
    return Situation(
        now,
        remaining(state),
        running,
        sweep.devices,
        reading,
        state.history,
        min_wait=sweep.min_wait,
        deadline=deadline_for(state),
        tick=sweep.tick,
        submitted_at=state.submitted_at,
        submitted=submitted(state),
        ahead=ahead(state),
        finish_by=sweep.deadline(state.submitted_at),
    )


def step(state: State, policy: Policy, reading: Reading, now: datetime, stop: str = "") -> list[Event]:
    """The facts that follow from what is known at `now`: what starts, what is told to pause, what waits and why.

    `stop` says who asked the run to stop, if somebody did. Raises `PolicyError` for an impossible decision.
    """
    events: list[Event] = list(_silent(state, now))
    ending = state.stopping or state.halted
    if stop and not state.stopping:
        events.append(Stopping(now, ending := stop))
    elif not ending and (why := _all_alike(state)):
        events.append(Halted(now, ending := why))
    if ending:
        told = {event.attempt for event in events if isinstance(event, Pausing)}
        deaf = [a.id for a in state.active.values() if a.pausing_since is None and a.id not in told]
        return events + [Pausing(now, attempt, ending) for attempt in deaf]

    seen = situation(state, reading, now)
    works = {work.experiment: work for work in seen.waiting}
    how = state.sweep.carbon.on_signal_loss
    decisions = blind(seen, how) if reading.lost else policy.decide(seen)
    for decision in checked(seen, decisions, forced=not (reading.lost and how == "wait")):
        match decision:
            case Start():
                packs = [works[id] for id in decision.members]
                members = [Member(id, work.from_step, decision.to_step) for work in packs for id in work.members]
                stint = Stint(tuple(members))
                attempt = f"{stint.id}/{state.tries.get(stint.id, 0) + 1}"
                due = decision.due or any(seen.due(works[id]) for id in decision.members)
                events.append(Requested(now, attempt, stint, decision.device, decision.why, due))
            case Pause():
                events.append(Pausing(now, decision.attempt, decision.why))
            case Wait(experiment, until, why):
                for id in works[experiment].members:
                    standing = state.standings[id]
                    if (standing.until, standing.why) != (until, why):
                        events.append(Decided(now, id, until, why))
    return events


def wake_at(state: State, now: datetime) -> datetime:
    """When to look again: at the next tick, slot edge, latest start, or moment a policy asked for."""
    tick = ceil_to(now, state.sweep.tick)
    edge = state.history.start + ((now - state.history.start) // state.history.step + 1) * state.history.step
    moments = [tick, edge, *(work.latest_start for work in remaining(state) if work.latest_start > now)]
    for standing in state.standings.values():
        if standing.status == "waiting" and standing.until is not None and standing.until > now:
            moments.append(standing.until)
    deadline = deadline_for(state)
    if deadline is not None and (left := remaining(state)):
        ends = {attempt.device: busy(state, attempt).expected_end for attempt in state.active.values()}
        forced = Pressure(now, deadline, state.sweep.tick, left, state.sweep.devices, ends).next()
        if forced is not None and forced > now:
            moments.append(forced)
    return min(moments)


def observed(state: State, reading: Reading, now: datetime) -> list[Observed]:
    """The slots of a reading that are new to the state, or revised."""
    known, history = state.history, reading.history
    if not len(history):
        return []
    if not len(known):
        first = 0
    else:
        overlap = known.between(history.start, history.end).values
        offset = max(0, (known.start - history.start) // history.step)
        seen = history.values[offset : offset + len(overlap)]
        same = (seen == overlap) | (seen != seen)  # an unknown slot takes nothing back
        first = offset + (len(overlap) if same.all() else int(same.argmin()))
        if first >= len(history):
            return []
    return facts(reading, first, now)


def facts(reading: Reading, first: int, now: datetime) -> list[Observed]:
    """The slots of a reading from the `first` on, a fact for each stretch."""
    history = reading.history
    values = tuple(None if value != value else value for value in history.values[first:].tolist())
    start = history.start + first * history.step
    if len(reading.stretches) == 1:
        return [Observed(now, start, history.step, values, reading.provenance)] if values else []
    found = []
    ends = [stretch.start for stretch in reading.stretches[1:]] + [history.end]
    for stretch, end in zip(reading.stretches, ends, strict=True):
        a, b = (max(0, (moment - start) // history.step) for moment in (stretch.start, end))
        if b > a:
            found.append(Observed(now, start + a * history.step, history.step, values[a:b], stretch.provenance))
    return found


def answered(state: State, reading: Reading, now: datetime) -> list[Event]:
    """That another rung answers for the grid. An answer from the cache, within its time, is as good as a live one."""
    rung: Rung = "live" if reading.rung == "cached" else reading.rung
    return [] if rung == state.rung else [Answered(now, rung, reading.why)]
