"""Translation between the journal and the attempt folders: assignments out, events from a worker's files back.

Every executor hands work over in the same way; executors differ in where the worker runs and in how its folder is
reached. An executor with remote workers keeps a mirror of their folders in the store, and reads the mirror.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from gridsweep.records import codec
from gridsweep.records.attempts import Assignment, AttemptFolder, EnergyLine, Part, Progress, Result
from gridsweep.records.attempts import now as wall_clock
from gridsweep.schedule.timetable import Timetable, timetable
from gridsweep.state.events import Ended, Event, Fingerprinted, Lost, Paused, Progressed, Running, Segment
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Checkpoint, device_named

PROGRESS_EVERY = timedelta(minutes=1)

L = TypeVar("L", Progress, EnergyLine)


def assignment(state: State, attempt: Attempt) -> Assignment:
    """Return the assignment for an attempt's worker."""
    sweep = state.constants.pinned(state.sweep)
    parts = []
    for member in attempt.stint.members:
        standing = state.standings[member.experiment]
        experiment = standing.experiment
        saved = standing.checkpoint if member.from_step else None
        parts.append(Part(experiment.id, experiment.params, experiment.seed, member.from_step, member.to_step, saved))
    device = device_named(state.sweep.devices, attempt.device)
    base = state.standings[attempt.stint.members[0].experiment].experiment.base  # of all: packs share one
    return Assignment(
        attempt.id,
        sweep.model,
        sweep.dataset,
        sweep.recipe,
        sweep.total_steps,
        device,
        tuple(parts),
        base,
        state.constants.encoding,
        state.constants.things,
        state.submitted_at,
    )


def news(
    state: State, attempt: Attempt, folder: AttemptFolder, now: datetime, *, ended: bool, why: str = ""
) -> list[Event]:
    """Return the events in an attempt's files that the state does not have yet, at most one `Progressed` a minute.

    `ended`: the worker is gone, so its files are complete. `why` is the reason for a loss if there is no result.
    """
    if state.sweep.follows_work:
        return _news_by_step(state, attempt, folder, now, ended=ended, why=why)
    lines, progress_at = read_lines(Progress, folder.path / "progress.jsonl", attempt.cursor[0])
    energy, energy_at = read_lines(EnergyLine, folder.path / "energy.jsonl", attempt.cursor[1])
    events: list[Event] = []
    events += told_constants(state, attempt, lines, now)
    begun = next((line for line in lines if line.phase == "training"), None)
    if begun and attempt.running_at is None:
        events.append(Running(state.grid_time(begun.at), attempt.id))
    since = now - (attempt.seen_at or attempt.requested_at)
    if (lines or energy) and (ended or events or since >= PROGRESS_EVERY):
        events.append(
            Progressed(
                state.grid_time(lines[-1].at) if lines else now,
                attempt.id,
                attempt.seq + 1,
                max([attempt.step, *(line.step for line in lines)]),
                {id: loss for line in lines for id, loss in line.losses.items()},
                tuple(merged(state, attempt, energy)),
                (progress_at, energy_at),
            )
        )
    if not ended:
        return events
    result = folder.result()
    at = state.grid_time(result.ended_at if result else touched(folder.path))
    return events + _end(state, attempt, folder, result, at, why)


def _news_by_step(
    state: State, attempt: Attempt, folder: AttemptFolder, now: datetime, *, ended: bool, why: str
) -> list[Event]:
    """Return the new events if grid time follows the work: times are computed from the reported steps.

    Steps are returned as they are reported. Energy and the end are returned only up to `now`, the sweep's time.
    """
    table = timetable(state, attempt)
    lines, progress_at = read_lines(Progress, folder.path / "progress.jsonl", attempt.cursor[0])
    drawn = lines_with_ends(EnergyLine, folder.path / "energy.jsonl", attempt.cursor[1])
    events: list[Event] = []
    events += told_constants(state, attempt, lines, now)
    if attempt.running_at is None and any(line.phase == "training" for line in lines):
        events.append(Running(attempt.requested_at, attempt.id))
    step = max([attempt.step, *(line.step for line in lines), *(line.step for line, _ in drawn)])
    over, result = attempt.over_at, folder.result() if ended else None
    if ended and over is None:
        begun = attempt.running_at is not None or bool(events)
        step = max([step, *(saved.step for saved in _saved(state, attempt, folder))]) if result is None else step
        over = max(now, _over_at(table, step, result) if begun else table.start)
    segments, energy_at = by_step(table, attempt, drawn, now, over)
    spans = [segment.end - segment.start for segment in segments]
    gained = max([table.at(step) - table.at(attempt.step), *spans])
    waited = max(lines[-1].at, wall_clock()) - lines[0].at if lines else timedelta(0)
    due = over is not None and over <= now
    if (
        events or over != attempt.over_at or ((lines or segments) and (due or max(gained, waited) >= PROGRESS_EVERY))
    ):  # otherwise the change is too small for an event
        losses = {id: loss for line in lines for id, loss in line.losses.items()}
        cursor = (progress_at, energy_at)
        events.append(Progressed(now, attempt.id, attempt.seq + 1, step, losses, tuple(segments), cursor, over))
    return events + _end(state, attempt, folder, result, now, why) if due else events


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
    state: State, attempt: Attempt, folder: AttemptFolder, result: Result | None, at: datetime, why: str
) -> list[Event]:
    if result is None or result.error:
        why = result.error if result else attempt.reason or why or f"the worker vanished ({last_words(folder.path)})"
        refused = result is not None and result.refused
        return [Lost(at, attempt.id, why, _saved(state, attempt, folder), refused)]
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
        at_most = member.to_step - 1 if member.to_step < state.sweep.total_steps else None
        newest = folder.checkpoint(member.experiment, at_most)
        if newest is not None:
            found[member.experiment] = newest
    common = min((checkpoint.step for checkpoint in found.values()), default=0)
    for id, newest in found.items():
        earlier = newest if newest.step == common else folder.checkpoint(id, common)
        found[id] = earlier if earlier is not None and earlier.step == common else newest
    return tuple(found.values())


def read_lines(kind: type[L], path: Path, after: int) -> tuple[list[L], int]:
    """Return a file's complete lines from byte `after` on, and the offset after them. Malformed lines are skipped."""
    data = _after(path, after)
    found = lines_with_ends(kind, path, after, data)
    return [line for line, _ in found], after + len(data)


def lines_with_ends(kind: type[L], path: Path, after: int, data: bytes | None = None) -> list[tuple[L, int]]:
    """Return the same lines, each with the byte offset after it."""
    lines = []
    for text in (_after(path, after) if data is None else data).splitlines(keepends=True):
        after += len(text)
        try:
            lines.append((codec.loads(kind, text), after))
        except ValueError:
            continue
    return lines


def _after(path: Path, after: int) -> bytes:
    """Return the complete lines of a file from byte `after` on; empty if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(after)
            data = file.read()
    except FileNotFoundError:
        return b""
    return data[: data.rfind(b"\n") + 1]


def merged(state: State, attempt: Attempt, lines: Sequence[EnergyLine]) -> list[Segment]:
    """Convert energy lines to segments in grid time; neighbours are merged up to a length of one minute.

    Energy used before the first new step stays separate: for every attempt but the first it is the cost of a reload.
    """
    segments = []
    for line in lines:
        start = state.grid_time(line.start)
        end = max(start, state.grid_time(line.start + timedelta(seconds=max(0.0, line.seconds))))
        segments.append(Segment(start, end, line.kwh, line.source, line.step))
    return joined_up(segments, min(member.from_step for member in attempt.stint.members))


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
    """Return the wall time of the last write in a folder."""
    return max(written_at(path) for path in [folder, *folder.iterdir()])


def written_at(path: Path) -> datetime:
    """Return when a file was last written."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def last_words(folder: Path) -> str:
    """Return a phrase that quotes the last line a worker printed."""
    try:
        lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"its last words: {lines[-1][:300]}" if lines else "it printed nothing"
