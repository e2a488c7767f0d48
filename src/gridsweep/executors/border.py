"""The border: what comes out of a worker's files, read with bounds and judged. Nothing else reads those files.

A line or a result that cannot be, by `claims`, ends the reading of its file: `wrong` says so, and the attempt is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from gridsweep.errors import StorageError, printable
from gridsweep.executors.claims import ALLOWED, Work, of_energy, of_progress, of_result, plain, samples, told_plainly
from gridsweep.records import codec
from gridsweep.records.attempts import AttemptFolder, EnergyLine, Progress, Result
from gridsweep.records.bounded import MEBIBYTE, UnfitError, regular, said
from gridsweep.records.disk import AGAIN, DISK, UNUSABLE, patiently
from gridsweep.state.events import Ended, Event, Paused
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State

L = TypeVar("L", Progress, EnergyLine)

AT_ONCE = 32 * MEBIBYTE
"""The most bytes of a file that one look takes; the next look goes on from there."""
LINE = MEBIBYTE
LAST_WORDS = 64 * 1024
WITHHELD = "withheld from the worker's environment:"
"""Begins a line of log.txt that the starter writes."""
SLACK = timedelta(seconds=2)
"""The sweep's time is read before the workers' files, which may grow in between."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker's files say beyond the journal's cursor.

    Energy lines stand with the byte offset after each. `clock` is how far the worker's clock is ahead of this one, and
    `within` turns its times into grid times;
    `all` says whether the files were read to their ends. `wrong` says what in them cannot be, "" if nothing.
    """

    lines: Sequence[Progress]
    energy: Sequence[tuple[EnergyLine, int]]
    progress_at: int
    energy_at: int
    clock: timedelta
    within: Within
    all: bool
    wrong: str


def told(state: State, attempt: Attempt, folder: AttemptFolder, now: datetime) -> Told:
    """Read the lines that the journal does not have yet, and judge them; `now` is the sweep's time."""
    work = work_of(state, attempt, folder, now)
    path = folder.path / "progress.jsonl"
    lines, progress_at, all_lines, wrong = _lines(
        Progress, path, attempt.cursor[0], lambda line: of_progress(line, work)
    )

    known = replace(work, drawn_kwh=attempt.drawn_kwh, drawn_to=max((s.step for s in attempt.energy), default=0))
    of_next = _in_order(known)

    path = folder.path / "energy.jsonl"
    energy, energy_at, all_energy, faulty = _lines(EnergyLine, path, attempt.cursor[1], of_next)
    clock, too_far = attempt.clock, ""
    if lines and not attempt.cursor[0] and not state.sweep.follows_work:
        clock, too_far = _clock(state, attempt, folder, lines[0][0].at, now)
    within = Within(state, attempt, folder, now, clock)
    if not (wrong := too_far or wrong or faulty):
        wrong = _outside("progress.jsonl", (within.outside("at", line.at) for line, _ in lines))
        lines, progress_at = ([], attempt.cursor[0]) if wrong else (lines, progress_at)
        faulty = wrong or _outside("energy.jsonl", (within.outside("start", line.start) for line, _ in energy))
        energy, energy_at = ([], attempt.cursor[1]) if faulty else (energy, energy_at)
        wrong = faulty
    whole = all_lines and all_energy
    return Told([line for line, _ in lines], energy, progress_at, energy_at, clock, within, whole, wrong)


def _in_order(known: Work) -> Callable[[EnergyLine], str]:
    """Return a judge of lines of energy, one after another: each knows what those before it have told."""
    work, starts = known, set[datetime]()

    def judge(line: EnergyLine) -> str:
        nonlocal work
        if wrong := of_energy(line, work):
            return wrong
        if line.seconds and line.start in starts:
            return f"start is {line.start.isoformat()} once more; lines are repeated"
        starts.add(line.start)
        work = replace(work, drawn_kwh=work.drawn_kwh + line.kwh, drawn_to=line.step)
        return ""

    return judge


def _outside(file: str, found: Iterator[str]) -> str:
    wrong = next(filter(None, found), "")
    return f"its worker wrote {file}: {wrong}" if wrong else ""


class Within:
    """The worker's times as grid times: corrected by how far its clock is `ahead`, and within the attempt.

    An attempt lies between its request and the last change of its folder, though it is looked at much later; no program
    can set the time of a change. Within it only lengths count.
    """

    def __init__(self, state: State, attempt: Attempt, folder: AttemptFolder, now: datetime, ahead: timedelta):
        self._state, self._folder, self._ahead = state, folder, ahead
        self._first, self._now = attempt.requested_at, max(now, attempt.seen_at or now, attempt.requested_at)

    @cached_property
    def _last(self) -> datetime:
        """When the folder was last changed. The clock of a file server may be behind: the assignment was written at the
        request, whatever that clock says.
        """
        if not self._folder.path.exists():
            return self._now
        behind = max(timedelta(0), self._first - grid_time(self._state, self._folder.prepared_at(), self._now))
        changed = grid_time(self._state, self._folder.changed_at(), self._now) + behind
        return max(self._first, min(self._now, changed))

    def __call__(self, wall: datetime, seconds: float = 0.0) -> datetime:
        """Return when something began that took this many seconds of the wall clock."""
        at = grid_time(self._state, wall - self._ahead, self._now)
        return max(self._first, min(at, self._last + self.long(SLACK.total_seconds()) - self.long(seconds)))

    def long(self, seconds: float) -> timedelta:
        return timedelta(seconds=seconds) * self._state.sweep.clock_speed

    def outside(self, name: str, at: datetime) -> str:
        """Return what is wrong with a time that is outside of the attempt by more than clocks may differ.

        "" where grid time follows the work, and times say nothing.
        """
        if self._state.sweep.follows_work:
            return ""
        when, margin = grid_time(self._state, at - self._ahead, self._now), self.long(ALLOWED.total_seconds())
        if self._first - margin <= when <= self._last + margin:
            return ""
        side = "before it was asked for" if when < self._first else "after its folder was last changed"
        what = f"{name} is {at.isoformat()}, more than {ALLOWED.seconds // 60} min {side}"
        return f"{what}; set the clock of {host(self._folder)} by NTP, then run again"


def result_of(
    state: State,
    attempt: Attempt,
    folder: AttemptFolder,
    now: datetime,
    within: Within,
    before: Sequence[Event] = (),
) -> tuple[Result | None, str]:
    """Return the result of an attempt whose worker has ended, and what is wrong with it; None without a file.

    `before` are the events of other attempts that this look has found and the state does not have yet. Its
    time must be `within` the attempt.
    """
    try:
        result = told_plainly(folder.written_result())
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError) as error:
        return None, f"its worker wrote result.json: {_reason(error)}"
    ends = [outcome for s in state.standings.values() for outcome in (s.outcome, *s.scores.values()) if outcome]
    ends += [outcome for event in before if isinstance(event, Ended | Paused) for outcome in event.outcomes]
    known = {what: tokens for outcome in reversed(ends) for what, tokens in samples(outcome).items()}
    wrong = of_result(result, replace(work_of(state, attempt, folder, now), samples=known))
    if not wrong and not result.error:
        wrong = within.outside("ended_at", result.ended_at)
    if not wrong and not result.error:
        wrong = next(filter(None, (folder.unfit(outcome) for outcome in result.outcomes)), "")
    return result, f"its worker wrote result.json: {wrong}" if wrong else ""


def work_of(state: State, attempt: Attempt, folder: AttemptFolder, now: datetime) -> Work:
    """Return what an attempt was asked for."""
    if state.sweep.follows_work:  # grid time says nothing of the wall time
        lasted = datetime.now(UTC) - folder.prepared_at() if folder.path.exists() else timedelta(0)
    else:
        set_back = sum((-anchor.jump for anchor in state.anchors if anchor.jump < timedelta(0)), timedelta(0))
        lasted = (now - attempt.requested_at) / state.sweep.clock_speed + set_back
    given = {m.experiment: state.standings[m.experiment].checkpoint for m in attempt.stint.members if m.from_step}
    return Work(
        attempt.id,
        {member.experiment: member for member in attempt.stint.members},
        state.sweep.total_of(state.standings[attempt.stint.members[0].experiment].experiment),  # of all: packs share it
        {id: checkpoint for id, checkpoint in given.items() if checkpoint is not None},
        lasted,
        asked=attempt.pausing_since is not None,
    )


def printed(folder: Path) -> Iterator[str]:
    """Yield the lines that a worker has printed, as a terminal may show them; a progress bar by its last state.

    What was withheld from its environment is said only with what it printed: it may be the reason for that.
    """
    withheld: list[str] = []
    with suppress(OSError, UnfitError), regular(folder / "log.txt") as file:
        while line := file.readline(LINE):
            text = printable(line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2])
            if text.startswith(WITHHELD):
                withheld.append(text)
            else:
                yield from (*withheld, text)
                withheld.clear()


def last_words(folder: Path) -> str:
    """Return a phrase that quotes the last line a worker printed."""
    line = _last_line(folder)
    return f"its last words: {line}" if line else "it printed nothing"


def starved(folder: Path) -> bool:
    """Return whether a worker's last words say that it could not use the disk, not even for a result."""
    return _last_line(folder).startswith(UNUSABLE)


def _last_line(folder: Path) -> str:
    try:
        with regular(folder / "log.txt") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_WORDS))
            lines = file.read(LAST_WORDS).decode(errors="replace").strip().splitlines()
    except (OSError, ValueError):
        lines = []
    lines = [line for line in lines if not line.startswith(WITHHELD)]
    return printable(lines[-1][:300]) if lines else ""


def read_lines(kind: type[L], path: Path, after: int = 0) -> tuple[list[L], int]:
    """Return a file's complete lines from byte `after` on, unjudged, and the offset after them."""
    found, end, _, _ = _lines(kind, path, after, lambda line: "")
    return [line for line, _ in found], end


def _lines(
    kind: type[L], path: Path, after: int, judge: Callable[[L], str]
) -> tuple[list[tuple[L, int]], int, bool, str]:
    """Return a file's complete lines from byte `after` on, each with the offset after it, up to the first wrong one.

    Also return the offset after the last of them, whether it is the end of the file, and what is wrong.
    """

    def read() -> tuple[bytes, bool]:
        with regular(path) as file:
            file.seek(after)
            return file.read(AT_ONCE), bool(file.read(1))

    try:
        data, rest = patiently(read)
    except FileNotFoundError:
        return [], after, True, ""
    except (OSError, ValueError) as error:
        return [], after, True, f"its worker wrote {path.name}: {_reason(error)}"
    found: list[tuple[L, int]] = []
    for text in BytesIO(data):
        if len(text) > LINE:
            return found, after, True, f"its worker wrote {path.name}: a line of more than {LINE:,} bytes"
        if not text.endswith(b"\n"):
            break  # still being written, or cut by a kill
        if not text.strip():
            after += len(text)
            continue
        try:
            line = codec.loads(kind, text)
            wrong = judge(line)
        except ValueError as error:
            wrong = _reason(error)
        if wrong:
            return found, after, True, f"its worker wrote {path.name}: at byte {after}: {wrong}"
        after += len(text)
        found.append((line, after))
    return found, after, not rest, ""


def _clock(
    state: State, attempt: Attempt, folder: AttemptFolder, first: datetime, now: datetime
) -> tuple[timedelta, str]:
    """Return how far a worker's clock is ahead, by its first line, which was written between the request and now."""
    speed = state.sweep.clock_speed
    at = grid_time(state, first, now)
    ahead = (at - now) / speed if at > now else min(timedelta(0), (at - attempt.requested_at) / speed)
    if abs(ahead) <= SLACK:
        return timedelta(0), ""
    if abs(ahead) <= ALLOWED:
        return ahead, ""
    way = "ahead of" if ahead > timedelta(0) else "behind"
    return timedelta(0), (
        f"the clock of {host(folder)} is {abs(ahead).total_seconds() / 60:.0f} min {way} this machine's; "
        "set both by NTP, then run again"
    )


def grid_time(state: State, wall: datetime, now: datetime) -> datetime:
    """Return the grid time at any wall time, however absurd; `now` is the sweep's time."""
    try:
        return state.grid_time(wall)
    except OverflowError:  # a replay runs so fast that a year is more than time has
        far = timedelta(days=3650)
        return now + far if wall > datetime.now(UTC) else now - far


def host(folder: AttemptFolder) -> str:
    """Return the name of the worker's machine as it says itself."""
    try:
        name = said(folder.path / "worker.json")["host"]
    except (OSError, ValueError, KeyError):
        return "the worker's machine"
    return printable(str(name)[:100])


def _reason(error: OSError | ValueError) -> str:
    """Return the first line of what is wrong with a file, without the file's content at length.

    Raise `StorageError` if the disk is at fault and not the worker, which then goes on.
    """
    if isinstance(error, OSError) and error.errno in DISK:
        raise StorageError(f"{error.filename or 'the store'}: {error.strerror}", remedy=AGAIN) from None
    if isinstance(error, UnfitError):
        return str(error)
    details = getattr(error, "errors", None)
    if callable(details):
        first = details()[0]
        return plain(f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg'][:200]}".removeprefix(": "))
    return plain(str(getattr(error, "strerror", None) or error).partition("\n")[0][:300])
