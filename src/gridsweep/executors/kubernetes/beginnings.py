"""The attempts on a volume whose workers have begun: when, and from where.

A folder that cannot be an attempt is left out with the reason, which is told: its work was done, and its energy is in
no account. Times are the workers' own, as far as files bear them out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from os.path import lexists

from gridsweep.errors import SpecError, printable
from gridsweep.executors.claims import ALLOWED
from gridsweep.executors.handover import written_at
from gridsweep.executors.kubernetes.manifests.delivery import assignment_of
from gridsweep.executors.kubernetes.shelves import Shelf
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment, AttemptFolder, Progress
from gridsweep.records.attempts import now as wall_clock
from gridsweep.records.bounded import MEBIBYTE, UnfitError, regular, said, whole
from gridsweep.sweep.stints import Checkpoint, Member, Stint
from gridsweep.sweep.sweep import Sweep

SAME = ("model", "dataset", "recipe", "total_steps", "base", "judging")
"""What the assignment of a folder and the spec must agree on, besides the experiment itself."""
SIGNS = ("worker.json", "progress.jsonl", "energy.jsonl", "result.json")
"""What only workers write."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt whose worker has begun, by its folder: when, over which steps, and from which checkpoint.

    `note` says what its beginning is known by, if not by its own word; `undated`: its files are newer than that word.
    """

    name: str
    experiment: str
    at: datetime
    from_step: int
    checkpoint: Checkpoint | None
    encoding: int
    note: str = ""
    undated: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """The attempts on a volume, in the order in which they began; `strangers` are of no experiment of the sweep.

    `left` are those that cannot be read, by name, with the reason.
    """

    begun: Sequence[Begun]
    strangers: Sequence[str] = field(default=())
    left: Mapping[str, str] = field(default_factory=dict)


def work_of(sweep: Sweep) -> dict[str, str]:
    """Return the experiments by the stint that a rendering gives each: all its steps."""
    return {Stint((Member(e.id, 0, sweep.total_of(e)),)).id: e.id for e in sweep.experiments}


def on_volume(shelf: Shelf, sweep: Sweep, closed: Collection[str] = ()) -> Volume:
    """Return the attempts on a volume, mirrored; those in `closed` are known to have ended, and not read again.

    Raise `SpecError` for an attempt that was made from another spec.
    """
    work, begun, strangers, left = work_of(sweep), list[Begun](), list[str](), dict[str, str]()
    last: dict[str, datetime] = {}
    names = shelf.attempts()
    for name in sorted(names, key=lambda name: (name.rpartition("/")[0], int(name.rpartition("/")[2]))):
        stint = name.rpartition("/")[0]
        if stint not in work:
            strangers.append(name)
            continue
        if name not in closed:
            shelf.refresh(name)
        folder = shelf.folder(name)
        if not any(lexists(folder.path / sign) for sign in SIGNS):
            continue  # no worker has signed in yet
        found = _begun(folder, name, sweep, work[stint])
        if isinstance(found, str):
            left[name] = found
            continue
        # The next attempt begins after the last one, whatever the clocks of their nodes say.
        found = replace(found, at=max(found.at, last.get(stint, found.at)))
        last[stint] = found.at
        begun.append(found)
    return Volume(sorted(begun, key=lambda one: one.at), strangers, left | _missing(begun, names))


def _missing(begun: Sequence[Begun], names: Collection[str]) -> dict[str, str]:
    """Return the attempts without a folder before those that have one: attempts are numbered from 1 on."""
    found, gone = set(names), dict[str, str]()
    for one in begun:
        stint, _, number = one.name.rpartition("/")
        if (before := int(number) - 1) and f"{stint}/{before}" not in found:
            gone[f"{stint}/{before}"] = f"its folder is gone, and stints/{one.name} came after it"
    return gone


def _begun(folder: AttemptFolder, name: str, sweep: Sweep, id: str) -> Begun | str:
    """Return an attempt by its folder, or why it cannot be read. Raise `SpecError` for one of another spec."""
    try:
        task = codec.loads(Assignment, whole(folder.path / "stint.json", MEBIBYTE))
    except FileNotFoundError:
        return "its assignment, stint.json, is missing"
    except (OSError, ValueError) as error:
        what = printable(str(error).splitlines()[0][:200])
        return what if isinstance(error, UnfitError) else f"its assignment, stint.json, cannot be read: {what}"
    wanted = assignment_of(sweep, id)
    differs = [part for part in SAME if getattr(task, part) != getattr(wanted, part)]
    members = [(part.experiment, part.params, part.seed, part.to_step) for part in task.members]
    differs += (
        [] if members == [(p.experiment, p.params, p.seed, p.to_step) for p in wanted.members] else ["experiment"]
    )
    if differs:
        raise SpecError(
            f"stints/{name} on the volume was made from another spec: {', '.join(differs)} differ",
            remedy="collect with the spec that was rendered",
        )
    if task.attempt != name:
        return f"its assignment is that of stints/{printable(task.attempt[:80])}; is it a copy of that folder?"
    (part,) = task.members
    checkpoint = part.checkpoint if 0 < part.from_step < wanted.total_steps else None
    first = part.from_step if checkpoint is not None and checkpoint.step == part.from_step else 0
    at, note = _signed_in(folder)
    path = folder.path / "worker.json"
    undated = not note and written_at(path) - at > ALLOWED
    return Begun(name, id, min(at, wall_clock()), first, checkpoint if first else None, task.encoding, note, undated)


def _signed_in(folder: AttemptFolder) -> tuple[datetime, str]:
    """Return when a worker began, and what that is known by; "" for its own word.

    The word counts if it agrees with when worker.json was written or with the first line of progress: a copy of a
    volume may have lost the times of its files.
    """
    path, first = folder.path / "worker.json", _first_told(folder)
    written = written_at(path) if lexists(path) else None
    try:
        text = str(said(path).get("started_at", ""))
        word, what = moment(text), f"says {printable(text[:40]) or 'nothing'}"
    except FileNotFoundError:
        word, what = None, "is missing"
    except (OSError, ValueError):
        word, what = None, "cannot be read"
    if word is not None and 1971 <= word.year <= 9000:
        early = written is None or word <= written + ALLOWED  # no file is older than what it says
        if early and first is not None and abs(first - word) <= ALLOWED:
            return word, ""
        near = written is not None and abs(word - written) <= ALLOWED
        if near and (first is None or word <= first + ALLOWED):
            return word, ""
    times = [written_at(folder.path / name) for name in SIGNS if lexists(folder.path / name)]
    at, by = (first, "its first line of progress") if first is not None else (min(times), "the times of its files")
    return at, f"its beginning is known by {by}, because worker.json {what}"


def _first_told(folder: AttemptFolder) -> datetime | None:
    """Return the time of the first line of progress; None without one, or if it is after the file was written."""
    path = folder.path / "progress.jsonl"
    try:
        with regular(path) as file:
            at = codec.loads(Progress, file.readline(MEBIBYTE)).at
        plausible = at.tzinfo is not None and 1971 <= at.year <= 9000 and at <= written_at(path) + ALLOWED
    except (OSError, ValueError):
        return None
    return at if plausible else None


def moment(text: str) -> datetime | None:
    """Return an instant; None for other text, and for a time without a zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
