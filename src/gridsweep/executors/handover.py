"""Between the journal and the attempts' folders: what a worker is told, what its files say, what is published.

Every executor hands work over in the same way; they differ in where the worker runs and in how its folder is reached.
One whose workers run elsewhere keeps a mirror of their folders in the store, and reads that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from gridsweep.records import codec
from gridsweep.records.attempts import Assignment, AttemptFolder, EnergyLine, Part, Progress
from gridsweep.state.events import Ended, Event, Lost, Paused, Progressed, Running, Segment
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Checkpoint, device_named

PROGRESS_EVERY = timedelta(minutes=1)

L = TypeVar("L", Progress, EnergyLine)


def assignment(state: State, attempt: Attempt) -> Assignment:
    """What the worker of an attempt is told."""
    sweep = state.sweep
    parts = []
    for member in attempt.stint.members:
        standing = state.standings[member.experiment]
        experiment = standing.experiment
        saved = standing.checkpoint if member.from_step else None
        parts.append(Part(experiment.id, experiment.params, experiment.seed, member.from_step, member.to_step, saved))
    device = device_named(state.sweep.devices, attempt.device)
    base = state.standings[attempt.stint.members[0].experiment].experiment.base  # of all: packs share one
    return Assignment(
        attempt.id, sweep.model, sweep.dataset, sweep.recipe, sweep.total_steps, device, tuple(parts), base
    )


def news(
    state: State, attempt: Attempt, folder: AttemptFolder, now: datetime, *, ended: bool, why: str = ""
) -> list[Event]:
    """What an attempt's files say that the state does not know, at most one `Progressed` a minute.

    `ended` says that the worker is gone, so that its files are complete; `why`, for one that left no result.
    """
    lines, progress_at = read_lines(Progress, folder.path / "progress.jsonl", attempt.cursor[0])
    energy, energy_at = read_lines(EnergyLine, folder.path / "energy.jsonl", attempt.cursor[1])
    events: list[Event] = []
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
    return events + (_end(state, attempt, folder, why) if ended else [])


def _end(state: State, attempt: Attempt, folder: AttemptFolder, why: str) -> list[Event]:
    result = folder.result()
    if result is None or result.error:
        at = state.grid_time(result.ended_at if result else touched(folder.path))
        why = result.error if result else attempt.reason or why or f"the worker vanished ({last_words(folder.path)})"
        return [Lost(at, attempt.id, why, _saved(state, attempt, folder))]
    at = state.grid_time(result.ended_at)
    if any(outcome.status == "paused" for outcome in result.outcomes):
        return [Paused(at, attempt.id, result.outcomes)]
    return [Ended(at, attempt.id, result.outcomes, result.facts or {})]


def _saved(state: State, attempt: Attempt, folder: AttemptFolder) -> tuple[Checkpoint, ...]:
    """What a lost attempt left to go on from.

    The last step before a rung is made again, so that no rung is passed without a look. Members go on together: where
    a worker was killed between their checkpoints of a step, all take the step before.
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
    """The whole lines of a file after a byte, and the byte after the last of them. Lines that are none are skipped."""
    try:
        with path.open("rb") as file:
            file.seek(after)
            data = file.read()
    except FileNotFoundError:
        return [], after
    whole = data[: data.rfind(b"\n") + 1]
    lines = []
    for text in whole.splitlines():
        try:
            lines.append(codec.loads(kind, text))
        except ValueError:
            continue
    return lines, after + len(whole)


def merged(state: State, attempt: Attempt, lines: Sequence[EnergyLine]) -> list[Segment]:
    """Energy lines as segments in grid time; neighbours become one where no more than a minute's detail is lost.

    What was drawn before the first new step stays apart: it is a reload where the attempt was not the first.
    """
    first = min(member.from_step for member in attempt.stint.members)
    segments: list[Segment] = []
    for line in lines:
        start = state.grid_time(line.start)
        end = max(start, state.grid_time(line.start + timedelta(seconds=max(0.0, line.seconds))))
        last = segments[-1] if segments else None
        close = last and (line.step == last.step or (last.step > first and end - last.start <= PROGRESS_EVERY))
        if last and close and last.source == line.source:
            segments[-1] = Segment(last.start, max(last.end, end), last.kwh + line.kwh, line.source, line.step)
        else:
            segments.append(Segment(start, end, line.kwh, line.source, line.step))
    return segments


def touched(folder: Path) -> datetime:
    """The wall time of the last thing written into a folder."""
    return max(written_at(path) for path in [folder, *folder.iterdir()])


def written_at(path: Path) -> datetime:
    """When a file was last written."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def last_words(folder: Path) -> str:
    """The last line a worker printed."""
    try:
        lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"its last words: {lines[-1][:300]}" if lines else "it printed nothing"
