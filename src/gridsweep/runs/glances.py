"""The status of a run's folder, from the snapshot beside its journal where that fits, else from the whole journal."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.errors import JournalError
from gridsweep.records import snapshot
from gridsweep.runs.folder import RunFolder
from gridsweep.state.glance import Glance, from_plain, glance, plain

if TYPE_CHECKING:  # imported where a snapshot does not do: a glance alone starts faster without
    from gridsweep.records.snapshot import Snapshot
    from gridsweep.state.state import State

LATER = 500
"""With more rows than these after its snapshot, a reader writes a new one."""
REST, SHARE = 2.0, 20.0
"""A run writes a snapshot at most every `REST` seconds, and every `SHARE` times the time that it takes to write."""


def glance_at(place: RunFolder) -> Glance:
    """Return the sweep in a folder at a glance. Raise `SpecError` and `JournalError` as `RunFolder.read` does."""
    place.check()
    found = snapshot.fitting(place.journal)
    if found is not None and not found.later:
        with suppress(KeyError, TypeError, ValueError):
            return from_plain(found.glance)
    return glance(_state(place, found))


def standing_at(place: RunFolder) -> State:
    """Return a state of which only the status may be told (`state.frozen`). Raise as `RunFolder.read` does."""
    place.check()
    return _state(place, snapshot.fitting(place.journal))


def _state(place: RunFolder, found: Snapshot | None) -> State:
    state = _thawed(place, found) if found is not None else None
    if found is not None and state is not None:
        end = found.end
        if len(found.later) <= LATER:
            return state
    else:
        state, end = place.read_to()
    with suppress(OSError):  # the folder may belong to another user, or the disk be full: it only saves time
        keep(place.journal, state, end)
    return state


def _thawed(place: RunFolder, found: Snapshot) -> State | None:
    """Return the frozen state with the rows after it folded; None if it cannot be made, for whatever reason."""
    from gridsweep.records import codec
    from gridsweep.records.facts import event_of
    from gridsweep.state.frozen import Frozen, thaw

    text = found.frozen()
    if text is None:
        return None
    with suppress(JournalError, LookupError, TypeError, ValueError):
        state = thaw(codec.loads(Frozen, text))
        if state.folded != found.count:
            return None
        for row in found.later:
            state.apply(event_of(place.journal, row))
        return state
    return None


def keep(journal: Path, state: State, end: tuple[int, str]) -> None:
    """Write the snapshot of a state that all rows up to `end` fold to. Raise `OSError` if it cannot be written."""
    from gridsweep.records import codec
    from gridsweep.state.frozen import freeze

    snapshot.keep(journal, *end, plain(glance(state)), codec.dumps(freeze(state)))


class Keeper:
    """Writes the snapshots of a run while it waits, now and then, and at its end."""

    def __init__(self, journal: Path):
        self.journal = journal
        self._rows, self._next = 0, 0.0

    def rested(self, state: State, end: tuple[int, str], *, last: bool = False) -> None:
        """Write a snapshot if there are new rows and the last one is long enough ago, or if this is the `last`."""
        begun = time.monotonic()
        if end[0] != state.folded or (not last and (end[0] == self._rows or begun < self._next)):
            return
        with suppress(OSError):  # a full disk ends the run at its next fact, with a better message
            keep(self.journal, state, end)
        self._rows = end[0]
        self._next = time.monotonic() + max(REST, SHARE * (time.monotonic() - begun))
