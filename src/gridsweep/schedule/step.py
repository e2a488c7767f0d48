"""From a state and a policy to the next events: `step` asks the policy and refuses impossible decisions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from gridsweep.carbon.readings import Reading
from gridsweep.carbon.spans import hours
from gridsweep.carbon.traces import ceil_to
from gridsweep.policy.gates import blind
from gridsweep.policy.planner.postponing import DUE
from gridsweep.policy.situation import Busy, Pause, Policy, Situation, Start, Wait
from gridsweep.schedule.asking import endings, holds, next_over
from gridsweep.schedule.checks import LATEST, checked
from gridsweep.schedule.deadlines import Pressure
from gridsweep.schedule.pace import expected_end
from gridsweep.schedule.watchdog import _all_alike, _mixed, _silent
from gridsweep.schedule.worklist import ahead, deadline_for, probe_by, remaining, submitted
from gridsweep.state.events import Decided, Event, Halted, Pausing, Requested, Stopping
from gridsweep.state.overdue import overdue_by
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint

EARLY = "starts early to show in time how long stints take"


def busy(state: State, attempt: Attempt, now: datetime) -> Busy:
    """Return a running attempt as a policy sees it."""
    sweep = state.sweep
    before = (state.standings[m.experiment].attempts for m in attempt.stint.members)
    pauses = max(sum(state.attempts[id].end == "paused" for id in ids) for ids in before)
    tiers = (sweep.tier(state.standings[m.experiment].experiment.tier) for m in attempt.stint.members)
    best = min(tiers, key=lambda tier: tier.rank)
    since = attempt.running_at or attempt.requested_at
    end = expected_end(state, attempt, now)
    pausing = attempt.pausing_since is not None
    return Busy(attempt.id, attempt.device, best, since, end, attempt.due, pausing, pauses)


def situation(state: State, reading: Reading, now: datetime) -> Situation:
    """Return the situation that a policy decides on."""
    running = [busy(state, attempt, now) for attempt in state.active.values()]
    sweep = state.sweep
    return Situation(
        now,
        remaining(state, now),
        running,
        sweep.devices,
        reading,
        state.history,
        min_wait=sweep.min_wait,
        deadline=deadline_for(state, now),
        tick=sweep.tick,
        submitted_at=state.submitted_at,
        submitted=submitted(state),
        ahead=ahead(state, now),
        finish_by=sweep.deadline(state.submitted_at),
    )


def step(
    state: State,
    policy: Policy,
    reading: Reading,
    now: datetime,
    stop: str = "",
    silences: Mapping[str, timedelta] | None = None,
) -> list[Event]:
    """Return the events at `now`: what starts, what is asked to pause, what waits and why.

    `stop` is the reason of a request to stop the run, empty without one. `silences` holds how long each attempt has
    been silent, or has not reacted to a pause, on a clock other than the grid's. Raises `PolicyError` for an impossible
    decision.
    """
    events: list[Event] = list(_silent(state, now, silences))
    ending = state.stopping or state.halted
    if (stop := stop or state.asks.stop) and not state.stopping:
        events.append(Stopping(now, ending := stop))
    elif not ending and (
        why := (refusal := state.constants.refusal or _mixed(state)) or state.storage or _all_alike(state)
    ):
        events.append(Halted(now, ending := why, refused=bool(refusal)))
    told = {event.attempt for event in events if isinstance(event, Pausing)}
    if ending:
        deaf = [a.id for a in state.active.values() if a.pausing_since is None and a.id not in told]
        return events + [Pausing(now, attempt, ending) for attempt in deaf]

    asked = endings(state, now, told)
    events += [*asked, *holds(state, now)]
    seen = situation(state, reading, now)
    works = {work.experiment: work for work in seen.waiting}
    how = state.sweep.carbon.on_signal_loss
    decisions = blind(seen, how) if reading.lost else policy.decide(seen)
    for decision in checked(seen, decisions, forced=not (reading.lost and how == "wait")):
        match decision:
            case Start() if state.constants.missing and (state.active or any(isinstance(e, Requested) for e in events)):
                continue  # the first attempt tells what the sweep takes as constant; the others are compared with it
            case Start():
                packs = [works[id] for id in decision.members]
                members = [Member(id, work.from_step, decision.to_step) for work in packs for id in work.members]
                stint = Stint(tuple(members))
                attempt = f"{stint.id}/{state.tries.get(stint.id, 0) + 1}"
                due = decision.due or any(seen.due(works[id]) for id in decision.members)
                soon = state.asks.soon.get(members[0].experiment)
                why = f"{soon.by} asked to start it now" if soon else _why(state, seen, decision)
                if late := overdue_by(state, (member.experiment for member in members), now):
                    why = f"overdue by {hours(late)}: {why}"
                events.append(Requested(now, attempt, stint, decision.device, why, due))
            case Pause() if all(decision.attempt != event.attempt for event in asked):
                events.append(Pausing(now, decision.attempt, decision.why))
            case Wait(experiment, until, why):
                for id in works[experiment].members:
                    standing = state.standings[id]
                    if (standing.until, standing.why) != (until, why):
                        events.append(Decided(now, id, until, why))
    return events


def _why(state: State, seen: Situation, start: Start) -> str:
    """Return why a stint starts, also where its latest start is earlier than a deadline alone requires."""
    first = seen.waiting[0]
    forced = first.experiment in start.members and seen.due(first) and start.why in (DUE, LATEST)
    if forced and probe_by(state, seen.waiting, seen.now) == first.latest_start:
        return EARLY
    return start.why


def wake_at(state: State, now: datetime) -> datetime:
    """Return when to step again: the next tick, slot edge, latest start, or time that a policy asked for."""
    tick = ceil_to(now, state.sweep.tick)
    edge = state.history.start + ((now - state.history.start) // state.history.step + 1) * state.history.step
    moments = [tick, edge, *(work.latest_start for work in remaining(state, now) if work.latest_start > now)]
    for standing in state.standings.values():
        if standing.status == "waiting" and standing.until is not None and standing.until > now:
            moments.append(standing.until)
    moments += [moment for moment in next_over(state) if moment > now]
    deadline = deadline_for(state, now)
    if deadline is not None and (left := remaining(state, now)):
        ends = {attempt.device: busy(state, attempt, now).expected_end for attempt in state.active.values()}
        forced = Pressure(now, deadline, state.sweep.tick, left, state.sweep.devices, ends).next()
        if forced is not None and forced > now:
            moments.append(forced)
    return min(moments)
