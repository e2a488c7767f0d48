"""What users have asked, as the loop follows it: what runs is paused, what is held back says so, holds end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from gridsweep.state.asks import ALL
from gridsweep.state.events import Decided, Pausing
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked


def over(state: State, now: datetime) -> list[Asked]:
    """Return the ends of the holds whose time has come."""
    ended: dict[str, Asked] = {}
    for target, hold in state.asks.held.items():
        if hold.until is not None and now >= hold.until:
            before = ended[hold.id].experiments if hold.id in ended else ()
            targets = () if target == ALL else (*before, target)
            ended[hold.id] = Asked(
                now, f"{hold.id}-over", "release", hold.by, hold.asked_at, targets, hold.until
            )  # with `until`: only this hold ends
    return list(ended.values())


def endings(state: State, now: datetime, told: Collection[str]) -> list[Pausing]:
    """Return the pauses of running attempts with an experiment that a user paused or cancelled, but for those told."""
    return [
        Pausing(now, attempt.id, why)
        for attempt in state.active.values()
        if attempt.pausing_since is None and attempt.id not in told
        if (why := state.asks.ending(member.experiment for member in attempt.stint.members))
    ]


def holds(state: State, now: datetime) -> list[Decided]:
    """Return for each experiment that a user holds back until when, and by whom, if it was not said yet."""
    events: list[Decided] = []
    if not (state.asks.paused or state.asks.held):
        return events
    for id, standing in state.standings.items():
        if standing.status == "waiting" and (asked := state.asks.why_not(id)) is not None:
            until = asked.until if asked.what == "hold" else None
            done, undo = ("held", "release") if asked.what == "hold" else ("paused", "resume")
            why = f"{done} by {asked.by}; go on with: gridsweep {undo}"
            if (standing.until, standing.why) != (until, why):
                events.append(Decided(now, id, until, why))
    return events


def next_over(state: State) -> list[datetime]:
    """Return the times at which holds end."""
    return [hold.until for hold in state.asks.held.values() if hold.until is not None]


def at_rest(state: State) -> bool:
    """Return whether only a user can let the sweep go on: nothing runs, and all that waits is held without an end."""
    if state.active or not (state.asks.paused or state.asks.held):
        return False
    waiting = [id for id, standing in state.standings.items() if standing.status == "waiting"]
    asked = [state.asks.why_not(id) for id in waiting]
    return bool(waiting) and all(one is not None and (one.what == "pause" or one.until is None) for one in asked)
