"""Translation between the journal and the attempt folders: assignments out, events from a worker's files back.

Every executor hands work over in the same way; executors differ in where the worker runs and in how its folder is
reached. An executor with remote workers keeps a mirror of their folders in the store, and reads the mirror.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gridsweep.executors.border import Told, Within, last_words, result_of, starved, told
from gridsweep.executors.unmetered import APART, completed, reads_nothing
from gridsweep.records.attempts import AttemptFolder, EnergyLine, Progress, Result
from gridsweep.records.attempts import now as wall_clock
from gridsweep.schedule.timetable import Timetable, timetable
from gridsweep.state.events import (
    Ended,
    Event,
    Fingerprinted,
    Lost,
    Paused,
    Pausing,
    Progressed,
    Reverted,
    Running,
    Segment,
)
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Checkpoint

PROGRESS_EVERY = timedelta(minutes=1)
LATEST_S = 4e9
"""A file may bear any time; none after the year 2096 is believed, seconds since 1970."""


def news(
    state: State,
    attempt: Attempt,
    folder: AttemptFolder,
    now: datetime,
    *,
    ended: bool,
    why: str = "",
    before: Sequence[Event] = (),
) -> list[Event]:
    """Return the events in an attempt's files that the state does not have yet, at most one `Progressed` a minute.

    `ended`: the worker is gone, so its files are complete. `why` is the reason for a loss if there is no result. A
    worker that says what cannot be is killed, and its attempt is lost. `before` are the events that this look has found
    of other attempts: what one of them was judged on, all are.
    """
    said = told(state, attempt, folder, now)
    ended = ended and said.all  # the rest of long files is for the next look
    look = _Look(said, ended, why, before)
    if state.sweep.follows_work:
        events = _news_by_step(state, attempt, folder, now, look)
    else:
        events = _news_by_clock(state, attempt, folder, now, look)
    events = completed(state, attempt, folder, events)
    if said.wrong and not ended and not attempt.killed:
        events.append(Pausing(now, attempt.id, said.wrong, kill=True))
    return events


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look has found: what the worker told, whether it has ended and why, and the events found `before`."""

    said: Told
    ended: bool
    why: str
    before: Sequence[Event]


def _news_by_clock(state: State, attempt: Attempt, folder: AttemptFolder, now: datetime, look: _Look) -> list[Event]:
    """Return the new events if time passes by itself: times are the worker's, by its clock, within the attempt."""
    said, when = look.said, look.said.within
    events: list[Event] = [*told_constants(state, attempt, said.lines, now)]
    begun = next((line for line in said.lines if line.phase == "training"), None)
    if begun and attempt.running_at is None:
        events.append(Running(when(begun.at), attempt.id))
    since = now - (attempt.seen_at or attempt.requested_at)
    due = look.ended or events or since >= PROGRESS_EVERY or not said.all or said.clock != attempt.clock
    if (said.lines or said.energy) and due:
        events.append(
            Progressed(
                when(said.lines[-1].at) if said.lines else now,
                attempt.id,
                attempt.seq + 1,
                max([attempt.step, *(line.step for line in said.lines)]),
                {id: loss for line in said.lines for id, loss in line.losses.items()},
                tuple(merged(attempt, [line for line, _ in said.energy], when)),
                (said.progress_at, said.energy_at),
                clock=said.clock,
            )
        )
    if not look.ended:
        return events
    result, wrong = result_of(state, attempt, folder, now, said.within, look.before)
    if result and not wrong:  # it ended no earlier than its last line, whatever its result says
        at = max(when(moment) for moment in (result.ended_at, *(line.at for line in said.lines[-1:])))
    else:
        at = min(now, when(touched(folder.path)))
    at = max(at, attempt.requested_at)
    return events + _end(state, attempt, folder, result, at, look.why, said.wrong or wrong)


def _news_by_step(state: State, attempt: Attempt, folder: AttemptFolder, now: datetime, look: _Look) -> list[Event]:
    """Return the new events if grid time follows the work: times are computed from the reported steps.

    Steps are returned as they are reported. Energy and the end are returned only up to `now`, the sweep's time.
    """
    said, table = look.said, timetable(state, attempt)
    lines, drawn = said.lines, said.energy
    events: list[Event] = [*told_constants(state, attempt, lines, now)]
    if attempt.running_at is None and any(line.phase == "training" for line in lines):
        events.append(Running(attempt.requested_at, attempt.id))
    step = max([attempt.step, *(line.step for line in lines), *(line.step for line, _ in drawn)])
    over, result, wrong = attempt.over_at, None, ""
    if look.ended:
        result, wrong = result_of(state, attempt, folder, now, said.within, look.before)
        result = None if wrong else result
    if look.ended and over is None:
        begun = attempt.running_at is not None or bool(events)
        step = max([step, *(saved.step for saved in _saved(state, attempt, folder))]) if result is None else step
        over = max(now, _over_at(table, step, result) if begun else table.start)
    segments, energy_at = by_step(table, attempt, drawn, now, over)
    spans = [segment.end - segment.start for segment in segments]
    gained = max([table.at(step) - table.at(attempt.step), *spans])
    waited = max(lines[-1].at, wall_clock()) - lines[0].at if lines else timedelta(0)
    due = over is not None and over <= now
    if (
        events
        or not said.all
        or over != attempt.over_at
        or ((lines or segments) and (due or max(gained, waited) >= PROGRESS_EVERY))
    ):  # otherwise the change is too small for an event
        losses = {id: loss for line in lines for id, loss in line.losses.items()}
        cursor = (said.progress_at, energy_at)
        events.append(Progressed(now, attempt.id, attempt.seq + 1, step, losses, tuple(segments), cursor, over))
    return events + _end(state, attempt, folder, result, now, look.why, said.wrong or wrong) if due else events


def told_constants(state: State, attempt: Attempt, lines: Sequence[Progress], now: datetime) -> list[Event]:
    """Return what the worker says of the constants, if it says something that is not known yet."""
    things = {name: value for line in lines for name, value in (line.constants or {}).items()}
    new = any(state.constants.things.get(name) != value for name, value in things.items())
    return [Fingerprinted(now, things, attempt.id)] if new else []


def _over_at(table: Timetable, step: int, result: Result | None) -> datetime:
    """Return when an attempt without a worker ends, in grid time: after its last step, and scoring if all are made."""
    outcomes = result.outcomes if result and not result.error else ()
    step = max([step, *(outcome.step for outcome in outcomes)])
    scored = bool(outcomes) and step >= table.last and all(outcome.status != "paused" for outcome in outcomes)
    return table.end_at(step) if scored else table.at(step)


def by_step(
    table: Timetable, attempt: Attempt, lines: Sequence[tuple[EnergyLine, int]], now: datetime, over: datetime | None
) -> tuple[list[Segment], int]:
    """Convert energy lines to segments in grid time; also return the byte offset after the last line used.

    A segment lasts from the previously reached step to the line's own step. Lines that end after `now` are left for
    the next call, unless the attempt is over by then.
    """
    reached = attempt.energy[-1].step if attempt.energy else table.first
    segments: list[Segment] = []
    cursor = attempt.cursor[1]
    for line, after in lines:
        step = max(reached, line.step)
        if step <= table.first:
            start, end = table.start, table.ready
        else:
            start, end = table.at(min(reached, step - 1)), table.at(step)
            if step >= table.last:  # includes the energy of scoring
                end = table.end_at(step)
        if over is not None:
            start, end = min(start, over), min(end, over)
        if end > now:
            break
        segments.append(Segment(start, end, line.kwh, line.source, step))
        reached, cursor = step, after
    return joined_up(segments, table.first), cursor


def _end(
    state: State,
    attempt: Attempt,
    folder: AttemptFolder,
    result: Result | None,
    at: datetime,
    why: str,
    wrong: str,
) -> list[Event]:
    if wrong or result is None or result.error:
        storage = not wrong and (starved(folder.path) if result is None else result.storage)
        asked = "" if storage else attempt.reason or why
        vanished = asked or f"the worker vanished ({last_words(folder.path)})"
        why = wrong or (result.error if result else vanished)
        refused = result is not None and result.refused and not wrong
        saved = _saved(state, attempt, folder)
        damaged = [] if refused else _reverted(state, attempt, folder, {one.experiment for one in saved}, at)
        return [Lost(at, attempt.id, why, saved, refused, storage), *damaged]
    if any(outcome.status == "paused" for outcome in result.outcomes):
        return [Paused(at, attempt.id, result.outcomes)]
    return [Ended(at, attempt.id, result.outcomes, result.facts or {})]


def _saved(state: State, attempt: Attempt, folder: AttemptFolder) -> tuple[Checkpoint, ...]:
    """Return the checkpoints from which a lost attempt's members resume.

    The last step before a rung is repeated, so that no rung is passed unjudged. Members resume together: if a worker
    was killed between the members' checkpoints of one step, all members resume from the previous checkpoint.
    """
    found: dict[str, Checkpoint] = {}
    for member in attempt.stint.members:
        total = state.sweep.total_of(state.standings[member.experiment].experiment)
        at_most = member.to_step - 1 if member.to_step < total else None
        newest = folder.checkpoint(member.experiment, at_most)
        if newest is not None:
            found[member.experiment] = newest
    common = min((checkpoint.step for checkpoint in found.values()), default=0)
    for id, newest in found.items():
        earlier = newest if newest.step == common else folder.checkpoint(id, common)
        found[id] = earlier if earlier is not None and earlier.step == common else newest
    return tuple(found.values())


def _reverted(
    state: State, attempt: Attempt, folder: AttemptFolder, saved: Collection[str], at: datetime
) -> list[Event]:
    """Return which members of a lost attempt go on from an earlier checkpoint, because theirs is damaged.

    None goes back behind a rung that it has passed: there it was compared with others.
    """
    events: list[Event] = []
    for member in attempt.stint.members:
        standing = state.standings[member.experiment]
        given = standing.checkpoint if member.from_step else None
        if given is None or member.experiment in saved or not folder.damaged(given):
            continue
        passed = max(standing.scores, default=0)
        earlier = (folder.sibling(id).checkpoint(member.experiment, given.step - 1) for id in standing.attempts)
        best = max((one for one in earlier if one and one.step >= passed), key=lambda one: one.step, default=None)
        if best is not None or not passed:
            where = f"step {best.step}" if best else "the beginning"
            why = f"the checkpoint of step {given.step} ({given.path}) is damaged; on from {where}"
            events.append(Reverted(at, member.experiment, best, why))
    return events


def merged(attempt: Attempt, lines: Sequence[EnergyLine], when: Within) -> list[Segment]:
    """Convert energy lines to segments in grid time; neighbours are merged up to a length of one minute.

    Energy used before the first new step stays separate: for every attempt but the first it is the cost of a reload.
    """
    groups: list[list[Segment]] = []
    was_silent = False
    for line in lines:
        start = when(line.start, line.seconds)
        segment = Segment(start, start + when.long(line.seconds), line.kwh, line.source, line.step)
        silent = reads_nothing(line.kwh, line.seconds)
        # What covers nothing, or lies behind a hole, stays apart: `completed` finds missing energy by the segments.
        apart = groups and segment.start - groups[-1][-1].end > when.long(APART.total_seconds())
        if not groups or apart or silent != was_silent:
            groups.append([])
        groups[-1].append(segment)
        was_silent = silent
    return [segment for group in groups for segment in joined_up(group, attempt.first_step)]


def joined_up(segments: Sequence[Segment], first: int) -> list[Segment]:
    """Merge neighbouring segments up to a length of one minute; segments of step `first` stay separate."""
    found: list[Segment] = []
    for s in segments:
        last = found[-1] if found else None
        close = last and (s.step == last.step or (last.step > first and s.end - last.start <= PROGRESS_EVERY))
        if last and close and last.source == s.source:
            found[-1] = Segment(last.start, max(last.end, s.end), last.kwh + s.kwh, s.source, s.step)
        else:
            found.append(s)
    return found


def touched(folder: Path) -> datetime:
    """Return the wall time of the last write in a folder; not later than now, whatever its files say."""
    last = max(written_at(path) for path in [folder, *folder.iterdir()] if os.path.lexists(path))
    return min(last, wall_clock())


def written_at(path: Path) -> datetime:
    """Return when a file was last written; the time of a link is its own."""
    seconds = path.lstat().st_mtime
    return datetime.fromtimestamp(min(max(seconds, 0.0), LATEST_S), UTC)
